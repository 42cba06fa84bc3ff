"""Tables of ready images: grey brain windows get their regions, images of three windows become Hounsfield units."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ich_node.errors import TrainingError, Unreadable
from ich_node.training.hu_code import decode_hu
from ich_node.training.prepare import PrepareSettings, find_images, prepare
from ich_node.training.prepare.lot import Lot, ReadSlice
from ich_node.training.prepare.three_windows import hu_of_three_windows
from ich_node.training.prepared import Pixels, PreparedSet
from tests.training_sources import as_image, gray_window, head_hu, labelled, three_windows, write_table

SIDE = 128


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four grey images in an archive, two of three windows as plain files, and one that the archive lacks."""
    folder = tmp_path_factory.mktemp("images")
    records: list[dict[str, object]] = []
    with zipfile.ZipFile(folder / "gray.zip", "w") as archive:
        for number in range(4):
            gray = np.stack([gray_window(head_hu(number // 2), 35)] * 3, axis=-1)
            archive.writestr(f"slices/{number}.webp", as_image(gray, "WEBP"))
            records.append(record(f"g{number}", f"slices/{number}.webp", patient_id=f"p{number // 2}",
                                  slice_number=f"{number}.0", archive="gray.zip"))  # fmt: skip
    records.append(record("gone", "slices/gone.webp", archive="gray.zip"))
    for number in range(2):
        (folder / f"{number}.png").write_bytes(as_image(three_windows(head_hu(5 + number))))
        records.append(record(f"w{number}", f"{number}.png", kind="three_windows_rgb", positive=True))
    return write_table(folder / "slices.csv", records)


def record(
    image_id: str, file: str, kind: str = "brain_window_gray", positive: bool = False, **more: object
) -> dict[str, object]:
    plain = {"file": file, "source": "made", "pixels": kind, "image_id": image_id, "pixel_spacing_mm": 0.75}
    return plain | labelled(positive) | more


def read_first(lot: Lot) -> ReadSlice:
    (one,) = lot.reader.read(lot.items[0])
    return one


def test_images_of_one_kind_and_archive_form_a_lot_and_missing_ones_are_left_out(table: Path) -> None:
    source = find_images(table)

    assert [(lot.kind, lot.pixels, lot.side_px, len(lot.items)) for lot in source.lots] == [
        ("brain_window_gray", Pixels.BRAIN_WINDOW_GRAY, SIDE, 4),
        ("three_windows_rgb", Pixels.HU, SIDE, 2),
    ]
    assert [(one.image_id, one.reason) for one in source.left_out] == [("gone", "gray.zip does not hold its file")]


def test_slice_numbers_give_positions_within_the_patient(table: Path) -> None:
    gray = find_images(table).lots[0]

    assert [item.position_mm for item in gray.items] == [0, 5, 10, 15]
    assert [item.study for item in gray.items] == ["p0", "p0", "p1", "p1"]


def test_another_side_changes_pixels_and_spacing(table: Path) -> None:
    gray, windows = find_images(table, side_px=64).lots

    for one in (read_first(gray), read_first(windows)):
        assert one.pixels.shape == (64, 64)
        assert one.spacing_mm == pytest.approx(1.5)


def test_three_windows_give_back_hounsfield_units() -> None:
    hu = head_hu(2)

    restored = hu_of_three_windows(three_windows(hu))

    brain, soft = (hu > 1) & (hu < 79), (hu > -145) & (hu < 225)
    assert np.abs(restored - hu)[brain].max() < 0.2
    assert np.abs(restored - hu)[soft].max() < 1.0
    assert restored[hu > 240].min() >= 300
    assert restored[0, 0] == -1000
    assert np.isin(restored[hu < -160], (-1000, -200)).all()


def test_three_windows_are_stored_in_codes_of_hounsfield_units(table: Path) -> None:
    one = read_first(find_images(table).lots[1])
    hu = head_hu(5)
    brain = (hu > 1) & (hu < 79)

    assert one.regions is None
    assert np.abs(decode_hu(one.pixels) - hu)[brain].max() < 0.8


def test_a_damaged_image_is_unreadable(table: Path) -> None:
    windows = find_images(table).lots[1]
    (table.parent / "1.png").write_bytes(b"no image")

    with pytest.raises(Unreadable, match="the image cannot be decoded"):
        windows.reader.read(windows.items[1])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"any": 1}, r"line 2 \(a\): any is 1, but the subtypes say 0"),
        ({"subdural": 2}, "subdural is '2', neither 0 nor 1"),
        ({"pixels": "bone"}, "pixels is 'bone', not one of"),
        ({"slice_number": "x"}, "could not convert"),
    ],
)
def test_rows_that_cannot_be_used_are_named_with_what_to_do(
    tmp_path: Path, change: dict[str, object], text: str
) -> None:
    path = write_table(tmp_path / "slices.csv", [record("a", "a.png") | change])

    with pytest.raises(TrainingError, match=f"{text}.*Mend or delete"):
        find_images(path)


def test_a_table_that_cannot_be_used_is_refused_with_what_to_do(tmp_path: Path) -> None:
    twice = write_table(tmp_path / "twice.csv", [record("a", "a.png"), record("a", "b.png")])
    with pytest.raises(TrainingError, match=r"named twice: a of made\. Keep one"):
        find_images(twice)
    with pytest.raises(TrainingError, match=r"columns missing: file, source, pixels.*add them"):
        find_images(write_table(tmp_path / "short.csv", [{"image_id": "a"}]))
    with pytest.raises(TrainingError, match="not there; give the table"):
        find_images(tmp_path / "absent.csv")
    with pytest.raises(TrainingError, match="the table's column archive names it"):
        find_images(write_table(tmp_path / "lost.csv", [record("a", "a.png", archive="lost.zip")]))
    with pytest.raises(TrainingError, match="no image of the table can be read; check its column file"):
        find_images(write_table(tmp_path / "files.csv", [record("a", "a.png")]))


# ------------------------------------------------------------------------------------------------ real images


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    """Every 150th real image, prepared from where it lies."""
    folder = tmp_path_factory.mktemp("real")
    with (shared_data / "training" / "slices.csv").open(newline="") as lines:
        records: list[dict[str, object]] = [dict(one) for one in csv.DictReader(lines)][::150]
    for name in {str(one["archive"]) for one in records}:
        (folder / name).symlink_to(shared_data / "training" / name)
    settings = PrepareSettings(folds=3, slices_per_shard=16, processes=2)
    return prepare([find_images(write_table(folder / "slices.csv", records))], folder / "set", settings, lambda _: None)


def test_real_images_are_prepared_with_their_labels_patients_and_regions(real: PreparedSet) -> None:
    counts = real.manifest.counts

    assert set(counts) == {"ctich_v1.0.0", "rsna2019"}
    assert sum(one["slices"] for one in counts.values()) == len(real.rows) == 45
    assert not real.manifest.left_out
    for shard in real.manifest.shards:
        tensors = load_file(real.shard_path(shard.name))
        assert tensors["pixels"].shape == (shard.slices, 320, 320)
        assert ("regions" in tensors) == (shard.pixels is Pixels.BRAIN_WINDOW_GRAY)


def test_real_heads_have_air_around_them_and_bone_in_them(real: PreparedSet) -> None:
    regions = np.concatenate([
        load_file(real.shard_path(shard.name))["regions"]
        for shard in real.manifest.shards if shard.pixels is Pixels.BRAIN_WINDOW_GRAY
    ])  # fmt: skip

    assert (regions[:, 0, 0] == 1).mean() > 0.9
    assert 0.01 < (regions >= 16).mean() < 0.3
    assert (regions == 4).mean() < 0.01
