"""The configuration: every fault at once, and an example file that names every key with its true default."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from ich_node.config import (
    AlertRuleSettings,
    Config,
    DestinationSettings,
    HL7ChannelSettings,
    MailChannelSettings,
    PeerSettings,
    PrioritySettings,
    QuerySettings,
    WebhookChannelSettings,
    find_config,
    load_config,
    parse_config,
)
from ich_node.errors import ConfigError

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config/ich-node.toml"
SECTIONS = [name for name, field in Config.model_fields.items() if isinstance(field.default, BaseModel)]


TLS_FILES = {"certificate": "node.pem", "key": "node.key", "ca_file": "hospital-ca.pem"}


def faults_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(tomllib.loads(text))
    return caught.value.faults


def the_fault(text: str) -> str:
    faults = faults_of(f"receiver.allow_any = true\n{text}")
    assert len(faults) == 1, faults
    return faults[0]


def check_config(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ich_node", "check-config", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | environment)


# ------------------------------------------------------------------------------------ the example file


def test_the_example_loads_and_has_every_default_spelled_out() -> None:
    config = load_config(EXAMPLE)
    for section in SECTIONS:
        assert getattr(config, section) == type(getattr(config, section))(), section


@pytest.mark.parametrize("section", SECTIONS)
def test_the_example_names_every_key_of_the_section(section: str) -> None:
    written = tomllib.loads(EXAMPLE.read_text())[section]
    assert set(written) == set(type(Config.model_fields[section].default).model_fields)


def uncommented() -> str:
    """The example with every key and table switched on."""
    return re.sub(r"^# (?=\w+ = |\[)", "", EXAMPLE.read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("section", "model"),
    [
        ("peer", PeerSettings),
        ("destination", DestinationSettings),
        ("priority", PrioritySettings),
        ("query", QuerySettings),
        ("alert_rule", AlertRuleSettings),
        ("alert_hl7", HL7ChannelSettings),
        ("alert_webhook", WebhookChannelSettings),
        ("alert_mail", MailChannelSettings),
    ],
)
def test_the_example_names_every_key_of_what_it_leaves_to_the_site(section: str, model: type[BaseModel]) -> None:
    written = tomllib.loads(uncommented())[section]
    assert set(written[0] if isinstance(written, list) else written) == set(model.model_fields)


def test_the_example_loads_with_everything_in_it_switched_on() -> None:
    values = tomllib.loads(uncommented())
    values["tls"] |= TLS_FILES  # which stay empty, or the example would need files that nobody has
    config = parse_config(values)
    assert config.query is not None
    assert config.query.port == 104
    assert config.priority[0].level == 10
    assert config.peer[0].return_port == 104


def test_without_a_change_the_example_asks_nobody_and_raises_nobody() -> None:
    config = load_config(EXAMPLE)
    assert (config.query, config.priority) == (None, ())


def test_every_key_of_the_example_says_what_it_means() -> None:
    keys = [line for line in EXAMPLE.read_text().splitlines() if re.match(r"(# )?\w+ = ", line)]
    assert keys
    assert not [line for line in keys if not re.search(r"# \S.*$", line.removeprefix("# "))]


# ---------------------------------------------------------------------------------------------- faults


def test_all_faults_are_reported_at_once_with_key_value_and_what_is_allowed() -> None:
    faults = faults_of("""
        surprise = 1
        [node]
        ae_title = "LONGER THAN SIXTEEN"
        port = 70000
        [receiver]
        acept = "ct"
        [series]
        quiet_s = -1
        [model]
        engine = "tpu"
        [[destination]]
        name = "pacs"
        ae_title = "PACS"
        host = "a host"
        port = 104
        [[peer]]
        ae_title = "CT1"
        address = "10.0.0.300"
        destinations = ["pcas"]
    """)
    expected = [
        (
            "surprise: unknown key",
            "allowed: alert, alert_answers, alert_hl7, alert_mail, alert_rule, alert_webhook, audit, database",
        ),
        ("node.ae_title = 'LONGER THAN SIXTEEN'", "1 to 16 ASCII characters"),
        ("node.port = 70000", "less than or equal to 65535"),
        ("receiver.acept: unknown key", "allowed: accept, allow_any"),
        ("series.quiet_s = -1", "greater than 0"),
        ("model.engine = 'tpu'", "'auto', 'cuda', 'openvino', 'openvino-int8' or 'torch'"),
        ("destination.0.host = 'a host'", "a host name or an IP address"),
        ("peer.0.address = '10.0.0.300'", "such as 10.1.2.0/24"),
        ("peer.0.destinations = ['pcas']", "known: pacs"),
    ]
    for key_and_value, allowed in expected:
        assert [one for one in faults if one.startswith(key_and_value) and allowed in one], (key_and_value, faults)
    assert len(faults) == len(expected), faults


@pytest.mark.parametrize("title", ["", "   ", "A\\B", "SEVENTEEN LETTERS", "TAB\tTITLE", "ÄE"])
def test_an_ae_title_that_ps3_5_forbids_is_a_fault(title: str) -> None:
    assert "must be 1 to 16 ASCII characters" in the_fault(f"node.ae_title = '''{title}'''")


@pytest.mark.parametrize("title", ["A", "SIXTEEN_LETTERS!", "with space", "/:;-_ok"])
def test_an_ae_title_that_ps3_5_allows_is_taken(title: str) -> None:
    assert parse_config({"node": {"ae_title": title}, "receiver": {"allow_any": True}}).node.ae_title == title


@pytest.mark.parametrize("port", [0, -1, 65536, '"104"', 1.5, "true"])
def test_a_port_is_a_whole_number_from_1_to_65535(port: object) -> None:
    assert the_fault(f"node.port = {port}").startswith("node.port = ")


@pytest.mark.parametrize("seconds", [0, -3, "nan", "inf", '"3"', "true"])
@pytest.mark.parametrize("key", ["receiver.idle_timeout_s", "series.max_wait_s", "delivery.first_retry_s"])
def test_seconds_are_positive_and_finite(key: str, seconds: object) -> None:
    faults = faults_of(f"receiver.allow_any = true\n{key} = {seconds}")
    assert faults[0].startswith(f"{key} = ")


def test_whole_seconds_are_taken_for_seconds() -> None:
    assert parse_config({"receiver": {"allow_any": True}, "series": {"quiet_s": 5}}).series.quiet_s == 5


@pytest.mark.parametrize("value", ['"true"', '"yes"', "1"])
def test_the_door_is_opened_by_a_written_out_true_only(value: str) -> None:
    (fault,) = faults_of(f"receiver.allow_any = {value}")
    assert fault.startswith("receiver.allow_any = ")


def test_a_node_that_nobody_may_send_to_is_a_fault() -> None:
    (fault,) = faults_of("receiver.allow_any = false")
    assert "add a [[peer]]" in fault
    assert "receiver.allow_any = true" in fault


@pytest.mark.parametrize("host", ["10.0.0.0/24", "two words", "", "-dash", "a/b", "name:104"])
def test_a_host_is_one_machine(host: str) -> None:
    fault = the_fault(f"[[destination]]\nname = 'a'\nae_title = 'A'\nhost = '{host}'\nport = 104")
    assert "must be a host name or an IP address" in fault


@pytest.mark.parametrize("host", ["pacs", "pacs.hospital.example", "10.1.2.3", "::1", "fe80::1"])
def test_host_names_and_both_kinds_of_address_are_hosts(host: str) -> None:
    one = {"name": "a", "ae_title": "A", "host": host, "port": 104}
    assert parse_config({"receiver": {"allow_any": True}, "destination": [one]}).destination[0].host == host


@pytest.mark.parametrize(
    "table",
    [
        "[[peer]]\nae_title = 'ICH_SELF_TEST'\naddress = '10.0.0.1'",
        "[[destination]]\nname = 'a'\nae_title = 'ICH_SELF_TEST'\nhost = 'a'\nport = 104",
        "[query]\nae_title = ' ICH_SELF_TEST '\nhost = 'a'\nport = 104",
        "[node]\nae_title = 'ICH_SELF_TEST'",
    ],
)
def test_nobody_has_the_ae_title_of_the_self_test(table: str) -> None:
    assert "is the node's own, for its self-test" in the_fault(table)


def test_destinations_need_different_names() -> None:
    one = "[[destination]]\nname = 'pacs'\nae_title = 'A'\nhost = 'a'\nport = 104\n"
    assert "given more than once: pacs" in the_fault(one + one)


@pytest.mark.parametrize("destinations", ["5", '"pacs"', "[5]", "{a = 1}", "true"])
def test_destinations_of_a_peer_that_are_no_list_of_names_are_a_fault(destinations: str) -> None:
    faults = faults_of(f"[[peer]]\nae_title = 'A'\naddress = '10.0.0.1'\ndestinations = {destinations}")
    assert faults[0].startswith("peer.0.destinations")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("node = 5", "node = 5: must be a table: [node]"),
        ("destination = {name = 'a'}", "destination: must be tables: [[destination]]"),
        ("destination = 3", "destination = 3: must be tables: [[destination]]"),
        ("destination = [1]", "destination.0 = 1: must be a table: [[destination]]"),
    ],
)
def test_a_section_of_the_wrong_form_says_how_it_is_written(text: str, says: str) -> None:
    assert the_fault(text) == says


def test_missing_keys_are_named() -> None:
    faults = faults_of("receiver.allow_any = true\n[[destination]]\nname = 'a'")
    assert faults == [f"destination.0.{key}: missing" for key in ("ae_title", "host", "port")]


def test_a_longest_wait_shorter_than_the_quiet_time_is_a_fault() -> None:
    assert the_fault("series.quiet_s = 30") == "series.max_wait_s = 20: must not be shorter than quiet_s"


@pytest.mark.parametrize("conditions", ["", "requested = []"])
def test_a_priority_that_would_fit_everything_is_a_fault(conditions: str) -> None:
    assert the_fault(f"[[priority]]\nlevel = 5\n{conditions}") == (
        "priority.0: would fit everything; give ae_title, station_name or requested"
    )


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("level = 101\nae_title = 'A'", "priority.0.level = 101: must be less than or equal to 100"),
        ("level = 1\nrequested = ['URGENT']", "priority.0.requested.0 = 'URGENT': must be 'STAT', 'HIGH'"),
        ("level = 1\nae_title = 'A'\nstation = 'CT'", "priority.0.station: unknown key; allowed: ae_title, level"),
        ("ae_title = 'A'", "priority.0.level: missing"),
    ],
)
def test_a_fault_of_a_priority_says_what_is_allowed(condition: str, says: str) -> None:
    assert the_fault(f"[[priority]]\n{condition}").startswith(says)


def test_a_query_needs_everything_that_an_association_needs() -> None:
    faults = faults_of("receiver.allow_any = true\n[query]\nae_title = 'PACS'")
    assert faults == ["query.host: missing", "query.port: missing"]
    assert faults_of("receiver.allow_any = true\n[history]\nquery = true") == [
        "history.query = true: needs [query], the PACS that is asked"
    ]
    assert the_fault("query = 'PACS'") == "query = 'PACS': must be a table: [query]"


def test_values_that_mean_no_contrast_are_the_sites_own() -> None:
    config = parse_config({"receiver": {"allow_any": True}, "eligibility": {"no_contrast_values": ["KEINES"]}})
    assert config.eligibility.no_contrast_values == ("KEINES",)


def test_a_password_in_a_database_url_is_not_shown() -> None:
    fault = the_fault("database.url = 'postgresql://node:s3cret@host/ich'")
    assert "s3cret" not in fault
    assert fault.startswith("database.url = 'postgresql://***@host/ich': must be empty")


@pytest.mark.parametrize("value", ['""', '"a\\u0000b"'])
def test_a_folder_that_can_be_none_is_a_fault(value: str) -> None:
    assert "must be the path of a folder" in the_fault(f"node.state_directory = {value}")


# ------------------------------------------------------------------------------------------- who may send


@pytest.mark.parametrize(
    ("address", "remote", "fits"),
    [
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("10.1.2.0/24", "10.1.2.200", True),
        ("10.1.2.0/24", "10.1.3.1", False),
        ("10.1.2.3", "::ffff:10.1.2.3", True),
        ("fe80::/16", "fe80::1%eth0", True),
    ],
)
def test_a_peer_is_known_by_ae_title_and_address(address: str, remote: str, fits: bool) -> None:
    peer = PeerSettings(ae_title="CT1", address=address)
    assert peer.matches("CT1", remote) is fits
    assert not peer.matches("CT2", remote)


# ---------------------------------------------------------------------------------- finding and reading


def test_the_configuration_is_looked_for_where_it_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICH_NODE_CONFIG", "/somewhere/node.toml")
    assert find_config(None) == Path("/somewhere/node.toml")
    assert find_config(Path("given.toml")) == Path("given.toml")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file; copy config/ich-node.toml there, or name one with --config"),
        (b"[node\n", "not valid TOML"),
        (b"[node]\nport = 1\nport = 2\n", "not valid TOML"),
        (b'[node]\nae_title = "\xff"\n', "cannot be read: 'utf-8' codec"),
        ("folder", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_says_so(tmp_path: Path, content: Any, says: str) -> None:
    path = tmp_path / "node.toml"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: 1 fault\n  - {says}")


def test_check_config_names_every_fault_and_ends_with_78(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text('[node]\nport = 0\nae_title = ""\n[receiver]\nallow_any = true\nsurprise = 1\n')
    ended = check_config("--config", str(path))
    assert ended.returncode == 78
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"ich-node: {path}: 3 faults\n")
    for key in ("node.port = 0", "node.ae_title = ''", "receiver.surprise"):
        assert f"\n  - {key}" in ended.stderr


def test_check_config_without_a_file_ends_with_78(tmp_path: Path) -> None:
    ended = check_config(ICH_NODE_CONFIG=str(tmp_path / "absent.toml"))
    assert ended.returncode == 78
    assert "absent.toml: 1 fault\n  - no such file" in ended.stderr


def test_check_config_does_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(f'[node]\nstate_directory = "{tmp_path}/state"\n[receiver]\nallow_any = true\n')
    ended = check_config("--config", str(path))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "no faults; ICH_NODE on port 11112" in ended.stdout
    assert [one.name for one in tmp_path.iterdir()] == ["node.toml"]


@pytest.mark.parametrize(
    "role", ["receive", *(pytest.param(role, marks=pytest.mark.slow) for role in ("deliver", "serve"))]
)
def test_a_role_with_a_broken_configuration_ends_with_78(tmp_path: Path, role: str) -> None:
    path = tmp_path / "node.toml"
    path.write_text("[node]\nport = 0\n")
    command = [sys.executable, "-m", "ich_node", role, "--config", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert ended.returncode == 78
    assert "node.port = 0" in ended.stderr


ALERTS = """
    [[alert_hl7]]
    name = "ris"
    host = "ris"
    port = 2575
    [[alert_rule]]
    tell = ["ris"]
"""


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('then = ["ris"]', "then needs answer_within_s"),
        ('hours = "25:00-07:00"', "two times of the day"),
        ('hours = "07:00-07:00"', "two times of the day"),
        ('classes = ["any", "cerebellar"]', "'epidural'"),
        ("minimum_probability = 2.0", "less than or equal to 1"),
        ('answer_within_s = 60.0\nthen = ["chief"]', "alert_rule.0.then = ['chief']: unknown channel; known: ris"),
        (
            '[[alert_mail]]\nname = "ris"\nhost = "mail"\nsender = "a@b"\nrecipients = ["c@d"]',
            "names must differ; given more than once: ris",
        ),
        (
            '[[alert_mail]]\nname = "mail"\nhost = "mail"\nsender = "a@b"\nrecipients = ["c@d", "c"]',
            "must be an address such as",
        ),
        (
            '[[alert_mail]]\nname = "mail"\nhost = "mail"\nstarttls = false\nuser = "node"\npassword_file = "/p"\n'
            'sender = "a@b"\nrecipients = ["c@d"]',
            "a password is never sent in clear",
        ),
        (
            '[[alert_webhook]]\nname = "web"\nurl = "https://node:secret@web/"\nsecret_file = "/s"',
            "without a password in it",
        ),
        (
            '[[alert_webhook]]\nname = "web"\nurl = "https://web/"\nsecret_file = "/s"\nclient_key = "/k"',
            "client_certificate and client_key go together",
        ),
    ],
)
def test_faults_of_alerts(more: str, says: str) -> None:
    assert says in the_fault(ALERTS + more)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ('[web]\npublic_url = "ich.hospital.example"', "must be http:// or https://"),
        ('[web]\npublic_url = "https://node:secret@ich.hospital.example"', "must be http:// or https://"),
        ('[web]\npublic_url = "https://ich.hospital.example/?a=b"', "must be http:// or https://"),
        (f'[web]\npublic_url = "https://{"x" * 100}"', "at most 100 characters"),
        ('[web]\ncertificate = "/node.pem"', "certificate and key go together"),
        ("[alert_answers]\nenabled = true", "addresses: nobody may answer"),
        ('[alert_answers]\naddresses = ["engine"]', "must be an IP address"),
    ],
)
def test_faults_of_what_answers_alerts(section: str, says: str) -> None:
    assert says in the_fault(section)


def test_a_slash_at_the_end_of_the_public_address_is_none_of_it() -> None:
    values = {"receiver": {"allow_any": True}, "web": {"public_url": "https://ich.hospital.example/node/"}}
    assert parse_config(values).web.public_url == "https://ich.hospital.example/node"


# ------------------------------------------------------------------------------------------------- TLS


def tls_faults(tls: dict[str, Any], **sections: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config({"receiver": {"allow_any": True}, "tls": tls} | sections)
    return caught.value.faults


@pytest.mark.parametrize("missing", ["certificate", "key", "ca_file"])
def test_certificate_key_and_authorities_go_together(missing: str) -> None:
    (fault,) = tls_faults({key: value for key, value in TLS_FILES.items() if key != missing})
    assert "certificate, key and ca_file go together" in fault


def test_a_node_that_nobody_could_reach_is_a_fault() -> None:
    (fault,) = tls_faults(TLS_FILES | {"port": 0})
    assert "plain_port_open = true" in fault
    (fault,) = tls_faults(TLS_FILES | {"port": 11112, "plain_port_open": True})
    assert "must differ from node.port" in fault


def test_what_needs_tls_says_so_where_there_is_none() -> None:
    place = {"ae_title": "A", "host": "127.0.0.1", "port": 104, "tls": True}
    peers = [
        {"ae_title": "A", "address": "127.0.0.1", "certificate": "ct1.hospital.example"},
        {"ae_title": "B", "address": "127.0.0.1", "return_tls": True},
    ]
    faults = tls_faults({}, destination=[place | {"name": "a"}], query=place, peer=peers)
    for key in ("destination.0.tls", "query.tls", "peer.0.certificate", "peer.1.return_tls"):
        assert [one for one in faults if one.startswith(key) and "needs [tls]" in one], (key, faults)
    assert "peer.1.return_tls = true: needs return_port" in faults


@pytest.mark.parametrize("value", ["10.1.2.3", "two words", "AB:CD", "ab" * 31 + ":", ""])
def test_what_a_peer_is_bound_to_is_a_fingerprint_or_a_name(value: str) -> None:
    bound = [{"ae_title": "A", "address": "127.0.0.1", "certificate": value}]
    assert "SHA-256 fingerprint" in tls_faults(TLS_FILES, peer=bound)[0]


def test_credentials_of_systemd_are_found_in_the_folder_of_the_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "node.key").touch()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    tls = TLS_FILES | {"key": "credential:node.key"}
    config = parse_config({"receiver": {"allow_any": True}, "tls": tls})
    assert config.tls.files is not None
    assert config.tls.files.key == tmp_path / "node.key"
    assert not config.tls.is_elsewhere
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert config.tls.is_elsewhere


def test_a_configuration_without_tls_is_as_before() -> None:
    config = parse_config({"receiver": {"allow_any": True}})
    assert config.tls.files is None
    assert config.tls.plain_is_open
