"""DICOM over TLS, in and out: who gets in, what is refused, and that real peers of either kind work with it."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from ich_node import tls
from ich_node.association import Patience
from ich_node.cli import main
from ich_node.config import parse_config
from ich_node.deliver import echo
from ich_node.doctor import examine
from ich_node.errors import ConfigError, DestinationUnavailable
from ich_node.log import start_logging
from ich_node.phantom import PhantomSettings, write_series
from ich_node.records import Destination, StudySent, TlsFiles
from ich_node.repeats import Repeats
from ich_node.routing import destinations_for, secured
from tests.auditing import recorded_in
from tests.certificates import CLIENT_ALONE, SERVER_ALONE, Authority, Issued
from tests.integration.receiving import Running, dcmtk, needs_dcmtk, running
from tests.outbox import outbox, peer
from tests.running import as_toml, free_port, leaks_a_socket, settings, storescp_in, storescu, wait_for

OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl is absent")
pytestmark = pytest.mark.usefixtures("logging_put_back")
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
REJECTED_CALLING = (1, 1, 3)
"""Permanent, by the user, calling AE title not recognized (PS3.8 9.3.4)."""


_TOLD_ONCE_A_MINUTE = Repeats.count


@pytest.fixture(autouse=True)
def _every_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one address the log tells once a minute."""
    monkeypatch.setattr(Repeats, "count", lambda *_: 1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority nobody here trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def node(authority: Authority) -> Issued:
    return authority.issue("node", kind="rsa")  # so that key exchange by RSA alone would work, if it were let


@pytest.fixture(scope="module")
def scanner(authority: Authority) -> Issued:
    return authority.issue("ct1", uri="urn:hospital:ct1")


def tls_section(authority: Authority, node: Issued, **changes: Any) -> dict[str, Any]:
    files = {"certificate": str(node.certificate), "key": str(node.key), "ca_file": str(authority.file)}
    return files | {"port": free_port()} | changes


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory, authority: Authority, node: Issued) -> Iterator[Running]:
    """A node that takes TLS alone, from anybody whose certificate is good."""
    with running(tmp_path_factory.mktemp("state"), tls=tls_section(authority, node)) as node_:
        yield node_


def client(authority: Authority, shows: Issued | None, least: Any = TLS_1_2, most: Any = TLS_1_3) -> ssl.SSLContext:
    """A context for a peer that trusts an authority, with the old versions of TLS allowed where they are asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = least, most
    context.load_verify_locations(authority.file)
    if shows is not None:
        context.load_cert_chain(*shows.pair)
    return context


def c_echo(port: int, context: ssl.SSLContext | None, calling: str = "CT1", source: str = "127.0.0.1") -> int | None:
    """Give the status of a C-ECHO; None where there was no association."""
    status, _ = c_echo_or_why(port, context, calling, source)
    return status


def c_echo_or_why(
    port: int, context: ssl.SSLContext | None, calling: str = "CT1", source: str = "127.0.0.1"
) -> tuple[int | None, tuple[int, int, int] | None]:
    """Give the status of a C-ECHO, and result, source and reason of a rejection."""
    entity = AE(calling)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 30
    entity.add_requested_context(Verification)
    arguments = {"tls_args": (context, "127.0.0.1")} if context is not None else {}
    association = entity.associate("127.0.0.1", port, ae_title="ICH_NODE", bind_address=(source, 0), **arguments)
    if association.is_established:
        status = association.send_c_echo().get("Status")
        association.release()
        return status, None
    answer = association.acceptor.primitive
    rejected = (answer.result, answer.result_source, answer.diagnostic) if association.is_rejected else None
    return None, rejected


def events(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]


# -------------------------------------------------------------------------------------- what is taken


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["TLS 1.2", "TLS 1.3"])
def test_a_trusted_peer_is_served(receiver: Running, authority: Authority, scanner: Issued, version: Any) -> None:
    assert c_echo(receiver.port, client(authority, scanner, version, version)) == 0x0000


def test_no_other_ciphers_are_taken_than_those_of_the_profile(
    receiver: Running, authority: Authority, scanner: Issued
) -> None:
    taken = set()
    for one in client(authority, scanner).get_ciphers():
        if one["protocol"] == "TLSv1.3":
            continue
        context = client(authority, scanner, most=TLS_1_2)
        context.set_ciphers(f"{one['name']}:@SECLEVEL=0")
        try:
            with (
                socket.create_connection(("127.0.0.1", receiver.port), 30) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
            ):
                taken.add((connection.cipher() or ("",))[0])
        except OSError:
            continue
    assert taken == {one for one in tls.CIPHERS_OF_TLS_1_2 if "RSA" in one and "ECDSA" not in one}


def test_both_directions_allow_the_same_and_only_authenticated_encryption(authority: Authority, node: Issued) -> None:
    for context in (tls.server_context(authority.files(node)), tls.client_context(authority.files(node))):
        allowed = context.get_ciphers()
        assert {one["name"] for one in allowed} == {*tls.CIPHERS_OF_TLS_1_2, *tls.CIPHERS_OF_TLS_1_3}
        assert all(one["aead"] for one in allowed)
        assert context.security_level == 2
        assert context.minimum_version == TLS_1_2


@needs_dcmtk
@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"], ids=["BCP 195 ND", "BCP 195", "BCP 195 extended"])
def test_dcmtk_is_served_by_its_profiles(
    receiver: Running, authority: Authority, scanner: Issued, profile: str
) -> None:
    done = echoscu(receiver.port, authority, scanner, profile)
    assert done.returncode == 0, done.stderr


@needs_dcmtk
def test_dcmtk_sends_images_by_tls(tmp_path: Path, authority: Authority) -> None:
    node, scanner = authority.issue("node-rsa", kind="rsa"), authority.issue("ct-rsa", kind="rsa")
    images = write_series(tmp_path / "images", PhantomSettings(slices=4, rows=64))
    peers = [{"ae_title": "STORESCU", "address": "127.0.0.1", "certificate": "ct-rsa.hospital.example"}]
    closed = {"allow_any": False, "reserve_mib": 0}
    with running(tmp_path / "state", tls=tls_section(authority, node), peer=peers, receiver=closed) as receiving:
        done = storescu(images, receiving.port, *dcmtk_by_tls(authority, scanner))
        assert done.returncode == 0, done.stderr
        assert len(receiving.instances()) == 4
        assert len(receiving.files()) == 4


def echoscu(port: int, authority: Authority, shows: Issued, *options: str) -> subprocess.CompletedProcess[str]:
    by_tls = dcmtk_by_tls(authority, shows)
    return dcmtk("echoscu", "-to", "30", "-aec", "ICH_NODE", *by_tls, *options, "127.0.0.1", str(port))


# ------------------------------------------------------------------------------------ what is refused


def _expired(authority: Authority, _: Authority) -> Issued:
    return authority.issue("expired", days=-1, begins=-30)


def _not_yet(authority: Authority, _: Authority) -> Issued:
    return authority.issue("not-yet", begins=2)


def _for_servers(authority: Authority, _: Authority) -> Issued:
    return authority.issue("for-servers", purposes=SERVER_ALONE)


def _self_signed(authority: Authority, _: Authority) -> Issued:
    return authority.self_signed("self-signed")


def _of_a_stranger(_: Authority, stranger: Authority) -> Issued:
    return stranger.issue("ct1")


def _none(_: Authority, __: Authority) -> None:
    return None


BAD_CLIENTS: dict[str, tuple[Callable[[Authority, Authority], Issued | None], str]] = {
    "expired": (_expired, "certificate has expired"),
    "not valid yet": (_not_yet, "certificate is not yet valid"),
    "for servers alone": (_for_servers, "unsuitable certificate purpose"),
    "self-signed": (_self_signed, "self-signed certificate"),
    "of another authority": (_of_a_stranger, "unable to get local issuer certificate"),
    "none": (_none, "peer did not return a certificate"),
}


@leaks_a_socket
@pytest.mark.parametrize("kind", BAD_CLIENTS)
def test_a_client_whose_certificate_is_not_good_gets_no_association(
    receiver: Running, authority: Authority, stranger: Authority, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make, why = BAD_CLIENTS[kind]
    start_logging("INFO")
    shown = make(authority, stranger)
    for version in (TLS_1_2, TLS_1_3):
        assert c_echo(receiver.port, client(authority, shown, version, version)) is None
        lines = wait_for(lambda: [one for one in events(capfd) if "why" in one], "it is logged", 30)
        assert len(lines) == 1
        assert lines[0]["address"] == "127.0.0.1"
        assert why in lines[0]["why"]


@leaks_a_socket
def test_a_handshake_that_fails_is_in_the_audit_trail_and_one_that_was_left_is_not(
    tmp_path: Path, authority: Authority, node: Issued
) -> None:
    with running(tmp_path, tls=tls_section(authority, node)) as receiving:
        with socket.create_connection(("127.0.0.1", receiving.port), 30, ("127.0.0.3", 0)) as left:
            left.shutdown(socket.SHUT_WR)
            while left.recv(1024):  # an alert, and the end
                pass
        assert c_echo(receiving.port, client(authority, None), source="127.0.0.2") is None
        (refused,) = wait_for(lambda: recorded_in(tmp_path, "Security Alert"), "it is recorded", 30)
    assert (refused.types, refused.outcome) == (["Node Authentication"], "8")
    assert refused.why == "TLS: peer did not return a certificate"
    assert refused.participant("110153")["NetworkAccessPointID"] == "127.0.0.2"
    assert len(recorded_in(tmp_path, "Security Alert")) == 1


@leaks_a_socket
@pytest.mark.filterwarnings("ignore:.*TLSv1.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=["TLS 1.0", "TLS 1.1"])
def test_older_versions_are_refused(
    receiver: Running, authority: Authority, node: Issued, scanner: Issued, version: Any
) -> None:
    old = client(authority, scanner, version, version)
    assert c_echo(receiver.port, old) is None
    willing = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # or the test would only show that this client cannot
    willing.set_ciphers("ALL:@SECLEVEL=0")
    willing.minimum_version = version
    willing.load_cert_chain(*node.pair)
    incoming, outgoing, theirs, ours = ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO()
    one = old.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    other = willing.wrap_bio(theirs, ours, server_side=True)
    for _ in range(6):
        for end in (one, other):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
            theirs.write(outgoing.read())
            incoming.write(ours.read())
    assert one.version() in ("TLSv1", "TLSv1.1")


@leaks_a_socket
@pytest.mark.parametrize(
    "cipher",
    [
        "ECDHE-RSA-AES256-SHA384",
        "ECDHE-RSA-AES128-SHA",
        "ECDHE-RSA-NULL-SHA",
        "AES256-GCM-SHA384",
        "AES128-SHA",
    ],
)
def test_ciphers_without_authenticated_encryption_or_forward_secrecy_are_refused(
    receiver: Running, authority: Authority, scanner: Issued, cipher: str
) -> None:
    context = client(authority, scanner, most=TLS_1_2)
    context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    assert c_echo(receiver.port, context) is None
    assert c_echo(receiver.port, client(authority, scanner, most=TLS_1_2)) == 0x0000


@needs_openssl
def test_no_renegotiation_no_compression_no_tickets(receiver: Running, authority: Authority, scanner: Issued) -> None:
    def s_client(version: str, said: str) -> str:
        command = [str(OPENSSL), "s_client", "-connect", f"127.0.0.1:{receiver.port}", f"-{version}",
                   "-cert", scanner.pair[0], "-key", scanner.pair[1], "-CAfile", str(authority.file)]  # fmt: skip
        done = subprocess.run(command, input=said, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout + done.stderr

    by_1_2, by_1_3 = s_client("tls1_2", "R\n"), s_client("tls1_3", "Q\n")
    assert "no renegotiation" in by_1_2
    assert "Compression: NONE" in by_1_2
    assert "Verify return code: 0 (ok)" in by_1_2
    assert "TLS session ticket" not in by_1_2
    assert "Verify return code: 0 (ok)" in by_1_3
    assert "New Session Ticket arrived" not in by_1_3


@leaks_a_socket
def test_plain_dicom_on_the_port_of_tls_is_closed_at_once(receiver: Running) -> None:
    began = time.monotonic()
    assert c_echo(receiver.port, None) is None
    assert time.monotonic() - began < 25, "not after the time-out of whom nothing answers"


@leaks_a_socket
def test_a_revoked_certificate_is_refused(tmp_path: Path, authority: Authority, node: Issued, scanner: Issued) -> None:
    lost = authority.issue("lost")
    section = tls_section(authority, node, crl_file=str(authority.revoke(lost)))
    with running(tmp_path, tls=section) as receiving:
        assert c_echo(receiving.port, client(authority, lost)) is None
        assert c_echo(receiving.port, client(authority, scanner)) == 0x0000


@leaks_a_socket
def test_a_site_may_let_in_who_shows_no_certificate_but_not_who_shows_a_bad_one(
    tmp_path: Path, authority: Authority, stranger: Authority, node: Issued, scanner: Issued
) -> None:
    bound = [{"ae_title": "BOUND", "address": "127.0.0.1", "certificate": scanner.fingerprint}]
    section = tls_section(authority, node, require_client_certificate=False)
    with running(tmp_path, tls=section, peer=bound) as receiving:
        assert c_echo(receiving.port, client(authority, None)) == 0x0000
        assert c_echo(receiving.port, client(authority, stranger.issue("bad"))) is None
        assert c_echo_or_why(receiving.port, client(authority, None), "BOUND") == (None, REJECTED_CALLING)
        assert c_echo(receiving.port, client(authority, scanner), "BOUND") == 0x0000


# ----------------------------------------------------------------------- AE title, address, certificate


@leaks_a_socket
def test_an_ae_title_belongs_to_an_address_and_a_certificate(
    tmp_path: Path, authority: Authority, node: Issued, scanner: Issued, capfd: pytest.CaptureFixture[str]
) -> None:
    digits = scanner.fingerprint
    bound = {
        "CT1": digits,
        "COLONS": ":".join(digits[at : at + 2] for at in range(0, 64, 2)).upper(),
        "DNS": "CT1.hospital.example",
        "URI": "urn:hospital:ct1",
    }
    peers = [{"ae_title": one, "address": "127.0.0.1", "certificate": what} for one, what in bound.items()]
    peers.append({"ae_title": "OTHER", "address": "127.0.0.1"})
    closed = {"allow_any": False, "reserve_mib": 0}
    theirs, others = client(authority, scanner), client(authority, other := authority.issue("other"))
    section = tls_section(authority, node, plain_port_open=True)
    with running(tmp_path, tls=section, peer=peers, receiver=closed) as receiving:
        by_tls = receiving.receiver.tls_port
        assert by_tls is not None
        assert {one: c_echo(by_tls, theirs, one) for one in bound} == dict.fromkeys(bound, 0x0000)
        assert c_echo(by_tls, others, "OTHER") == 0x0000, "a peer that is bound to none"
        assert c_echo(receiving.port, None, "OTHER") == 0x0000
        start_logging("INFO")
        for one in bound:
            assert c_echo_or_why(by_tls, others, one) == (None, REJECTED_CALLING)
            (said,) = [line for line in events(capfd) if line["level"] == "WARNING"]
            assert said["event"] == "association refused: its certificate does not belong to its AE title"
            assert (said["address"], said["calling_ae_title"]) == ("127.0.0.1", one)
            assert said["certificate"] == other.fingerprint, "for the administrator to compare"
        assert c_echo_or_why(receiving.port, None, "CT1") == (None, REJECTED_CALLING), "never without TLS"
        assert c_echo_or_why(by_tls, theirs, "STRANGER") == (None, REJECTED_CALLING)
        assert c_echo(by_tls, theirs, "CT1", source="127.0.0.2") is None, "from elsewhere"


@leaks_a_socket
def test_a_flood_without_the_right_certificate_is_one_line(
    tmp_path: Path,
    authority: Authority,
    node: Issued,
    scanner: Issued,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Repeats, "count", _TOLD_ONCE_A_MINUTE)
    peers = [{"ae_title": "CT1", "address": "127.0.0.1", "certificate": scanner.fingerprint}]
    others = client(authority, authority.issue("other"))
    with running(tmp_path, tls=tls_section(authority, node), peer=peers) as receiving:
        start_logging("INFO")
        for _ in range(10):
            assert c_echo_or_why(receiving.port, others, "CT1") == (None, REJECTED_CALLING)
        (said,) = [line for line in events(capfd) if line["level"] == "WARNING"]
        assert said["event"] == "association refused: its certificate does not belong to its AE title"


@leaks_a_socket
def test_where_anybody_may_send_a_bound_ae_title_still_needs_its_certificate(
    tmp_path: Path, authority: Authority, node: Issued, scanner: Issued
) -> None:
    bound = [{"ae_title": "CT1", "address": "127.0.0.1", "certificate": scanner.fingerprint}]
    section = tls_section(authority, node, plain_port_open=True)
    with running(tmp_path, tls=section, peer=bound) as receiving:
        assert c_echo(receiving.port, None, "ANYBODY") == 0x0000
        assert c_echo_or_why(receiving.port, None, "CT1") == (None, REJECTED_CALLING)


# -------------------------------------------------------------------------------------------- ports


def test_with_tls_the_plain_port_is_closed_unless_it_is_opened(
    tmp_path: Path, authority: Authority, node: Issued, scanner: Issued
) -> None:
    with running(tmp_path / "a", tls=tls_section(authority, node)) as receiving:
        plain = receiving.config.node.port
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", plain), 5)
        assert receiving.receiver.tls_port == receiving.port
    with running(tmp_path / "b", tls=tls_section(authority, node, plain_port_open=True)) as receiving:
        assert c_echo(receiving.port, None) == 0x0000
        assert c_echo(receiving.receiver.tls_port, client(authority, scanner)) == 0x0000
    with running(tmp_path / "c", tls=tls_section(authority, node, plain_port_open=True, port=0)) as receiving:
        assert c_echo(receiving.port, None) == 0x0000
        assert receiving.receiver.tls_port is None


@leaks_a_socket
def test_both_ports_share_one_limit(tmp_path: Path, authority: Authority, node: Issued, scanner: Issued) -> None:
    few = {"allow_any": True, "reserve_mib": 0, "maximum_associations": 1}
    with running(tmp_path, tls=tls_section(authority, node, plain_port_open=True), receiver=few) as receiving:
        entity = AE("CT1")
        entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2")
        by_tls = {"tls_args": (client(authority, scanner), "127.0.0.1")}
        first = entity.associate("127.0.0.1", receiving.receiver.tls_port, ae_title="ICH_NODE", **by_tls)
        assert first.is_established
        second = entity.associate("127.0.0.1", receiving.port, ae_title="ICH_NODE")
        assert second.is_rejected
        answer = second.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
        first.release()


def test_a_receiver_that_takes_tls_alone_checks_itself_without_a_line_in_its_log(
    tmp_path: Path, authority: Authority, node: Issued, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path, tls=tls_section(authority, node)) as receiving:
        start_logging("INFO")
        assert receiving.receiver.check.passes(receiving.port, tls=True)
        with socket.create_connection(("127.0.0.1", receiving.port), 10, ("127.0.0.9", 0)) as other:
            other.shutdown(socket.SHUT_WR)
            while other.recv(4096):
                pass
    assert [one["address"] for one in events(capfd) if "asked for no association" in one["event"]] == ["127.0.0.9"]


# ------------------------------------------------------------------------------------------- renewal


def renew(node: Issued, by: Issued) -> None:
    """Put another certificate in place, as who renews it does: by renaming."""
    for old, new in ((node.certificate, by.certificate), (node.key, by.key)):
        fresh = old.with_name(old.name + ".new")
        shutil.copy(new, fresh)
        fresh.replace(old)


def shown_by(port: int, context: ssl.SSLContext) -> str | None:
    with (
        socket.create_connection(("127.0.0.1", port), 30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        shown = tls.peer_certificate(connection)
        return shown.sha256 if shown is not None else None


@leaks_a_socket
def test_a_renewed_revocation_list_is_taken_without_a_restart(
    tmp_path: Path, authority: Authority, node: Issued, scanner: Issued
) -> None:
    """With the time that the node has for it, a second."""
    lost = authority.issue("lost")
    used = tmp_path / "list.pem"
    shutil.copy(authority.revoke(), used)
    with running(tmp_path / "state", tls=tls_section(authority, node, crl_file=str(used))) as receiving:
        assert c_echo(receiving.port, client(authority, lost)) == 0x0000
        shutil.copy(authority.revoke(lost), fresh := tmp_path / "list.new")
        fresh.replace(used)
        time.sleep(tls._LOOK_S)
        assert c_echo(receiving.port, client(authority, lost)) is None
        assert c_echo(receiving.port, client(authority, scanner)) == 0x0000


def test_a_renewed_certificate_is_taken_without_a_restart(
    tmp_path: Path,
    authority: Authority,
    scanner: Issued,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tls, "_LOOK_S", 0.0)
    context = client(authority, scanner)
    mine, renewed = authority.issue("mine"), authority.issue("renewed")
    with running(tmp_path / "state", tls=tls_section(authority, mine)) as receiving:
        before = mine.fingerprint
        start_logging("INFO")
        assert shown_by(receiving.port, context) == before
        entity = AE("CT1")
        entity.add_requested_context(Verification)
        old = entity.associate("127.0.0.1", receiving.port, ae_title="ICH_NODE", tls_args=(context, "127.0.0.1"))
        assert old.is_established

        good = mine.certificate.read_bytes()
        mine.certificate.write_bytes(renewed.certificate.read_bytes())  # the key is not there yet
        assert shown_by(receiving.port, context) == before
        assert shown_by(receiving.port, context) == before
        (said,) = [one for one in events(capfd) if one["level"] == "ERROR"]
        assert said["event"] == "new certificates cannot be used; the old ones stay in use"
        assert "tls.key" in said["why"]

        mine.certificate.write_bytes(good)
        renew(mine, renewed)
        assert shown_by(receiving.port, context) == renewed.fingerprint
        assert old.send_c_echo().Status == 0x0000, "what stands goes on"
        old.release()


@leaks_a_socket
def test_a_new_authority_is_trusted_without_a_restart(
    tmp_path: Path, authority: Authority, stranger: Authority, node: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_LOOK_S", 0.0)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.file.read_bytes())
    newcomer = client(authority, stranger.issue("newcomer"))
    with running(tmp_path / "state", tls=tls_section(authority, node, ca_file=str(trusted))) as receiving:
        assert c_echo(receiving.port, newcomer) is None
        trusted.write_bytes(authority.file.read_bytes() + stranger.file.read_bytes())
        assert c_echo(receiving.port, newcomer) == 0x0000


# ---------------------------------------------------------------------------------------------- out


def dcmtk_by_tls(authority: Authority, shows: Issued) -> list[str]:
    """Options of dcmtk's programs."""
    return ["+tls", shows.pair[1], shows.pair[0], "+cf", str(authority.file)]


def by_tls(*ports: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": f"pacs-{number}",
            "ae_title": "PACS",
            "host": "127.0.0.1",
            "port": port,
            "tls": True,
            "objects": ["report"],
        }
        | more
        for number, port in enumerate(ports)
    ]


@needs_dcmtk
@pytest.mark.parametrize("profile", ["+py", "+pz"], ids=["BCP 195 ND", "BCP 195 extended"])
def test_reports_go_to_dcmtk_by_tls(tmp_path: Path, authority: Authority, node: Issued, profile: str) -> None:
    pacs = authority.issue("pacs", kind="rsa")
    with storescp_in(tmp_path / "pacs", "--fork", *dcmtk_by_tls(authority, pacs), profile) as port:
        sections = {"tls": tls_section(authority, node), "destination": by_tls(port)}
        with outbox(tmp_path / "state", **sections) as box:
            box.add_study()
            (delivery,) = box.deliver_until_state("DELIVERED")
            assert delivery.attempts == 1
    (stored,) = (tmp_path / "pacs").iterdir()
    assert stored.name.endswith(str(delivery.sop_instance_uid))


@contextmanager
def server_with(shows: Issued, trusts: Authority, **changes: Any) -> Iterator[int]:
    """Run a PACS of pynetdicom that answers C-ECHO by TLS, as strict or as lax as wanted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*shows.pair)
    context.load_verify_locations(trusts.file)
    context.verify_mode = ssl.CERT_REQUIRED
    for name, value in changes.items():
        getattr(context, name)(value) if callable(getattr(context, name)) else setattr(context, name, value)
    entity = AE("PACS")
    entity.add_supported_context(Verification)
    server = entity.start_server(("127.0.0.1", 0), block=False, ssl_context=context)
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def echoed(files: TlsFiles | None, port: int, name: str = "") -> None:
    place = Destination("pacs", "PACS", "127.0.0.1", port, tls=files, tls_name=name)
    echo(place, "ICH_NODE", Patience(connect_s=20, response_s=20))


def test_a_destination_answers_by_tls(authority: Authority, node: Issued) -> None:
    with server_with(authority.issue("pacs"), authority) as port:
        echoed(authority.files(node), port)
        echoed(authority.files(node), port, "pacs.hospital.example")
        with pytest.raises(DestinationUnavailable, match="Hostname mismatch"):
            echoed(authority.files(node), port, "other.hospital.example")


BAD_SERVERS: dict[str, tuple[Callable[[Authority, Authority], Issued], str]] = {
    "expired": (_expired, "certificate has expired"),
    "for clients alone": (lambda one, _: one.issue("for-clients", purposes=CLIENT_ALONE), "certificate purpose"),
    "self-signed": (_self_signed, "self-signed certificate"),
    "of another authority": (_of_a_stranger, "unable to get local issuer certificate"),
}


@leaks_a_socket
@pytest.mark.parametrize("kind", BAD_SERVERS)
def test_a_destination_whose_certificate_is_not_good_gets_nothing(
    authority: Authority, stranger: Authority, node: Issued, kind: str
) -> None:
    make, why = BAD_SERVERS[kind]
    with (
        server_with(make(authority, stranger), authority) as port,
        pytest.raises(DestinationUnavailable, match=f"certificate of the other side is refused: .*{why}"),
    ):
        echoed(authority.files(node), port)


@leaks_a_socket
@pytest.mark.parametrize(
    "weakness",
    [
        {"set_ciphers": "ECDHE-ECDSA-AES256-SHA384:@SECLEVEL=0", "maximum_version": TLS_1_2},
        {"minimum_version": ssl.TLSVersion.TLSv1_1, "maximum_version": ssl.TLSVersion.TLSv1_1},
    ],
    ids=["CBC", "TLS 1.1"],
)
@pytest.mark.filterwarnings("ignore:.*TLSv1.*is deprecated:DeprecationWarning")
def test_a_destination_that_does_no_better_gets_nothing(
    authority: Authority, node: Issued, weakness: dict[str, Any]
) -> None:
    with (
        server_with(authority.issue("pacs"), authority, **weakness) as port,
        pytest.raises(DestinationUnavailable, match="TLS: "),
    ):
        echoed(authority.files(node), port)


@leaks_a_socket
@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["TLS 1.2", "TLS 1.3"])
def test_a_destination_that_refuses_our_certificate_is_unavailable(
    authority: Authority, stranger: Authority, node: Issued, version: Any
) -> None:
    with (
        server_with(authority.issue("pacs"), stranger, maximum_version=version) as port,
        pytest.raises(DestinationUnavailable, match="no association"),
    ):
        echoed(authority.files(node), port)


@leaks_a_socket
def test_a_destination_that_speaks_no_tls_gets_nothing(tmp_path: Path, authority: Authority, node: Issued) -> None:
    stored = []
    with peer(lambda event: stored.append(event) or 0x0000) as port:
        sections = {"tls": tls_section(authority, node), "destination": by_tls(port)}
        with outbox(tmp_path / "state", **sections) as box:
            box.add_study()
            box.deliver_until(lambda: box.deliveries()[0].attempts >= 1 and box.deliveries()[0].error, "it was tried")
            assert "TLS" in (box.deliveries()[0].error or "")
            assert not stored


@leaks_a_socket
def test_our_files_in_the_middle_of_a_renewal_only_delay_a_delivery(authority: Authority, tmp_path: Path) -> None:
    ours = Authority(tmp_path / "ours", "ours")
    mine, renewed = ours.issue("mine"), ours.issue("renewed")
    with server_with(authority.issue("pacs"), ours) as port:
        files = TlsFiles(mine.certificate, mine.key, authority.file)
        good = mine.certificate.read_bytes()
        mine.certificate.write_bytes(renewed.certificate.read_bytes())
        with pytest.raises(DestinationUnavailable, match="our certificate, key or authorities cannot be used"):
            echoed(files, port)
        mine.certificate.write_bytes(good)
        echoed(files, port)


# ------------------------------------------------------------------------------------ configuration


def parsed(folder: Path, **sections: Any) -> Any:
    return parse_config(settings(folder, folder, **sections))


def test_what_was_to_be_encrypted_is_never_sent_in_clear(tmp_path: Path, authority: Authority, node: Issued) -> None:
    section = tls_section(authority, node)
    peers = [
        {"ae_title": "CT1", "address": "127.0.0.0/8", "return_port": 4000, "return_tls": True,
         "certificate": "ct1.hospital.example"},
        {"ae_title": "CT2", "address": "127.0.0.1", "return_port": 4000},
        {"ae_title": "CT3", "address": "127.0.0.1", "return_port": 4000, "return_tls": True,
         "certificate": "ab" * 32},
    ]  # fmt: skip
    destinations = by_tls(1, tls_name="pacs.hospital.example")
    destinations += [{"name": "plain", "ae_title": "PACS", "host": "127.0.0.1", "port": 2}]
    config = parsed(tmp_path, tls=section, peer=peers, destination=destinations)

    def sent_to(calling: str) -> dict[str, tuple[bool, str]]:
        study = StudySent(calling, "127.0.0.1", old=False, triage=None)
        return {one.name: (one.tls is not None, one.tls_name) for one in destinations_for(config, study)}

    assert sent_to("CT1") == {
        "pacs-0": (True, "pacs.hospital.example"), "plain": (False, ""),
        "sender-CT1-127.0.0.1": (True, "ct1.hospital.example"),
    }  # fmt: skip
    assert sent_to("CT2")["sender-CT2-127.0.0.1"] == (False, "")
    assert sent_to("CT3")["sender-CT3-127.0.0.1"] == (True, ""), "a fingerprint is no host name: the address counts"
    gone = Destination("gone", "PACS", "127.0.0.1", 3)
    assert secured(config, gone).tls is not None, "not in the configuration any more"
    assert secured(parsed(tmp_path), gone).tls is None, "a node without a certificate"


def bad_files(kind: str, authority: Authority, node: Issued, folder: Path) -> dict[str, str]:
    """Change one of the files."""
    path = folder / "bad"
    path.write_text("not PEM at all")
    path.chmod(0o600)
    copy = folder / "copy.key"
    copy.write_bytes(node.key.read_bytes())
    copy.chmod(0o644)
    return {
        "no certificate": {"certificate": str(folder / "none.pem")},
        "no PEM": {"certificate": str(path)},
        "another key": {"key": str(authority.issue("another", kind="rsa").key)},
        "no key": {"key": str(path)},
        "open key": {"key": str(copy)},
        "no authority": {"ca_file": str(folder / "none.pem")},
        "bad authority": {"ca_file": str(path)},
        "bad list": {"crl_file": str(path)},
        "old list": {"crl_file": str(Authority(folder / "old", "old").revoke(days=-1))},
    }[kind]


FAULTS = {
    "no certificate": "tls.certificate = .*: cannot be read",
    "no PEM": "tls.certificate = .*: no certificate in PEM form",
    "another key": "tls.key = .*: cannot be used with .*KEY_VALUES_MISMATCH",
    "no key": "tls.key = .*: no private key in PEM form",
    "open key": r"tls.key = .*: has mode 0644: others can read or change it",
    "no authority": "tls.ca_file = .*: cannot be read",
    "bad authority": "tls.ca_file = .*: no certificate",
    "bad list": "tls.crl_file = .*: no revocation list",
    "old list": "tls.crl_file = .*: expired on",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, authority: Authority, node: Issued, kind: str) -> None:
    section = tls_section(authority, node) | bad_files(kind, authority, node, tmp_path)
    files = parsed(tmp_path, tls=section).tls.files
    assert files is not None
    with pytest.raises(ConfigError, match=FAULTS[kind]):
        tls.ServerTls(files)


def test_a_receiver_does_not_start_with_them(tmp_path: Path, authority: Authority, node: Issued) -> None:
    section = tls_section(authority, node, key=str(authority.issue("another", kind="rsa").key))
    with pytest.raises(ConfigError, match="KEY_VALUES_MISMATCH"), running(tmp_path / "state", tls=section):
        raise AssertionError("it started")


def test_every_fault_of_the_files_is_named_at_once(tmp_path: Path) -> None:
    files = TlsFiles(tmp_path / "a", tmp_path / "b", tmp_path / "c", tmp_path / "d")
    with pytest.raises(ConfigError) as caught:
        tls.ServerTls(files)
    assert len(caught.value.faults) == 4


@pytest.mark.parametrize(
    ("given", "seen", "healthy"),
    [
        ({}, "is good until", True),
        ({"days": 12.5}, "in 12 days: renew it", True),
        ({"days": -1, "begins": -30}, "expired on", False),
        ({"purposes": CLIENT_ALONE}, "is not for servers", False),
        ({"purposes": SERVER_ALONE}, "is not for clients", False),
        ({"purposes": None}, "is good until", True),
    ],
    ids=["good", "12 days", "expired", "clients alone", "servers alone", "no purpose named"],
)
def test_doctor_and_log_say_how_the_certificate_is(
    tmp_path: Path,
    authority: Authority,
    given: dict[str, Any],
    seen: str,
    healthy: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:
    mine = authority.issue("looked-at", **given)
    config = parsed(tmp_path, tls=tls_section(authority, mine), destination=by_tls(free_port()))
    said = next(one for one in examine(config) if one.what == "certificate")
    assert (said.well, seen in said.says) == (healthy, True), said.says
    start_logging("INFO")
    tls.log_state(authority.files(mine), serves=True, calls=True)
    levels = [one["level"] for one in events(capfd)]
    assert levels == (["ERROR"] if not healthy else ["WARNING"] if "renew" in seen else [])


@pytest.mark.parametrize("kind", ["good", "expired", "faulty", "credentials"])
def test_check_config_tells_faults_from_what_others_refuse(
    tmp_path: Path, authority: Authority, node: Issued, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files: dict[str, Any] = {
        "good": {},
        "expired": dict(zip(("certificate", "key"), authority.issue("old", days=-1, begins=-30).pair, strict=True)),
        "faulty": {"key": str(tmp_path / "none.key"), "ca_file": str(tmp_path / "none.pem")},
        "credentials": {"key": "credential:node.key"},
    }[kind]
    path = tmp_path / "ich-node.toml"
    path.write_text(as_toml(settings(tmp_path, tmp_path, tls=tls_section(authority, node) | files)))
    status = main(["check-config", "--config", str(path)])
    said = capsys.readouterr()
    assert status == (78 if kind == "faulty" else 0), said
    if kind == "faulty":
        assert "2 faults" in said.err
    else:
        assert "on TLS port" in said.out
    assert ("warning: tls.certificate" in said.out) == (kind == "expired")
    assert ("not looked at here" in said.out) == (kind == "credentials")


def test_doctor_asks_each_destination_by_tls(tmp_path: Path, authority: Authority, node: Issued) -> None:
    with server_with(authority.issue("pacs"), authority) as port:
        config = parsed(tmp_path, tls=tls_section(authority, node), destination=by_tls(port))
        said = next(one for one in examine(config) if one.what == "destination pacs-0")
    assert said.well, said.says
    assert "answers C-ECHO by TLS" in said.says
