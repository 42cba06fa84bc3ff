"""What a line of the worklist says, in every state of a study; and whose study a file says it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ich_node.accounts import Role
from ich_node.errors import SpoolFull
from ich_node.queries import AlertStatus, DeliveryStatus, SeriesStatus, StudyStatus, WorklistStudy
from ich_node.stored_files import LocalFiles
from ich_node.web.gate import Visitor
from ich_node.web.lines import Line, line_of
from ich_node.web.patients import Patient, Patients
from tests.ct_series import as_file, ct_slice

SERIES = SeriesStatus(
    series_instance_uid="1.2.1", modality="CT", state="CONCLUDED", why="", slices=30, unreadable=0, complete=True,
    triage="positive", finding={
        "probabilities": {"any": 0.97, "subdural": 0.6, "epidural": 0.8, "subarachnoid": 0.1},
        "presence": {"any": "present", "subdural": "present", "epidural": "present", "subarachnoid": "absent"},
    },
    model={}, steps={}, attempts=0, number=2, planes=30, expected=None, priority=0,
)  # fmt: skip
STUDY = StudyStatus(
    study_instance_uid="1.2", revision=2, triage="positive", reason=None, outcome="positive", withdrawn=False,
    old=False, rests_on="1.2.1", received_at=0.0, series=(SERIES,),
)  # fmt: skip
READER, VIEWER = (Visitor("x", role, None) for role in (Role.READER, Role.VIEWER))
VIEWER_URL = "https://pacs.example/?s={study_instance_uid}&a={accession_number}&p={patient_id}"


def delivery(state: str, revision: int = 2, attempts: int = 0, destination: str = "pacs") -> DeliveryStatus:
    return DeliveryStatus(destination, "REPORT", revision, state, attempts, "", 0.0, None, 0.0, None, None)


def alert(state: str, sent_at: float | None = 1.0, by: str = "") -> AlertStatus:
    acknowledged_at = 2.0 if by else None
    return AlertStatus("A" + state, "ris", "result", "positive", 2, 0, state, 1, "", "", 0.0, 0.0, sent_at,
                       acknowledged_at, by)  # fmt: skip


def line(visitor: Visitor = READER, file: str | None = None, state: Path = Path("/nowhere"), **changes: Any) -> Line:
    site: Any = SimpleNamespace(
        patients=Patients(LocalFiles(state)), config=SimpleNamespace(web=SimpleNamespace(viewer_url=VIEWER_URL))
    )
    return line_of(WorklistStudy(replace(STUDY, **changes), "CT1", "AE1", 30, file, 0.0), site, visitor)


def test_a_study_is_listed_where_there_is_no_room_to_fetch_what_says_whose_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file in a bucket is read from a copy, and the disk of this machine may be full."""

    def full(_files: LocalFiles, _name: str) -> Path:
        raise SpoolFull("no space left on the disk")

    monkeypatch.setattr(LocalFiles, "path", full)
    assert line(file="spool/00/a.dcm").patient == Patient()


@pytest.mark.parametrize(
    ("changes", "triage", "headline"),
    [
        ({}, "positive", "Hemorrhage"),
        ({"triage": "indeterminate"}, "indeterminate", "Indeterminate"),
        ({"triage": "negative"}, "negative", "No hemorrhage found"),
        ({"triage": None, "rests_on": None, "outcome": "not analysed: x"}, "none", "Not analysed"),
        ({"triage": None, "rests_on": None, "series": (replace(SERIES, state="RECEIVING"),)}, "waiting", "In progress"),
        ({"triage": None, "withdrawn": True, "outcome": "WITHDRAWN: x"}, "withdrawn", "Withdrawn"),
        ({"withdrawn": True}, "withdrawn", "Withdrawn"),
    ],
)
def test_a_line_says_what_the_study_says(changes: dict[str, Any], triage: str, headline: str) -> None:
    said = line(**changes)
    assert (said.triage, said.headline) == (triage, headline)
    assert bool(said.why_not) is (triage in ("none", "withdrawn"))


def test_a_finding_names_its_subtypes_the_most_probable_first() -> None:
    said = line()
    assert said.probability == 0.97
    assert said.subtypes == (("epidural", 0.8), ("subdural", 0.6))
    assert not said.incomplete
    assert line(series=(replace(SERIES, complete=False),)).incomplete


def test_a_test_model_is_named() -> None:
    finding = (SERIES.finding or {}) | {"test_model": True}
    assert line(series=(replace(SERIES, finding=finding),)).headline == "TEST MODEL: Hemorrhage"


@pytest.mark.parametrize(
    ("deliveries", "says", "state"),
    [
        ((), "", "nothing"),
        ((delivery("DELIVERED"), delivery("COMMITTED")), "in pacs", "good"),
        ((delivery("DELIVERED"), delivery("DELIVERED", destination="ris")), "in pacs, ris", "good"),
        ((delivery("DELIVERED"), delivery("DEAD", destination="ris")), "not in ris", "bad"),
        ((delivery("PENDING"),), "on its way to pacs", "waiting"),
        ((delivery("SENDING", attempts=3), delivery("DELIVERED")), "on its way to pacs, 3 tries", "waiting"),
        ((delivery("HELD"),), "held", "nothing"),
        ((delivery("DEAD", revision=1), delivery("DELIVERED")), "in pacs", "good"),
    ],
)
def test_a_line_says_where_the_report_is(deliveries: tuple[DeliveryStatus, ...], says: str, state: str) -> None:
    said = line(deliveries=deliveries)
    assert (said.delivery, said.delivery_state) == (says, state)


@pytest.mark.parametrize(
    ("alerts", "says", "state", "acknowledge"),
    [
        ((), "", "nothing", ""),
        ((alert("PENDING", None),), "being told", "waiting", ""),
        ((alert("SENT"),), "told", "waiting", "ASENT"),
        ((alert("UNANSWERED"),), "nobody answered", "bad", "AUNANSWERED"),
        ((alert("DEAD", None),), "nobody could be told", "bad", ""),
        ((alert("ACKNOWLEDGED", by="Dr. Ada"), alert("SENT")), "seen by Dr. Ada", "good", ""),
        ((alert("SUPERSEDED"), alert("HELD", None)), "", "nothing", ""),
    ],
)
def test_a_line_says_who_was_told(alerts: tuple[AlertStatus, ...], says: str, state: str, acknowledge: str) -> None:
    said = line(alerts=alerts)
    assert (said.alert, said.alert_state, said.acknowledge) == (says, state, acknowledge)


# ----------------------------------------------------------------------------------------------- patients


def written(folder: Path, **changes: Any) -> str:
    """A file whose header says something; its name."""
    (folder / "one.dcm").write_bytes(as_file(ct_slice(1, **changes)))
    return "one.dcm"


def test_the_viewer_of_the_site_is_called_with_what_the_file_says_and_nothing_of_it_is_markup(tmp_path: Path) -> None:
    file = written(tmp_path, PatientID='P&1"<', AccessionNumber="A/1 2")
    assert line(file=file, state=tmp_path).viewer_url == "https://pacs.example/?s=1.2&a=A%2F1%202&p=P%261%22%3C"
    assert line(VIEWER, file, tmp_path).viewer_url == "https://pacs.example/?s=1.2&a=&p="
    assert line(VIEWER, file, tmp_path).patient == Patient()


@pytest.mark.parametrize(
    ("name", "characters", "shown"),
    [
        ("Müller^Jürgen^^Dr.", "ISO_IR 100", "Müller, Jürgen Dr."),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", ["", "ISO 2022 IR 87"], "Yamada, Tarou"),
        ("=王^小东", "ISO_IR 192", "王, 小东"),
        ("Люкceмбypг", "ISO_IR 144", "Люкceмбypг"),
        ("  A  \t B ^", "ISO_IR 100", "A B"),
        ("", "ISO_IR 100", ""),
        ("<b>^x", "ISO_IR 100", "<b>, x"),
    ],
)
def test_names_are_read_in_the_script_they_were_written_in(
    tmp_path: Path, name: str, characters: str | list[str], shown: str
) -> None:
    file = written(tmp_path, SpecificCharacterSet=characters, PatientName=name)
    assert Patients(LocalFiles(tmp_path)).of(file).name == shown


def test_dates_that_are_none_are_left_out(tmp_path: Path) -> None:
    found = Patients(LocalFiles(tmp_path)).of(written(tmp_path, PatientBirthDate="19500102", StudyTime="101112.5"))
    assert (found.birth_date, found.study_time) == ("19500102", "101112")
    (tmp_path / "other").mkdir()
    odd = written(tmp_path / "other", StudyTime="10")
    assert Patients(LocalFiles(tmp_path / "other")).of(odd).study_time == ""


@pytest.mark.parametrize("content", [b"", b"x" * 200, b"\0" * 128 + b"DICM\xff\xff"])
def test_a_file_that_is_gone_or_damaged_is_nobodys(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.dcm").write_bytes(content)
    patients = Patients(LocalFiles(tmp_path))
    assert patients.of("odd.dcm") == Patient()
    assert patients.of("gone.dcm") == Patient()
    assert patients.of(None) == Patient()
