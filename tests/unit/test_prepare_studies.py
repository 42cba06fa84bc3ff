"""A folder of DICOM studies with a table: which row speaks of which slice, and what a study's label cannot say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom import Dataset

from ich_node.errors import TrainingError, Unreadable
from ich_node.phantom import PhantomSettings, write_series
from ich_node.training.prepare import CoarsePositives, find_studies
from ich_node.training.prepare.lot import Source
from tests.enhanced_ct import write_enhanced_ct
from tests.training_sources import NEGATIVE, SUBDURAL, heads, labelled, write_table


@pytest.fixture(scope="module")
def instances() -> list[Dataset]:
    """Two studies of three slices, P0 and P1."""
    return heads(patients=2, slices=3)


@pytest.fixture(scope="module")
def folder(instances: Sequence[Dataset], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    for number, instance in enumerate(instances):
        path = folder / f"study{number // 3}" / f"{number}.dcm"
        path.parent.mkdir(exist_ok=True)
        instance.save_as(path, enforce_file_format=True)
    (folder / "notes.txt").write_text("no DICOM")
    return folder


def find(
    folder: Path, tmp_path: Path, records: Sequence[dict[str, object]], coarse: str = CoarsePositives.REFUSE
) -> Source:
    table = write_table(tmp_path / "labels.csv", records)
    return find_studies(folder, table, "ours", side_px=64, coarse_positives=CoarsePositives(coarse))


def labels_of(source: Source) -> dict[str, tuple[int, ...]]:
    return {item.image_id: item.labels for item in source.lots[0].items}


def test_rows_of_slices_label_their_slice_by_uid_or_file(
    folder: Path, instances: Sequence[Dataset], tmp_path: Path
) -> None:
    uids = [str(one.SOPInstanceUID) for one in instances]
    by_uid = {"sop_instance_uid": uids[0], "patient_id": "other", "lesion_mm2": 42.5} | labelled(positive=True)
    by_file = {"file": "study1/3.dcm"} | labelled()

    source = find(folder, tmp_path, [by_uid, by_file])

    assert labels_of(source) == {uids[0]: SUBDURAL, uids[3]: NEGATIVE}
    assert [one.reason for one in source.left_out] == ["no row of the table"] * 4
    first, second = (source.lots[0].reader.read(item)[0] for item in source.lots[0].items)
    assert (first.patient_id, first.lesion_mm2, second.patient_id) == ("other", 42.5, "P1")
    assert first.study == f"{instances[0].StudyInstanceUID}/{instances[0].SeriesInstanceUID}"
    assert first.spacing_mm == pytest.approx(240 / 64)


@pytest.mark.parametrize("key", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_a_negative_study_or_series_makes_every_slice_of_it_negative(
    folder: Path, instances: Sequence[Dataset], tmp_path: Path, key: str
) -> None:
    column = key.replace("InstanceUID", "_instance_uid").lower()

    source = find(folder, tmp_path, [{column: instances[0][key].value} | labelled()])

    assert labels_of(source) == {str(one.SOPInstanceUID): NEGATIVE for one in instances[:3]}


def study_rows(instances: Sequence[Dataset]) -> list[dict[str, object]]:
    """Return rows of two studies, the second positive."""
    return [
        {"study_instance_uid": instances[0].StudyInstanceUID} | labelled(),
        {"study_instance_uid": instances[3].StudyInstanceUID} | labelled(positive=True),
    ]


def test_a_positive_study_without_rows_of_slices_is_refused_with_the_ways_out(
    folder: Path, instances: Sequence[Dataset], tmp_path: Path
) -> None:
    uid = str(instances[3].StudyInstanceUID)

    with pytest.raises(TrainingError, match=rf"no row says which slices are: study_instance_uid {uid}\. Add rows"):
        find(folder, tmp_path, study_rows(instances))


def test_slices_of_positive_studies_can_be_left_out(folder: Path, instances: Sequence[Dataset], tmp_path: Path) -> None:
    source = find(folder, tmp_path, study_rows(instances), "leave-out")

    assert set(labels_of(source)) == {str(one.SOPInstanceUID) for one in instances[:3]}
    assert {one.reason for one in source.left_out} == {
        "its study_instance_uid is positive, no row says which slices are"
    }


def test_a_positive_study_labels_all_slices_only_where_the_caller_or_the_table_says_so(
    folder: Path, instances: Sequence[Dataset], tmp_path: Path
) -> None:
    rows = study_rows(instances)
    everywhere = {str(one.SOPInstanceUID): SUBDURAL for one in instances[3:]}

    assert everywhere.items() <= labels_of(find(folder, tmp_path, rows, "all-slices")).items()
    assert everywhere.items() <= labels_of(find(folder, tmp_path, [rows[0], rows[1] | {"level": "slice"}])).items()


def test_slices_of_a_positive_study_count_where_rows_of_slices_say_which(
    folder: Path, instances: Sequence[Dataset], tmp_path: Path
) -> None:
    one_slice = {"sop_instance_uid": instances[4].SOPInstanceUID} | labelled(positive=True)

    source = find(folder, tmp_path, [*study_rows(instances), one_slice])

    assert labels_of(source)[str(instances[4].SOPInstanceUID)] == SUBDURAL
    assert len(labels_of(source)) == 4
    assert len(source.left_out) == 2


def test_rows_without_a_file_and_files_that_come_twice_are_listed(
    folder: Path, instances: Sequence[Dataset], tmp_path: Path
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    for name in ("a.dcm", "b.dcm"):
        (copies / name).write_bytes((folder / "study0" / "0.dcm").read_bytes())
    (copies / "c.dcm").write_bytes(b"no DICOM")
    rows = [{"study_instance_uid": one} | labelled() for one in (instances[0].StudyInstanceUID, "1.2.3")]

    source = find(copies, tmp_path, rows)

    assert [(one.image_id, one.reason) for one in source.left_out] == [
        ("c.dcm", "not a DICOM file, or a damaged one: InvalidDicomError"),
        (str(instances[0].SOPInstanceUID), "b.dcm has the same SOP Instance UID as another file"),
        ("1.2.3", "labelled (study_instance_uid), but there is no file"),
    ]


def test_an_object_of_many_frames_is_left_out_with_advice(tmp_path: Path) -> None:
    files = write_series(tmp_path / "single", PhantomSettings(slices=2, rows=64))
    (tmp_path / "many").mkdir()
    write_enhanced_ct(tmp_path / "many" / "1.dcm", files)
    lot = find(tmp_path / "many", tmp_path, [{"file": "1.dcm"} | labelled()]).lots[0]

    with pytest.raises(Unreadable, match="2 frames in one object; split it"):
        lot.reader.read(lot.items[0])


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([{"name": "a"} | labelled()], "no column says what a row labels; add one of file, sop"),
        ([{"file": ""} | labelled()], "line 2: none of file.*Mend or delete"),
        ([{"file": "a", "level": "patient"} | labelled()], "level is 'patient', not slice, series or study"),
        ([{"file": "a"} | labelled(), {"file": "a"} | labelled(True)], "line 3: disagrees with an earlier row"),
        ([{"file": "a"} | labelled() | {"any": 1}], "any is 1, but the subtypes say 0"),
        ([{"file": "a"}], "columns missing: epidural.*add them"),
        ([{"file": "a"} | labelled()], "no row names a file.*check the UIDs, or paths"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_what_to_do(
    folder: Path, tmp_path: Path, records: list[dict[str, object]], text: str
) -> None:
    with pytest.raises(TrainingError, match=text):
        find(folder, tmp_path, records)


def test_a_missing_table_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not there; give the table of labels"):
        find_studies(folder, tmp_path / "absent.csv", "ours")
