"""The commands as a person or a script runs them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from sqlalchemy import insert, select, update

from ich_node.cli import main
from ich_node.config import parse_config
from ich_node.database import SelfTestRow, SeriesRow
from ich_node.decode import DecoderPool
from ich_node.errors import ModelError
from ich_node.pacs import SmallPacs, send_study
from ich_node.phantom import PhantomSettings, write_series
from ich_node.pipeline import Model
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.worker import run_worker
from tests.integration.test_worker import Site, open_site
from tests.outbox import Outbox, outbox
from tests.running import as_toml, free_port, leaks_a_socket, parts_of_a_node, settings, wait_for
from tests.unit.queueing import rows

ROOT = Path(__file__).parents[2]


@dataclass
class Command:
    """Run a command of the node in this process, with a configuration of its own."""

    config: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Give exit status, standard output, standard error."""
        self.capture.readouterr()
        status = main([*words, "--config", str(self.config)])
        return status, *self.capture.readouterr()


def run(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command as a process."""
    command = [sys.executable, "-m", "ich_node", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120, **options)


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str], logging_put_back: None) -> Command:
    return Command(tmp_path / "ich-node.toml", capsys)


@pytest.fixture
def box(tmp_path: Path, command: Command) -> Iterator[Outbox]:
    """An outbox with a destination that is down, and a configuration that names it."""
    with outbox(tmp_path / "state", free_port()) as one:
        command.config.write_text(as_toml(json.loads(one.config.model_dump_json(exclude_unset=True))))
        yield one


# ------------------------------------------------------------------------------------------- status


def test_status_shows_every_answer_in_words(
    command: Command, tmp_path: Path, tiny_model: Model, decoder: DecoderPool
) -> None:
    with SmallPacs(tmp_path / "pacs") as pacs:
        values = settings(tmp_path / "state", Path("unused"), destinations=[("pacs", pacs.port)])
        command.config.write_text(as_toml(values))
        with parts_of_a_node(values, tiny_model, decoder) as node:
            uid = str(generate_uid())
            head = PhantomSettings(slices=12, rows=64, slice_spacing_mm=11, study_instance_uid=uid)
            files = write_series(tmp_path / "head", head)
            send_study([*files[:5], *files[6:]], "127.0.0.1", node.receiver.port, "ICH_NODE")
            node.settle()

            status, text, _ = command("status")
            assert status == 0
            assert "series      1 CONCLUDED" in text
            assert "deliveries  1 DELIVERED" in text
            assert f"TEST MODEL: {node.status().studies[0].triage}, incomplete" in text
            assert f"…{uid[-12:]}" in flat(text)
            assert HEMORRHAGE_CLASSES[2] not in text, "details only where one study is asked for"

            status, text, _ = command("status", uid)
            assert status == 0
            assert "11 images, 0 unreadable, scored as 11 slices, INCOMPLETE: gaps at" in flat(text)
            assert "TEST MODEL" in text
            assert "intraparenchymal" in text
            assert "report saved" in text
            assert "pacs DELIVERED" in flat(text)

            status, text, _ = command("status", "--json")
            answer = json.loads(text)
            assert (status, answer["series"]) == (0, {"CONCLUDED": 1})
            assert answer["studies"][0]["study_instance_uid"] == uid
            assert answer["studies"][0]["series"][0]["finding"]["gaps_mm"]


@pytest.fixture
def site(command: Command, tmp_path: Path, tiny_model: Model, decoder: DecoderPool) -> Iterator[Site]:
    """A node that the commands look at."""
    with open_site(tmp_path, tiny_model, decoder) as one:
        command.config.write_text(as_toml(json.loads(one.node.config.model_dump_json(exclude_unset=True))))
        yield one


def altered(files: Sequence[Path], **attributes: Any) -> Sequence[Path]:
    for path in files:
        header = dcmread(path)
        for keyword, value in attributes.items():
            setattr(header, keyword, value)
        header.save_as(path)
    return files


def mixed(site: Site) -> tuple[str, str]:
    """Send a series with images of two patients; give its Study and Series Instance UID."""
    uid, files = site.head()
    altered(files[:3], PatientID="SOMEBODY-ELSE")
    site.send(files)
    (series,) = site.settled(uid).series
    assert series.state == "QUARANTINED"
    return uid, series.series_instance_uid


def test_status_says_what_is_quarantined_and_what_to_do(command: Command, site: Site) -> None:
    uid, series_uid = mixed(site)

    _, text, _ = command("status")
    assert "1 series QUARANTINED: look at them, then ich-node release UID or reject UID" in text
    assert "QUARANTINED: the series holds images of two patients (2 patient IDs)" in flat(text)
    _, text, _ = command("status", uid)
    assert f"ich-node release {series_uid}, or: ich-node reject {series_uid}" in text
    _, text, _ = command("status", "--json")
    assert json.loads(text)["studies"][0]["outcome"].startswith("QUARANTINED: ")


def test_what_is_released_is_analysed_as_it_is(command: Command, site: Site) -> None:
    uid, series_uid = mixed(site)

    assert command("release", "1.2.3")[:2] == (1, "no quarantined series of that UID here\n")
    assert command("release", series_uid)[:2] == (0, "1 series released\n")
    assert site.settled(uid).series[0].state == "CONCLUDED"
    assert command("release", uid)[0] == 1, "it is no longer quarantined"


def test_what_is_rejected_gets_no_result_and_says_so(command: Command, site: Site) -> None:
    uid, _ = mixed(site)

    assert command("reject", "1.2.3")[:2] == (1, "no quarantined series of that UID here\n")
    assert command("reject", uid)[:2] == (0, "1 series rejected\n")
    study = site.settled(uid)
    assert (study.series[0].state, study.outcome) == ("REJECTED", "not analysed: rejected by a person")
    assert "QUARANTINED" not in command("status")[1]


def test_status_names_a_withdrawn_result_and_the_old_numbers_as_not_valid(command: Command, site: Site) -> None:
    uid, files = site.head()
    site.send(files)
    assert site.settled(uid).triage is not None
    site.send(altered(files[:1], PatientID="SOMEBODY-ELSE"))
    wait_for(lambda: site.settled(uid).withdrawn, "the result is withdrawn")

    _, text, _ = command("status", uid)
    assert "WITHDRAWN: the series holds images of two patients" in flat(text)
    assert "before, not valid any more: TEST MODEL" in text
    answer = json.loads(command("status", uid, "--json")[1])["studies"][0]
    assert (answer["withdrawn"], answer["triage"], answer["rests_on"]) == (True, None, None)


def test_status_names_the_series_that_was_chosen(command: Command, site: Site) -> None:
    uid, files = site.head()
    site.send(altered(files, SeriesNumber=2))
    chosen = site.settled(uid).series[0].series_instance_uid
    _, others = site.head(study_instance_uid=uid)
    site.send(altered(others, SeriesNumber=3))
    study = site.settled(uid)
    assert [one.state for one in study.series] == ["CONCLUDED", "NOT_ANALYSED"]

    _, text, _ = command("status", uid)
    assert f"another series of the study is analysed (series 2, {chosen})" in flat(text)
    assert study.outcome == f"TEST MODEL: {study.triage}"
    assert study.rests_on == chosen


def test_status_shows_series_that_say_something_else(command: Command, site: Site) -> None:
    uid, files = site.head()
    site.send(files)
    study = site.settled(uid)
    other = "negative" if study.triage != "negative" else "positive"
    with site.node.database.writing() as connection:
        (row,) = connection.execute(select(SeriesRow)).all()
        second = row._asdict() | {"id": None, "series_instance_uid": "1.2.3", "triage": other}
        second["choice"] = row.choice | {"series_number": 3}
        connection.execute(insert(SeriesRow).values(second))

    assert f"{study.triage} (series 3: {other})" in flat(command("status")[1])


def test_status_tells_of_an_answer_whose_series_failed_since(command: Command, box: Outbox) -> None:
    box.add_study()
    with box.database.writing() as connection:
        connection.execute(update(SeriesRow).values(state="FAILED", reason="ANALYSIS_FAILED"))
        uid = connection.execute(select(SeriesRow.series_instance_uid)).scalar_one()

    assert f"positive (series …{uid[-8:]}: FAILED)" in flat(command("status")[1])
    assert f"ich-node requeue {uid}" in command("status", uid)[1]


def test_status_marks_old_studies_and_counts_slabs(command: Command, site: Site) -> None:
    acquired_at = datetime.now() - timedelta(days=5)  # noqa: DTZ005 - local, as scanners write it
    uid, files = site.head(slices=60, slice_spacing_mm=2.0, acquired_at=acquired_at)
    site.send(files[:35])
    assert site.settled(uid).old

    assert "old study" in command("status")[1]
    _, text, _ = command("status", uid)
    assert "scored as 14 slabs of 5 mm, INCOMPLETE: cut off" in flat(text)
    assert "shorter than a head" in flat(text)


def test_status_of_an_unknown_study_says_so(command: Command, box: Outbox) -> None:
    assert command("status", "1.2.3") == (1, "", "ich-node: no study or series 1.2.3 here\n")


def test_status_of_an_empty_node_is_short(command: Command, box: Outbox) -> None:
    assert command("status")[:2] == (0, "series      none\ndeliveries  none\n")


@leaks_a_socket
def test_status_names_what_needs_a_person(command: Command, box: Outbox, tmp_path: Path) -> None:
    box.add_study()
    with SmallPacs(tmp_path / "pacs", port=box.config.destination[0].port, accepted_sop_classes=()):
        box.deliver_until(lambda: box.status().paused_destinations, "the destination is paused")
    _, text, _ = command("status")
    assert "destination pacs-0 is paused: the destination accepted no presentation context" in flat(text)

    with SmallPacs(tmp_path / "pacs", port=box.config.destination[0].port, store_status=0xC000):
        wait_for(lambda: box.deliverer.step() and "DEAD" in box.status().deliveries, "it is dead")
        _, text, _ = command("status")
        assert "1 delivery is DEAD and needs a person: ich-node resend --dead" in flat(text)
        assert "pacs-0 DEAD after" in flat(text)
        assert "status 0xC000" in flat(text)


# -------------------------------------------------------------------------- requeue, resend, doctor


@leaks_a_socket
def test_resend_revives_what_is_dead(command: Command, box: Outbox, tmp_path: Path) -> None:
    uid = box.add_study()
    box.age(days=8)
    box.deliver_until_state("DEAD")

    assert command("resend")[0] == 2
    assert command("resend", "1.2.3")[:2] == (1, "no report to send again\n")
    assert command("resend", "--dead", "--destination", "nobody")[0] == 1
    assert command("resend", "--dead")[:2] == (0, "1 delivery will be sent again\n")
    with SmallPacs(tmp_path / "pacs", port=box.config.destination[0].port) as pacs:
        box.deliver_until_state("DELIVERED")
        assert command("resend", uid)[:2] == (0, "1 delivery will be sent again\n")
        box.deliver_until_state("DELIVERED")
        assert list(pacs.received.values()) == [2]


def test_requeue_wants_to_know_what(command: Command, box: Outbox) -> None:
    status, text, error = command("requeue")
    assert (status, text) == (2, "")
    assert "name a study or series UID, or --failed" in error
    uid = box.add_study()
    status, text, _ = command("requeue", "1.2.3")
    assert (status, text) == (1, "no such series here, or its images were deleted: send the study again\n")
    assert command("requeue", uid)[:2] == (0, "1 series queued again\n")
    assert box.status().series == {"RECEIVING": 1}


@leaks_a_socket
def test_doctor_names_what_is_well_and_what_is_not(command: Command, box: Outbox, tmp_path: Path) -> None:
    status, text, _ = command("doctor")
    lines = text.splitlines()
    assert status == 1
    assert [line.split(":")[0] for line in lines] == [
        "ok   disk", "ok   state folder", "ok   secrets", "ok   database", "ok   self-test", "BAD  model",
        "BAD  destination pacs-0",
    ]  # fmt: skip
    assert "manifest.json: there is no model here" in lines[5]
    assert "no association with 127.0.0.1" in lines[6]


@leaks_a_socket
def test_status_and_doctor_say_how_the_last_self_test_went(command: Command, box: Outbox) -> None:
    with box.database.writing() as connection:
        values = {"study_instance_uid": "2.25.1", "asked_at": 1.0, "started_at": 1.0, "finished_at": 2.0}
        connection.execute(insert(SelfTestRow).values(values | {"passed": False, "fault": "no report within 300 s"}))
    _, text, _ = command("doctor")
    (line,) = [one for one in text.splitlines() if "self-test" in one]
    assert line.startswith("BAD  self-test: runs every 15 min; the last, ")
    assert line.endswith("failed: no report within 300 s")
    _, text, _ = command("status")
    assert "failed: no report within 300 s" in text
    with box.database.writing() as connection:
        passed = {"passed": True, "seconds": 3.25, "triage": "positive", "probability": 0.5102, "finished_at": 9.0}
        connection.execute(insert(SelfTestRow).values(values | passed | {"study_instance_uid": "2.25.2"}))
    _, text, _ = command("status")
    assert "passed, 3.2 s to the report, positive, any hemorrhage 0.510" in text
    _, text, _ = command("doctor")
    assert "ok   self-test" in text


def test_a_self_test_that_nobody_would_run_is_not_asked_for(command: Command, box: Outbox) -> None:
    status, _, said = command("self-test")
    assert status == 1
    assert "`ich-node deliver` does not run" in said
    assert rows(box.database, SelfTestRow) == []


def test_doctor_is_content_with_a_whole_node(command: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    with SmallPacs(tmp_path / "pacs") as pacs:
        command.config.write_text(as_toml(settings(tmp_path / "s", tiny_bundle, destinations=[("a", pacs.port)])))
        status, text, _ = command("doctor")
    assert status == 0, text
    assert text.count("ok  ") == 7
    assert "UNTRAINED: its findings are shown, as TEST MODEL" in text
    assert "PACS at 127.0.0.1" in text


def test_doctor_goes_on_where_the_database_is_ill(command: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    (state := tmp_path / "s").mkdir(mode=0o700)
    (state / "ich-node.sqlite").write_bytes(b"this is no database" * 300)
    command.config.write_text(as_toml(settings(state, tiny_bundle)))
    status, text, _ = command("doctor")
    assert status == 1
    assert [line.split(":")[0] for line in text.splitlines()[3:]] == ["BAD  database", "BAD  self-test", "BAD  model"]
    assert "the database comes first" in text


def test_doctor_says_which_alert_channels_are_there(command: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    gone = free_port()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        values = settings(
            tmp_path / "s", tiny_bundle,
            alert_hl7=[{"name": "ris", "host": "127.0.0.1", "port": port}],
            alert_mail=[{"name": "mail", "host": "127.0.0.1", "port": gone, "starttls": False,
                         "sender": "node@hospital.example", "recipients": ["it@hospital.example"]}],
        )  # fmt: skip
        command.config.write_text(as_toml(values))
        status, text, _ = command("doctor")
    assert status == 1
    assert f"ok   alert channel ris: 127.0.0.1:{port} takes connections" in text
    assert "BAD  alert channel mail: " in text


def test_check_config_names_every_fault_at_once(command: Command) -> None:
    command.config.write_text('[node]\nport = 0\nae_title = "THIS IS TOO LONG FOR AN AE"\n[sries]\n')
    status, text, error = command("check-config")
    assert (status, text) == (78, "")
    for fault in ("node.port = 0", "node.ae_title", "sries: unknown key", "peer: nobody may send"):
        assert fault in error


# ------------------------------------------------------------------------------------------- model


def test_model_commands(command: Command, tiny_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["model", "list", str(tiny_bundle.parent)]) == 0
    assert "UNTRAINED" in capsys.readouterr().out
    assert main(["model", "list", str(tmp_path)]) == 1
    assert main(["model", "verify", str(tiny_bundle)]) == 0
    assert capsys.readouterr().out.endswith("every file agrees with its hash\n")
    made = tmp_path / "made"
    words = ["model", "init-untrained", str(made), "--backbone", "test_resnet", "--size", "64"]
    assert main(words) == 0
    assert main(["model", "verify", str(made)]) == 0
    before = {path: path.read_bytes() for path in made.iterdir()}
    assert main(words) == 1
    assert "nothing was changed" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in made.iterdir()}


@pytest.mark.parametrize("altered", ["manifest.json", "slice-network-01-of-01.safetensors"])
def test_a_worker_with_an_altered_model_file_refuses_to_start(tmp_path: Path, tiny_bundle: Path, altered: str) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "model")
    content = bytearray((bundle / altered).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (bundle / altered).write_bytes(content)

    with pytest.raises(ModelError, match=altered):
        run_worker(parse_config(settings(tmp_path / "state", bundle)))


def test_a_worker_without_a_model_exits_78_and_says_which_file(tmp_path: Path, command: Command) -> None:
    command.config.write_text(as_toml(settings(tmp_path / "state", tmp_path / "gone")))
    status, text, error = command("work")
    assert (status, text) == (78, "")
    assert error.startswith(f"ich-node: {tmp_path}/gone/manifest.json: there is no model here")


# ------------------------------------------------------------------------------------------- score


@pytest.mark.parametrize("as_process", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_score_prints_nothing_but_json_and_writes_reports(
    tmp_path: Path,
    tiny_bundle: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    as_process: bool,
) -> None:
    uid = str(generate_uid())
    files = write_series(
        tmp_path / "in", PhantomSettings(slices=12, rows=64, slice_spacing_mm=11, study_instance_uid=uid)
    )
    (tmp_path / "in" / "notes.txt").write_text("not DICOM")
    options = ["--json", "--output", tmp_path / "out", "--model", tiny_bundle, "--engine", "torch", "--test-model"]

    monkeypatch.chdir(tmp_path)  # where no configuration is
    words = list(map(str, ["score", tmp_path / "in", *options]))
    if as_process:
        answer = run(*words)
        status, text, error = answer.returncode, answer.stdout, answer.stderr
    else:
        status, (text, error) = main(words), capfd.readouterr()

    assert status == 1, "one file could not be read"
    assert "notes.txt: not a DICOM file" in error
    (entry,) = json.loads(text)
    assert list(entry) == [
        "study_instance_uid", "series_instance_uid", "analysed", "not_analysed_reason", "complete", "triage",
        "probabilities", "thresholds", "slices", "model", "test_model", "seconds",
    ]  # fmt: skip
    assert entry["test_model"] is True
    assert (entry["study_instance_uid"], entry["analysed"], entry["complete"]) == (uid, True, True)
    assert entry["triage"] in ("positive", "indeterminate", "negative")
    assert tuple(entry["probabilities"]) == HEMORRHAGE_CLASSES
    assert [list(one) for one in entry["slices"]] == [
        ["sop_instance_uid", "frame", "position_mm", "probabilities"]
    ] * 12
    assert [one["sop_instance_uid"] for one in entry["slices"]] == [dcmread(path).SOPInstanceUID for path in files]
    assert list(entry["model"]) == ["name", "version", "sha256"]
    written = {path.name: dcmread(path) for path in (tmp_path / "out").iterdir()}
    assert {one.StudyInstanceUID for one in written.values()} == {uid}
    assert written["001-Comprehensive3DSR.dcm"].Modality == "SR"
    assert written["001-summary.dcm"].pixel_array.shape[1] == 1024


def test_score_without_its_words_is_wrong_usage(command: Command, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["score"])
    assert command("score", str(tmp_path / "gone"))[::2] == (
        2, f"ich-node score: {tmp_path / 'gone'}: no such file or folder\n"
    )  # fmt: skip


# ------------------------------------------------------------------------------------ phantom, pacs


def test_phantom_writes_a_series(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phantom", str(tmp_path / "head"), "--lesion", "subdural", "--slices", "3"]) == 0
    assert capsys.readouterr().out == f"3 slices written to {tmp_path / 'head'}\n"
    assert len(list((tmp_path / "head").iterdir())) == 3


def test_pacs_stores_and_ends_on_a_signal(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "ich_node", "pacs", "--port", str(port), "--directory", str(tmp_path / "in")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"PACS listens on port {port}")
        files = write_series(tmp_path / "head", PhantomSettings(slices=1, rows=32))
        assert send_study(files, "127.0.0.1", port, "PACS") == 1
        assert process.stdout.readline().startswith("stored CT ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


# ------------------------------------------------------------------------------------------- serve


@contextmanager
def running(words: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a supervisor, whose log and whose roles' is at ``<folder>/log``."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *words], stderr=log, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_serve_restarts_a_role_that_died_and_sigterm_ends_them_all(
    tmp_path: Path, tiny_bundle: Path, command: Command
) -> None:
    command.config.write_text(as_toml(settings(tmp_path / "state", tiny_bundle)))
    with running(["-m", "ich_node", "serve", "--config", str(command.config)], tmp_path) as serve:
        roles = wait_for(lambda: _roles(tmp_path, 3), "three roles are started")
        assert set(roles) == {"receive", "work", "deliver"}
        wait_for(lambda: "receiver ready" in _log(tmp_path), "the receiver is ready")

        os.kill(roles["receive"], signal.SIGKILL)
        wait_for(lambda: _log(tmp_path).count("receiver ready") == 2, "the receiver is back")
        fresh = _roles(tmp_path, 3) or {}
        assert fresh["receive"] != roles["receive"]
        assert fresh["work"] == roles["work"], "the others were left alone"

        serve.send_signal(signal.SIGTERM)
        assert serve.wait(60) == 0
        assert not [pid for pid in fresh.values() if psutil.pid_exists(pid)]


SERVE_WITHOUT_WORKER = """
import sys
import threading
from pathlib import Path
from ich_node.config import load_config
from ich_node.log import start_logging
from ich_node.supervisor import serve
path = Path(sys.argv[1])
start_logging()
serve(load_config(path), path, ("receive", "deliver"))
"""


def test_the_roles_end_with_a_supervisor_that_was_killed(tmp_path: Path, command: Command) -> None:
    command.config.write_text(as_toml(settings(tmp_path / "state", Path("unused"))))
    with running(["-c", SERVE_WITHOUT_WORKER, str(command.config)], tmp_path) as serve:
        roles = wait_for(lambda: _roles(tmp_path, 2), "two roles are started")
        wait_for(lambda: {"receiver ready", "deliverer ready"} <= _events(tmp_path), "they are ready")

        serve.kill()
        serve.wait()

        wait_for(lambda: not [pid for pid in roles.values() if _runs(pid)], "the roles have ended")


@pytest.mark.slow
def test_the_worker_and_its_decoders_end_with_a_supervisor_that_was_killed(
    tmp_path: Path, tiny_bundle: Path, command: Command
) -> None:
    command.config.write_text(as_toml(settings(tmp_path / "state", tiny_bundle)))
    with running(["-m", "ich_node", "serve", "--config", str(command.config)], tmp_path) as serve:
        wait_for(lambda: "model ready" in _events(tmp_path), "the worker is ready")
        family = psutil.Process(serve.pid).children(recursive=True)
        assert len(family) >= 4, "three roles and at least one decoder"

        serve.kill()
        serve.wait()

        wait_for(lambda: not [one for one in family if _runs(one.pid)], "they have all ended")


def _log(folder: Path) -> str:
    return (folder / "log").read_text()


def _events(folder: Path) -> set[str]:
    return {json.loads(line)["event"] for line in _log(folder).splitlines() if line.endswith("}")}


def _roles(folder: Path, count: int) -> dict[str, int] | None:
    """The process of each role that was started last; None while one is missing."""
    lines = [json.loads(line) for line in _log(folder).splitlines() if line.endswith("}")]
    roles = {line["role_name"]: line["pid"] for line in lines if line["event"] == "role started"}
    return roles if len(roles) == count else None


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def flat(text: str) -> str:
    """Undo the folding of narrow terminals."""
    return " ".join(text.split())
