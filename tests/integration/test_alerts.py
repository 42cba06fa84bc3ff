"""From a study's answer to who must know: told once, corrected, escalated, held; whatever the channel does."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import hl7
import pytest

from ich_node.cli import main
from ich_node.job_queue.alert_answers import acknowledge
from ich_node.records import Triage
from tests.alert_peers import listener, mail_server
from tests.alerting import (
    FINDING,
    QUICK,
    SECRET,
    alerting_site,
    mail,
    ris,
    secret_file,
    site_with_every_channel,
    webhook,
)
from tests.running import NodeProcesses, as_toml, free_port, wait_for

A_DAY_S = timedelta(days=1).total_seconds()

# ------------------------------------------------------------------------------- what is told, and once


def test_a_finding_is_told_through_every_channel_once(tmp_path: Path) -> None:
    with site_with_every_channel(tmp_path) as (site, worklist, service, mailbox):
        uid = site.box.add_study(finding=FINDING)
        site.tell()
        site.tell()

        message = hl7.parse(worklist.heard[0]["text"])
        assert (len(worklist.heard), len(service.heard), len(mailbox.heard)) == (1, 1, 1)
        observed = {str(one(3)[0][0]): str(one(5)) for one in message.segments("OBX")}
        assert observed["ICH.ANY.PROBABILITY"] == "0.970"
        assert observed["113014"] == uid
        assert str(message.segment("PID")(5)) != "", "patient and order come from the study's report"
        assert json.loads(service.heard[0]["body"])["findings"]["subdural"]["presence"] == "present"
        assert {one.state for one in site.alerts()} == {"SENT"}
        assert len({one.identifier for one in site.alerts()}) == 3


def test_the_same_answer_again_is_told_to_nobody_and_another_one_is_a_correction(tmp_path: Path) -> None:
    with (
        listener("mllp", tmp_path, "AA") as worklist,
        alerting_site(tmp_path / "state", alert_hl7=[ris(worklist.port)]) as site,
    ):
        uid = site.box.add_study(finding=FINDING)
        site.tell()
        site.box.add_study(uid, revision=2, finding=FINDING)
        site.tell()
        assert [(one.kind, one.state) for one in site.alerts()] == [("final", "SENT")]

        site.box.add_study(uid, revision=3, triage=Triage.NEGATIVE)
        site.tell()

        corrected = hl7.parse(worklist.heard[-1]["text"])
        assert len(worklist.heard) == 2
        assert str(corrected.segment("OBR")(25)) == "C"
        assert "TQ1" not in worklist.heard[-1]["text"], "nothing lowers or sets a priority"
        assert site.states()[-1] == ("ris", "correction", "negative", "SENT")
        site.box.add_study(uid, revision=4, finding=FINDING)
        site.tell()
        assert site.states()[-1] == ("ris", "correction", "positive", "SENT")


def test_a_correction_names_the_first_alert(tmp_path: Path) -> None:
    with (
        listener("web", tmp_path, "200") as service,
        alerting_site(
            tmp_path / "state",
            alert_webhook=[webhook(tmp_path, service.port)],
            alert_rule=[{"tell": ["service"]}],
        ) as site,
    ):
        uid = site.box.add_study(finding=FINDING)
        site.tell()
        site.box.add_study(uid, revision=2, triage=Triage.NEGATIVE)
        site.tell()
        first, second = (json.loads(one["body"]) for one in service.heard)
        assert first["first_identifier"] == second["first_identifier"] == first["identifier"] != second["identifier"]


def test_a_result_that_does_not_hold_is_withdrawn(tmp_path: Path) -> None:
    with (
        listener("mllp", tmp_path, "AA") as worklist,
        alerting_site(tmp_path / "state", alert_hl7=[ris(worklist.port)]) as site,
    ):
        uid = site.box.add_study(finding=FINDING)
        site.tell()
        site.box.add_study(uid, revision=2, triage=None)
        site.tell()
        assert site.states()[-1] == ("ris", "withdrawn", "not_analysed", "SENT")
        message = hl7.parse(worklist.heard[-1]["text"])
        assert {str(one(11)) for one in message.segments("OBX")} == {"W"}
        assert "Read the study" in worklist.heard[-1]["text"]


def test_what_nobody_was_told_needs_no_correction(tmp_path: Path) -> None:
    with alerting_site(tmp_path / "state") as site:
        site.box.add_study(triage=Triage.NEGATIVE)
        site.tell()
        assert site.alerts() == []


def test_what_was_not_received_yet_gives_way_to_what_is_new(tmp_path: Path) -> None:
    with alerting_site(tmp_path / "state") as site:
        uid = site.box.add_study(finding=FINDING)
        site.tell(lambda: site.alerts() and site.alerts()[0].attempts > 1)
        site.box.add_study(uid, revision=2, triage=Triage.NEGATIVE)
        site.tell(lambda: len(site.alerts()) == 2 and site.alerts()[1].attempts > 0)
        first, second = site.alerts()
        assert (first.state, second.kind) == ("SUPERSEDED", "correction"), "it may have been heard although no ACK came"


@pytest.mark.slow
def test_of_two_hundred_old_studies_and_a_new_one_only_the_new_one_alerts(tmp_path: Path) -> None:
    with (
        listener("mllp", tmp_path, "AA") as worklist,
        alerting_site(tmp_path / "state", alert_hl7=[ris(worklist.port)]) as site,
    ):
        for _ in range(200):
            site.box.add_study(acquired_at=time.time() - 2 * A_DAY_S)
        new = site.box.add_study(acquired_at=time.time() - 60)
        site.tell()
        assert len(worklist.heard) == 1
        assert new in worklist.heard[0]["text"]
        assert len(site.box.status().studies) == 201, "all are kept"


def test_what_was_reported_before_there_were_rules_alerts_nobody(tmp_path: Path) -> None:
    with alerting_site(tmp_path / "state", alert_rule=[]) as site:
        site.box.add_study()
        site.tell()
    with (
        listener("mllp", tmp_path, "AA") as worklist,
        alerting_site(tmp_path / "state", alert_hl7=[ris(worklist.port)]) as site,
    ):
        site.tell()
        assert worklist.heard == []


@pytest.mark.parametrize("mode", ["shadow", "objects"])
@pytest.mark.parametrize("where", ["node", "peer"])
def test_where_not_all_is_live_nobody_hears_anything(tmp_path: Path, where: str, mode: str) -> None:
    peer = {"ae_title": "SCANNER1", "address": "127.0.0.1", "mode": mode}
    silent: dict[str, Any] = {"node": {"mode": mode}} if where == "node" else {"peer": [peer]}
    with (
        listener("mllp", tmp_path, "AA") as worklist,
        alerting_site(tmp_path / "state", alert_hl7=[ris(worklist.port)], **silent) as site,
    ):
        site.box.add_study(finding=FINDING)
        site.tell()
        assert [one.state for one in site.alerts()] == ["HELD"]
        assert worklist.heard == []


# ---------------------------------------------------------------------- channels that do not do as asked


@pytest.mark.parametrize("behaviour", ["AE", "drop", "other"])
def test_what_may_pass_is_tried_again_with_the_same_identifier(tmp_path: Path, behaviour: str) -> None:
    with (
        listener("mllp", tmp_path, behaviour, "AE", "AA") as worklist,
        alerting_site(tmp_path / "state", alert_hl7=[ris(worklist.port)]) as site,
    ):
        site.box.add_study(finding=FINDING)
        site.tell()
        (alert,) = site.alerts()
        assert (alert.state, alert.attempts) == ("SENT", 3)
        assert {one["identifier"] for one in worklist.heard} == {alert.identifier}


def test_what_is_refused_for_good_is_dead_after_some_tries(tmp_path: Path) -> None:
    with (
        listener("mllp", tmp_path, "AR") as worklist,
        alerting_site(tmp_path / "state", alert_hl7=[ris(worklist.port)], alert=QUICK | {"refused_tries": 3}) as site,
    ):
        site.box.add_study(finding=FINDING)
        site.tell()
        (alert,) = site.alerts()
        assert (alert.state, alert.attempts, alert.error) == ("DEAD", 3, "NAK AR: as asked")
        assert len(worklist.heard) == 3


def test_a_poison_alert_stops_no_other(tmp_path: Path) -> None:
    template = tmp_path / "poison.j2"
    template.write_text("MSH|{{ 1 // (findings | length) }}|{{ identifier }}\n")  # well with findings, not without
    hl7_channel = ris(free_port()) | {"template": str(template)}
    with (
        mail_server() as (port, mailbox),
        alerting_site(
            tmp_path / "state",
            alert_hl7=[hl7_channel],
            alert_mail=[mail(port)],
            alert_rule=[{"tell": ["ris", "mail"]}],
            alert=QUICK | {"refused_tries": 2},
        ) as site,
    ):
        site.box.add_study()  # its finding is not known
        site.tell(lambda: {one.state for one in site.alerts()} == {"DEAD", "SENT"})
        assert {one.channel: one.error for one in site.alerts()} == {
            "ris": f"template {template}: ZeroDivisionError",
            "mail": "",
        }
        assert len(mailbox.heard) == 1


def test_a_channel_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    with (
        listener("mllp", tmp_path, "hang") as worklist,
        mail_server() as (port, _),
        alerting_site(
            tmp_path / "state",
            alert_hl7=[ris(worklist.port)],
            alert_mail=[mail(port)],
            alert_rule=[{"tell": ["ris", "mail"]}],
            alert=QUICK | {"response_timeout_s": 3.0},
        ) as site,
    ):
        site.box.add_study(finding=FINDING)
        seen: list[dict[str, str]] = []

        def mail_has_come() -> bool:
            seen.append({one.channel: one.state for one in site.alerts()})
            return bool(worklist.heard) and seen[-1].get("mail") == "SENT"

        site.tell(mail_has_come)
        assert seen[-1] == {"ris": "SENDING", "mail": "SENT"}


def test_a_channel_takes_no_more_than_its_share_of_a_minute(tmp_path: Path) -> None:
    with (
        listener("mllp", tmp_path, "AA") as worklist,
        alerting_site(tmp_path / "state", alert_hl7=[ris(worklist.port) | {"most_per_minute": 2}]) as site,
    ):
        for _ in range(4):
            site.box.add_study(finding=FINDING)
        site.tell(lambda: len(worklist.heard) >= 2)
        time.sleep(0.5)
        assert len(worklist.heard) == 2
        assert sorted(one.state for one in site.alerts()) == ["PENDING", "PENDING", "SENT", "SENT"]


# ---------------------------------------------------------------------------- until somebody answers


def test_who_does_not_answer_is_followed_by_the_next_until_somebody_does(tmp_path: Path) -> None:
    rule = {"tell": ["ris"], "then": ["mail", "ris"], "answer_within_s": 1.0}
    with (
        listener("mllp", tmp_path, "AA") as worklist,
        mail_server() as (port, mailbox),
        alerting_site(
            tmp_path / "state", alert_hl7=[ris(worklist.port)], alert_mail=[mail(port)], alert_rule=[rule]
        ) as site,
    ):
        site.box.add_study(finding=FINDING)
        site.tell(lambda: mailbox.heard and any(one.state == "SENT" for one in site.alerts()[1:]))
        assert len(worklist.heard) == 1
        first = site.alerts()[0]

        assert acknowledge(site.box.database, first.identifier, "Dr. Ada") == 3
        time.sleep(1.2)
        site.tell()

        assert len(worklist.heard) == 1, "the third step is not taken"
        assert [one.state for one in site.alerts()] == ["ACKNOWLEDGED", "ACKNOWLEDGED", "SUPERSEDED"]
        assert site.alerts()[0].acknowledged_by == "Dr. Ada"


def test_what_nobody_answers_shows_as_unanswered(tmp_path: Path) -> None:
    rule = {"tell": ["ris"], "then": ["ris"], "answer_within_s": 0.3}
    with (
        listener("mllp", tmp_path, "AA") as worklist,
        alerting_site(tmp_path / "state", alert_hl7=[ris(worklist.port)], alert_rule=[rule]) as site,
    ):
        uid = site.box.add_study(finding=FINDING)
        site.tell(lambda: {one.state for one in site.alerts()} == {"UNANSWERED"})
        assert len(worklist.heard) == 2
        assert acknowledge(site.box.database, uid, "Dr. Ada") == 2, "late is better than never"
        assert acknowledge(site.box.database, uid, "Dr. Ada") == 0


# ------------------------------------------------------------------------------- outages, kills, commands


CHANNELS = {"ris": ("mllp", "AA"), "service": ("web", "200"), "mail": ("smtp", "250")}
"""Kind of listener, and how it takes an alert."""


def one_channel(folder: Path, channel: str, port: int, **alert: float) -> dict[str, Any]:
    """Sections with one channel, which is told of positives."""
    rule: dict[str, Any] = {"alert": QUICK | alert, "alert_rule": [{"tell": [channel]}], "alert_hl7": []}
    if channel == "ris":
        return rule | {"alert_hl7": [ris(port)]}
    if channel == "service":
        return rule | {"alert_webhook": [webhook(folder, port)]}
    return rule | {"alert_mail": [mail(port)]}


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_channel_that_was_down_hears_each_alert_exactly_once(tmp_path: Path, channel: str) -> None:
    port = free_port()
    kind, taken = CHANNELS[channel]
    with alerting_site(tmp_path / "state", **one_channel(tmp_path, channel, port)) as site:
        for _ in range(5):
            site.box.add_study(finding=FINDING)
        site.tell(lambda: len(site.alerts()) == 5 and all(one.attempts for one in site.alerts()))
        with listener(kind, tmp_path, taken, port=port) as peer:
            site.tell()
            assert sorted(_identifier(one) for one in peer.heard) == sorted(one.identifier for one in site.alerts())


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_kill_while_an_alert_is_sent_repeats_it_at_most_once(tmp_path: Path, channel: str) -> None:
    """The listener has heard it and hangs; the deliverer is killed, started again, and the listener answers."""
    port = free_port()
    kind, taken = CHANNELS[channel]
    with alerting_site(tmp_path / "state", **one_channel(tmp_path, channel, port, response_timeout_s=30.0)) as site:
        site.box.add_study(finding=FINDING)
        config = site.box.config.model_dump(mode="json", exclude_none=True)
        values = {name: section for name, section in config.items() if section}
        with listener(kind, tmp_path, "hang", port=port) as peer, NodeProcesses(tmp_path, values, ["deliver"]) as node:
            wait_for(lambda: peer.heard, "the listener has heard it")
            node.kill("deliver")
            before = len(peer.heard)
        with listener(kind, tmp_path, taken, port=port) as peer, NodeProcesses(tmp_path, values, ["deliver"]):
            wait_for(lambda: site.alerts()[0].state == "SENT", "told")
            heard = peer.heard
    assert (before, len(heard)) == (1, 2), "never none, and once more at most"
    assert len({_identifier(one) for one in heard}) == 1


def _identifier(heard: dict[str, Any]) -> str:
    headers = {name.lower(): value for name, value in heard.get("headers", {}).items()}
    return heard.get("identifier") or headers["idempotency-key"]


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "node.toml"
    with (
        listener("mllp", tmp_path, "AA") as worklist,
        listener("web", tmp_path, "401") as service,
        alerting_site(
            tmp_path / "state", alert_hl7=[ris(worklist.port)], alert_webhook=[webhook(tmp_path, service.port)]
        ) as site,
    ):
        config = site.box.config.model_dump(mode="json", exclude_none=True)
        file.write_text(as_toml({name: section for name, section in config.items() if section}))

        assert main(["check-config", "--config", str(file)]) == 0
        assert "2 alert channels" in capsys.readouterr().out

        assert main(["alert", "test", "--config", str(file)]) == 1
        assert capsys.readouterr().out == "ok   ris: ACK AA: as asked\nBAD  service: HTTP 401\n"
        assert "TEST of the alert channel" in worklist.heard[0]["text"]
        assert site.alerts() == [], "a test is no alert of a study"

        site.box.add_study(finding=FINDING)
        site.tell()
        identifier = site.alerts()[0].identifier
        assert main(["status", site.box.status().studies[0].study_instance_uid, "--config", str(file)]) == 0
        shown = capsys.readouterr().out
        assert f"alert {identifier}, final, revision 1: ris SENT" in shown
        assert main(["ack", identifier.lower(), "--by", "Dr. Ada", "--config", str(file)]) == 0
        assert capsys.readouterr().out == "1 alert acknowledged\n"
        assert main(["ack", identifier, "--config", str(file)]) == 1
        assert "nothing to acknowledge" in capsys.readouterr().out


def test_check_config_names_every_bad_secret_and_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "short").write_text("short")
    (tmp_path / "short").chmod(0o600)
    (tmp_path / "open").write_text(SECRET)
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "bad.j2").write_text("MSH|{{ patient_nam }}")
    (tmp_path / "no.pem").write_text("nothing")
    hook = {"url": "http://127.0.0.1/"}
    values = {
        "receiver": {"allow_any": True},
        "alert_hl7": [ris(2575) | {"template": str(tmp_path / "bad.j2")}],
        "alert_webhook": [
            {"name": "a", **hook, "secret_file": str(tmp_path / "short")},
            {"name": "b", **hook, "secret_file": str(tmp_path / "open")},
            {"name": "c", **hook, "secret_file": str(tmp_path / "none")},
            {"name": "d", **hook, "secret_file": secret_file(tmp_path), "ca_file": str(tmp_path / "no.pem")},
        ],
    }
    file = tmp_path / "node.toml"
    file.write_text(as_toml(values))
    assert main(["check-config", "--config", str(file)]) == 78
    told = capsys.readouterr().err
    assert "5 faults" in told
    for fault in ("ris: template", "patient_nam", "a: secret_file", "shorter than 16", "others can read or change it",
                  "c: secret_file", "cannot be read", "d: certificates"):  # fmt: skip
        assert fault in told, fault
