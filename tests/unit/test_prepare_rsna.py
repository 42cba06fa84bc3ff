"""RSNA 2019: labels, files, what is left out, what is repaired; the same set from a folder and from an archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ich_node.errors import TrainingError, Unreadable
from ich_node.training.hu_code import decode_hu
from ich_node.training.prepare import PrepareSettings, find_rsna, prepare
from ich_node.training.prepare.finish import finish
from ich_node.training.prepare.lot import Item, Lot
from ich_node.training.prepare.plan import make_plan
from ich_node.training.prepare.rsna import read_rsna_labels
from ich_node.training.prepared import FoldRule, LeftOut, PreparedSet
from tests.training_sources import NEGATIVE, SIDE, SUBDURAL, as_12_bit_wrap, heads, label_rows, write_rsna, zip_folder

SETTINGS = PrepareSettings(folds=2, slices_per_shard=5, processes=2)
HEAD = ["ID,Label"]


def test_labels_are_read_in_the_order_of_our_classes() -> None:
    labels = read_rsna_labels([*HEAD, *label_rows("ID_1_2", SUBDURAL), *label_rows("ID_b", NEGATIVE)], "table")

    assert labels.of_image == {"ID_1_2": SUBDURAL, "ID_b": NEGATIVE}


def test_duplicate_rows_are_dropped_and_counted() -> None:
    rows = label_rows("ID_a", SUBDURAL)

    labels = read_rsna_labels([*HEAD, *rows, *rows[:4]], "table")

    assert labels.of_image == {"ID_a": SUBDURAL}
    assert labels.duplicates == 4


def test_duplicate_rows_that_disagree_are_an_error_that_names_them() -> None:
    rows = label_rows("ID_a", SUBDURAL)

    with pytest.raises(TrainingError, match=r"disagree: ID_a_any; ID_a_epidural\. Find out"):
        read_rsna_labels([*HEAD, *rows, "ID_a_any,0", "ID_a_epidural,1"], "table")


def test_images_with_missing_or_contradicting_labels_are_left_out() -> None:
    lines = [*HEAD, *label_rows("ID_a", NEGATIVE)[:5], *label_rows("ID_b", (0, 0, 1, 0, 0, 0))]

    labels = read_rsna_labels(lines, "table")

    assert not labels.of_image
    assert [one.image_id for one in labels.left_out] == ["ID_a", "ID_b"]


@pytest.mark.parametrize("line", ["ID_a_any", "ID_a_any,2", "ID_a_stroke,1", "any,1", ""])
def test_a_row_of_another_form_is_an_error_that_names_its_line(line: str) -> None:
    with pytest.raises(TrainingError, match="line 2 is no row"):
        read_rsna_labels([*HEAD, line], "table")


def test_a_table_of_another_form_is_an_error() -> None:
    with pytest.raises(TrainingError, match="first line"):
        read_rsna_labels(["id,label"], "table")


# ------------------------------------------------------------------------------------------- a whole set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve files: the third short of pixels, the fourth cut off, the fifth wrapped; one unlabelled, one absent."""
    folder = tmp_path_factory.mktemp("rsna")
    instances = heads()
    instances[2].PixelData = instances[2].PixelData[:-200]
    as_12_bit_wrap(instances[4])
    write_rsna(folder, instances, [*label_rows("ID_absent", NEGATIVE), *label_rows("ID_000000000", NEGATIVE)[:2]])
    images = folder / "stage_2_train"
    cut_off = images / "ID_000000003.dcm"
    cut_off.write_bytes(cut_off.read_bytes()[:-3000])
    (images / "ID_unlabelled.dcm").write_bytes((images / "ID_000000000.dcm").read_bytes())
    (folder / "stage_2_test").mkdir()
    (folder / "stage_2_test" / "ID_test.dcm").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def prepared(folder: Path, said: list[str], tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    source = find_rsna(folder, side_px=SIDE)
    return prepare([source], tmp_path_factory.mktemp("prepared"), SETTINGS, said.append)


def test_files_that_cannot_be_decoded_or_have_no_labels_are_listed_with_their_reason(prepared: PreparedSet) -> None:
    reasons = {one.image_id: one.reason for one in prepared.manifest.left_out}

    assert set(reasons) == {"ID_000000002", "ID_000000003", "ID_absent", "ID_unlabelled"}
    assert reasons["ID_000000002"].startswith("the image cannot be decoded")
    assert reasons["ID_000000003"].startswith("the image cannot be decoded")
    assert reasons["ID_absent"] == "labelled, but there is no file"
    assert reasons["ID_unlabelled"] == "no labels in the table"


def test_the_12_bit_wrap_is_repaired_and_counted(folder: Path, prepared: PreparedSet) -> None:
    row = next(one for one in prepared.rows if one.image_id == "ID_000000004")
    hu = decode_hu(load_file(prepared.shard_path(row.shard))["pixels"][row.index])

    assert prepared.manifest.repairs == {"12-bit wrap": 1}
    assert hu[0, 0] == -1000
    assert 20 < np.median(hu[(hu > 0) & (hu < 80)]) < 45


def test_a_row_says_whose_slice_it_is_and_where(prepared: PreparedSet) -> None:
    first, second = prepared.rows[:2]

    assert (first.image_id, first.source, first.kind, first.labels) == ("ID_000000000", "rsna2019", "dicom", NEGATIVE)
    assert (first.patient_id, second.patient_id) == ("P0", "P0")
    assert first.study == second.study != ""
    assert second.position_mm - first.position_mm == pytest.approx(20.0)
    assert first.spacing_mm == pytest.approx(240 / SIDE)


def test_counts_are_those_of_the_table(prepared: PreparedSet, said: list[str]) -> None:
    counts = prepared.manifest.counts["rsna2019"]

    assert (counts["slices"], counts["patients"]) == (10, 3)
    assert counts["any"] == counts["subdural"] == sum(row.labels[0] for row in prepared.rows)
    assert sum(fold["slices"] for fold in prepared.manifest.fold_counts.values()) == 10
    assert "2 duplicate label rows dropped" in said[0]
    assert "all 752,803 of RSNA 2019 would take" in said[-1]


def test_shards_reopen_with_safetensors_alone(prepared: PreparedSet) -> None:
    tensors = [load_file(prepared.shard_path(shard.name)) for shard in prepared.manifest.shards]

    assert [len(one["pixels"]) for one in tensors] == [shard.slices for shard in prepared.manifest.shards]
    assert {one["pixels"].shape[1:] for one in tensors} == {(SIDE, SIDE)}
    assert [tuple(labels) for one in tensors for labels in one["labels"]] == [row.labels for row in prepared.rows]


def test_an_archive_gives_the_same_slices_as_a_folder(folder: Path, tmp_path: Path) -> None:
    archive = zip_folder(folder, tmp_path / "rsna.zip")

    unpacked, packed = (find_rsna(place, side_px=SIDE) for place in (folder, archive))

    assert packed.left_out == unpacked.left_out
    assert make_plan([packed], 5).sha256() == make_plan([unpacked], 5).sha256()
    for one, other in zip(unpacked.lots[0].items, packed.lots[0].items, strict=True):
        assert read(packed.lots[0], other) == read(unpacked.lots[0], one)


def read(lot: Lot, item: Item) -> object:
    """Return what is read of an item, in a form that compares."""
    try:
        (one,) = lot.reader.read(item)
    except Unreadable as error:
        return str(error)
    return one.pixels.tobytes(), one.perceptual_hash, one.patient_id, one.study, one.position_mm, one.repairs


def test_a_folder_without_table_or_images_is_an_error_that_says_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(TrainingError, match="name the table of labels"):
        find_rsna(tmp_path / "data")
    with pytest.raises(TrainingError, match="not there; give the folder or zip archive"):
        find_rsna(tmp_path / "absent")
    (tmp_path / "stage_2_train.csv").write_text("ID,Label\n")
    with pytest.raises(TrainingError, match=r"no image \(\*\.dcm\) has labels"):
        find_rsna(tmp_path / "data")


def test_a_set_of_which_nothing_can_be_read_is_an_error_that_says_why(tmp_path: Path) -> None:
    left_out = [LeftOut(image_id=one, reason="the image cannot be decoded") for one in "ab"]

    with pytest.raises(TrainingError, match=r"no slice could be used \(2 times: the image cannot be decoded\); mend"):
        finish(tmp_path, [], FoldRule(folds=2, seed=0, near_duplicate_bits=2), left_out, {})
