"""What readers say, as a table that the reader of `ich-train prepare` takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import update

from ich_node.concordance import LabelTable, label_table
from ich_node.database import Database, StudyRow
from ich_node.errors import TrainingError
from ich_node.job_queue.feedback import give_feedback
from ich_node.phantom import PhantomSettings, write_series
from ich_node.queries.feedback import SpokenAnswer, Word, spoken_answers
from ich_node.records import HEMORRHAGE_CLASSES, Presence, SliceKey
from ich_node.training.prepare import CoarsePositives, find_studies
from ich_node.training.prepare.studies import read_study_table
from tests.unit.queueing import open_queue, receive, received

SUBDURAL = tuple(int(one in ("any", "subdural")) for one in HEMORRHAGE_CLASSES)
NOTHING = (0, 0, 0, 0, 0, 0)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_queue(tmp_path)
    yield opened
    opened.close()


def word(reader: str = "eva", sees: Sequence[str] | None = None, at: float = 1.0, *slices: SliceKey) -> Word:
    """What a reader says: agrees, where ``sees`` is None."""
    return Word(reader, sees is None, bool(sees), tuple(sees or ()), slices, at)


def answer(study: int, triage: str, *words: Word, present: Sequence[str] = (), revision: int = 1) -> SpokenAnswer:
    presence = {one: Presence.PRESENT if one in present else Presence.ABSENT for one in HEMORRHAGE_CLASSES}
    return SpokenAnswer(f"1.2.{study}", f"1.2.{study}.1", "CT1", revision, triage, presence, words)


def read(table: LabelTable, folder: Path) -> dict[tuple[str, str], tuple[int, ...]]:
    """Read a table as `ich-train prepare` does."""
    path = folder / "labels.csv"
    path.write_text(table.csv)
    return {key: row.labels for key, row in read_study_table(path).items()}


def test_every_word_that_says_what_there_is_becomes_a_label(tmp_path: Path) -> None:
    table = label_table([
        answer(1, "positive", word(), present=["any", "subdural"]),
        answer(2, "positive", word(sees=[])),
        answer(3, "negative", word()),
        answer(4, "negative", word("eva", ["subdural"], 1.0, ("1.2.4.1.7", None), ("1.2.4.1.8", None))),
    ])  # fmt: skip

    assert read(table, tmp_path) == {
        ("series_instance_uid", "1.2.1.1"): SUBDURAL,
        ("series_instance_uid", "1.2.2.1"): NOTHING,
        ("series_instance_uid", "1.2.3.1"): NOTHING,
        ("series_instance_uid", "1.2.4.1"): SUBDURAL,
        ("sop_instance_uid", "1.2.4.1.7"): SUBDURAL,
        ("sop_instance_uid", "1.2.4.1.8"): SUBDURAL,
    }
    assert (table.studies, table.left_out) == (("1.2.1", "1.2.2", "1.2.3", "1.2.4"), 0)


@pytest.mark.parametrize(
    "spoken",
    [
        answer(1, "positive", word("eva"), word("jan", sees=[]), present=["any", "subdural"]),
        answer(1, "negative", word("eva", sees=["subdural"]), word("jan", sees=["epidural"])),
        answer(1, "negative", word(sees=["any"])),
        answer(1, "positive", word(), present=["any"]),
        answer(1, "indeterminate", word()),
    ],
    ids=["readers differ", "they see others", "no subtype", "none was named", "indeterminate"],
)
def test_what_is_not_known_is_left_out_and_counted(spoken: SpokenAnswer) -> None:
    table = label_table([spoken])

    assert table.csv.count("\n") == 1, "the names of the columns"
    assert (table.studies, table.left_out) == ((), 1)


def test_of_a_reader_who_changes_his_mind_the_newest_word_counts_in_any_revision(tmp_path: Path) -> None:
    later = answer(1, "positive", word(sees=[], at=9.0), revision=2)
    for answers in ([answer(1, "negative", word(sees=["subdural"], at=5.0)), later],
                    [later, answer(1, "negative", word(sees=["subdural"], at=5.0))]):  # fmt: skip
        assert read(label_table(answers), tmp_path) == {("series_instance_uid", "1.2.1.1"): NOTHING}


def test_a_slice_of_a_head_with_several_subtypes_is_no_label(tmp_path: Path) -> None:
    """It is not known which of them it shows; nor is a frame of many named by a UID."""
    several = answer(1, "negative", word("eva", ["subdural", "epidural"], 1.0, ("1.2.1.1.7", None)))
    frame = answer(2, "negative", word("eva", ["subdural"], 1.0, ("1.2.2.1.7", 3)))

    assert {key for key, _ in read(label_table([several, frame]), tmp_path)} == {"series_instance_uid"}


def test_the_table_holds_uids_and_labels_and_nothing_that_somebody_wrote(database: Database) -> None:
    receive(database, received(1))
    with database.writing() as connection:
        connection.execute(update(StudyRow).values(revision=1, triage="positive"))
    give_feedback(database, "1.2.1", "Eva O'Doc", agrees=False, note="Mrs Doe fell")

    table = label_table(spoken_answers(database))

    header, row = table.csv.splitlines()
    assert header.split(",")[:5] == ["sop_instance_uid", "series_instance_uid", "study_instance_uid", "level", "any"]
    assert row == ",,1.2.1,study,0,0,0,0,0,0", "a study whose answer rests on no series"


def test_prepare_finds_the_slices_that_readers_labelled(tmp_path: Path) -> None:
    """The whole way: files, the table, and the source that `ich-train prepare` makes of both."""
    heads = {}
    for number in (1, 2, 3):
        settings = PhantomSettings(
            slices=4, rows=64, slice_spacing_mm=20, study_instance_uid=f"1.2.{number}",
            series_instance_uid=f"1.2.{number}.1",
        )  # fmt: skip
        files = write_series(tmp_path / "heads" / str(number), settings)
        heads[number] = [str(dcmread(path).SOPInstanceUID) for path in files]
    path = tmp_path / "labels.csv"
    path.write_text(label_table([
        answer(1, "positive", word(sees=[])),
        answer(2, "negative", word("eva", ["subdural"], 1.0, (heads[2][1], None))),
        answer(3, "positive", word(), present=["any", "subdural"]),
    ]).csv)  # fmt: skip

    with pytest.raises(TrainingError, match=r"no row says which slices are: series_instance_uid 1\.2\.3\.1"):
        find_studies(tmp_path / "heads", path, "ours", side_px=64)
    source = find_studies(tmp_path / "heads", path, "ours", 64, CoarsePositives.LEAVE_OUT)

    labels = {item.image_id: item.labels for item in source.lots[0].items}
    assert labels == dict.fromkeys(heads[1], NOTHING) | {heads[2][1]: SUBDURAL}
    assert len(source.left_out) == 3 + 4, "slices of positive heads that nobody pointed at"
