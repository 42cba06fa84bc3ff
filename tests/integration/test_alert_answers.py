"""HL7 messages answer alerts: what acknowledges, what does not, and what is cut."""

from __future__ import annotations

import re
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import hl7
import httpx
import pytest

from ich_node.alert_answerer import taking_answers
from ich_node.database import open_database
from ich_node.queries import AlertStatus
from tests.alert_peers import listener, mail_server
from tests.alerting import FINDING, AlertingSite, alerting_site, mail, ris
from tests.integration.test_alert_links import PUBLIC_URL, sections_of, web
from tests.running import NodeProcesses, free_port, wait_for

VT, END = b"\x0b", b"\x1c\r"


def answers(**more: Any) -> dict[str, Any]:
    taking = {"enabled": True, "bind": "127.0.0.1", "port": free_port(), "addresses": ["127.0.0.0/8"]}
    return taking | {"idle_timeout_s": 2.0} | more


def message(kind: str, *segments: str, header: str = "") -> str:
    head = f"MSH|^~\\&|RIS|HOSPITAL|ICH_NODE||20261128120000||{kind}|RIS4711|P|2.5.1{header}"
    return "".join(f"{segment}\r" for segment in (head, *segments))


@dataclass
class Told:
    """A site that takes answers, and a study of which its RIS was told."""

    site: AlertingSite
    uid: str = ""

    @property
    def alert(self) -> AlertStatus:
        return self.site.alerts(self.uid)[0]

    @property
    def port(self) -> int:
        return self.site.box.config.alert_answers.port

    @contextmanager
    def connected(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), 20) as connection:
            yield connection

    def say(self, text: str) -> tuple[str, str, str]:
        """Send a message as an interface engine does; give code, identifier and text of the MSA that comes back."""
        with self.connected() as connection:
            connection.sendall(VT + text.encode() + END)
            answer = hl7.parse(block(connection))
        return str(answer["MSA.F1"]), str(answer["MSA.F2"]), str(answer["MSA.F3"])

    def say_without_reply(self, text: str) -> bytes:
        """Send a message and end; give what comes back until the node ends, too."""
        with self.connected() as connection:
            connection.sendall(VT + text.encode() + END)
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(4096)


def block(connection: socket.socket) -> str:
    received = b""
    while not received.endswith(END):
        part = connection.recv(4096)
        assert part, "the node has ended the connection"
        received += part
    assert received.startswith(VT)
    return received[1 : -len(END)].decode()


def is_cut(connection: socket.socket) -> bool:
    try:
        return connection.recv(4096) == b""
    except ConnectionError:
        return True


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AlertingSite]:
    folder, stop = tmp_path_factory.mktemp("answers"), threading.Event()
    with (
        listener("mllp", folder, "AA") as worklist,
        alerting_site(folder / "state", alert_answers=answers(), alert_hl7=[ris(worklist.port)]) as site,
        closing(open_database(site.box.config.database_url, busy_timeout_s=0.5)) as database,
        taking_answers(site.box.config, database, stop),
    ):
        yield site
        assert not stop.is_set(), "it ended by itself"


@pytest.fixture
def told(listening: AlertingSite) -> Told:
    uid = listening.box.add_study(finding=FINDING)
    listening.tell()
    return Told(listening, uid)


# ------------------------------------------------------------------------------------------- what acknowledges


@pytest.mark.parametrize(
    ("kind", "segments"),
    [
        ("ORA^R33^ORA_R33", ["MSA|AA|{}"]),
        ("ORA^R33^ORA_R33", ["MSA|CA|{}"]),
        ("ORU^R01^ORU_R01", ["PID|1", "OBR|1||{}^ICH_NODE|READ^read^99RIS"]),
    ],
    ids=["AA", "CA", "order"],
)
def test_a_message_that_names_an_alert_and_accepts_it_acknowledges_it(
    told: Told, kind: str, segments: list[str]
) -> None:
    assert told.alert.state == "SENT", "the immediate ACK of our message is nobody's acknowledgement"
    text = message(kind, *[one.format(told.alert.identifier) for one in segments])
    assert told.say(text) == ("AA", "RIS4711", "acknowledged")
    assert (told.alert.state, told.alert.acknowledged_by) == ("ACKNOWLEDGED", "RIS HOSPITAL")
    code, _, says = told.say(text)
    assert code == "AA", "a repeat is no error"
    assert "somebody has already" in says


def test_the_person_who_acted_is_named_before_the_system(told: Told) -> None:
    person = "ORC|SC||||||||||||||||||7^Lovelace^Zoë\\T\\Ada"
    told.say(message("ORA^R33", f"MSA|AA|{told.alert.identifier}", person))
    assert told.alert.acknowledged_by == "Zoë&Ada Lovelace (RIS HOSPITAL)"


def test_a_bare_ack_counts_and_is_not_answered_unless_it_asks(told: Told) -> None:
    named = f"MSA|AA|{told.alert.identifier}"
    assert told.say_without_reply(message("ACK", named)) == b""
    wait_for(lambda: told.alert.state == "ACKNOWLEDGED", "acknowledged")
    assert told.say(message("ACK^R01^ACK", named, header="|||AL"))[0] == "AA"


def test_several_messages_through_one_connection(told: Told) -> None:
    with told.connected() as connection:
        for identifier in ("A" * 20, told.alert.identifier):
            connection.sendall(VT + message("ORA^R33", f"MSA|AA|{identifier}").encode() + END)
        assert [str(hl7.parse(block(connection))["MSA.F1"]) for _ in range(2)] == ["AE", "AA"]


# ----------------------------------------------------------------------------------------- what does not


@pytest.mark.parametrize("code", ["AE", "AR", "CE", "CR", "XX"])
def test_an_error_does_not_acknowledge(told: Told, code: str) -> None:
    reply = told.say(message("ORA^R33", f"MSA|{code}|{told.alert.identifier}"))
    assert reply == ("AA", "RIS4711", "understood; the alert is not acknowledged by it")
    assert told.alert.state == "SENT"


@pytest.mark.parametrize(
    "segments", [["MSA|AA|AAAAAAAAAAAAAAAAAAAA"], ["OBR|1||4711"], ["MSA|AA"], [], ["MSA|AA|%"], ["MSA|AA|\\E\\'--"]]
)
def test_what_names_no_alert_of_ours_is_told_so(told: Told, segments: list[str]) -> None:
    code, of, says = told.say(message("ORU^R01", *segments))
    assert (code, of) == ("AE", "RIS4711")
    assert "names no alert" in says
    assert told.alert.state == "SENT"


def test_what_could_not_be_noted_is_to_be_sent_again(told: Told) -> None:
    text = message("ORA^R33", f"MSA|AA|{told.alert.identifier}")
    file = told.site.box.config.state_directory / "ich-node.sqlite"
    with closing(sqlite3.connect(file, isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        code, _, says = told.say(text)
    assert (code, told.alert.state) == ("AE", "SENT")
    assert "send it again" in says
    assert told.say(text)[0] == "AA"


# ------------------------------------------------------------------------------------------ what is cut


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n" + END,
        VT + b"\xff\x00\xfe" * 100 + END,
        VT + b"MSH|^~\\&" + END,
        VT + b"MSH|^~\\&|RIS|" + b"|" * 100_000 + END,
        VT + b"MSH|^~\\&|RIS|" + b"x" * 1_200_000,
        VT + b"MSH|^~\\&|RIS|",
        b"",
    ],
    ids=["no block", "odd bytes", "no message", "a long segment", "over 1 MiB", "no end of block", "idle"],
)
def test_bad_peers_are_cut_and_hold_up_nobody(told: Told, sent: bytes) -> None:
    with told.connected() as bad:
        with suppress(ConnectionError):  # it may be cut while we send
            bad.sendall(sent)
        assert told.say(message("ORA^R33", f"MSA|AA|{told.alert.identifier}"))[0] == "AA"
        assert is_cut(bad)


def test_who_may_not_answer_is_cut(told: Told) -> None:
    stop = threading.Event()
    config = told.site.box.config
    stranger = config.alert_answers.model_copy(update={"addresses": ("10.1.2.0/24",), "port": free_port()})
    elsewhere = config.model_copy(update={"alert_answers": stranger})
    with taking_answers(elsewhere, told.site.box.database, stop):
        there = replace(told, site=replace(told.site, box=replace(told.site.box, config=elsewhere)))
        with there.connected() as connection:
            assert is_cut(connection)


# ---------------------------------------------------------------------------------------------- a whole node


def test_what_is_acknowledged_by_link_or_by_answer_goes_no_further_and_what_is_not_does(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A whole node but for its images: the deliverer and the pages are processes."""
    folder = tmp_path_factory.mktemp("node")
    rule = {"tell": ["ris"], "then": ["mail"], "answer_within_s": 8.0}
    with (
        listener("mllp", folder, "AA") as worklist,
        mail_server() as (port, mailbox),
        alerting_site(
            folder / "state", web=web(), alert_answers=answers(), alert_hl7=[ris(worklist.port)],
            alert_mail=[mail(port)], alert_rule=[rule],
        ) as site,
        NodeProcesses(folder, sections_of(site), ["deliver", "web"]),
        httpx.Client(base_url=f"http://127.0.0.1:{site.box.config.web.port}", timeout=20) as browser,
    ):  # fmt: skip
        by_link, by_answer, by_nobody = (Told(site, site.box.add_study(finding=FINDING)) for _ in range(3))
        wait_for(lambda: len(worklist.heard) == 3, "the RIS was told")
        links = [re.search(r"https://[^|]+", one["text"])[0] for one in worklist.heard]  # type: ignore[index]
        paths = {link.removeprefix(PUBLIC_URL).split("?")[0][-20:]: link.removeprefix(PUBLIC_URL) for link in links}
        for told in (by_link, by_answer, by_nobody):
            assert "<button" in browser.get(paths[told.alert.identifier]).text, "looked at, as a scanner does"
        assert "Thank you" in browser.post(paths[by_link.alert.identifier], data={"name": "Dr. Ada"}).text
        assert by_answer.say(message("ORA^R33", f"MSA|AA|{by_answer.alert.identifier}"))[0] == "AA"

        wait_for(lambda: mailbox.heard, "who did not answer is followed by the next")
        wait_for(lambda: "SENT" in [one.state for one in site.alerts(by_nobody.uid)][1:], "the mail is told")
        for told in (by_link, by_answer):
            assert [one.state for one in site.alerts(told.uid)] == ["ACKNOWLEDGED", "SUPERSEDED"]
        assert len(mailbox.heard) == 1
        assert site.alerts(by_nobody.uid)[1].identifier in mailbox.heard[0]["text"]
