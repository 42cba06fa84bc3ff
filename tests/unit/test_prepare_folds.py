"""Folds by patient, near-duplicates or image, never by slice; the perceptual hash that finds near-duplicates."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ich_node.errors import TrainingError
from ich_node.training.prepare.duplicates import groups_of, near_duplicates
from ich_node.training.prepare.folds import assign_folds
from ich_node.training.prepare.picture import perceptual_hash
from ich_node.training.prepare.run import NEAR_DUPLICATE_BITS
from ich_node.training.prepared import SliceRow
from tests.training_sources import NEGATIVE, SUBDURAL, gray_window, head_hu


def row(number: int, patient: str = "", positive: bool = False, source: str = "made") -> SliceRow:
    return SliceRow(f"i{number}", source, "hu", "dicom", "00000.safetensors", number,
                    SUBDURAL if positive else NEGATIVE, patient_id=patient)  # fmt: skip


SLICES = st.lists(
    st.tuples(
        st.sampled_from(["", "", "p1", "p2", "p3", "p4"]),
        st.booleans(),
        st.sampled_from(["one", "other"]),
        st.one_of(st.none(), st.integers(0, 63).map(lambda bit: 1 << bit), st.integers(0, 2**64 - 1)),
    ),
    min_size=2,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(SLICES, st.integers(2, 5), st.integers(0, 3), st.integers(0, 2**31))
def test_no_patient_and_no_near_duplicate_lies_in_two_folds(
    slices: list[tuple[str, bool, str, int | None]], folds: int, bits: int, seed: int
) -> None:
    rows = [row(number, *one[:3]) for number, one in enumerate(slices)]
    values = [one[3] for one in slices]
    groups = groups_of(rows, [None if value is None else f"{value:016x}" for value in values], bits)
    if len(set(groups)) < folds:
        with pytest.raises(TrainingError, match=f"cannot be made; give 2 to {len(set(groups))} folds"):
            assign_folds(rows, groups, folds, seed)
        return

    assigned = assign_folds(rows, groups, folds, seed)

    assert set(assigned) == set(range(folds))
    assert assigned == assign_folds(rows, groups, folds, seed)
    for index, one in enumerate(rows):
        for other in range(index):
            same_patient = one.patient_id and one.patient_id == rows[other].patient_id
            unknown = not (one.patient_id and rows[other].patient_id)
            if same_patient or (unknown and _alike(values[index], values[other], bits)):
                assert groups[index] == groups[other]
            if groups[index] == groups[other]:
                assert assigned[index] == assigned[other]


def _alike(one: int | None, other: int | None, bits: int) -> bool:
    return one is not None and other is not None and (one ^ other).bit_count() <= bits


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.booleans()), min_size=2, max_size=30), st.integers(0, 4))
def test_near_duplicates_are_those_that_comparing_all_finds(images: list[tuple[int, bool]], bits: int) -> None:
    values = [value for value, _ in images] + [images[0][0] ^ (1 << bit) for bit in range(0, 60, 7)]
    known = [one for _, one in images] + [False] * (len(values) - len(images))

    pairs = near_duplicates([f"{value:016x}" for value in values], np.array(known), bits)

    assert {tuple(sorted(pair)) for pair in pairs.tolist()} == {
        (low, high)
        for high in range(len(values))
        for low in range(high)
        if not (known[low] and known[high]) and (values[low] ^ values[high]).bit_count() <= bits
    }


def test_a_group_is_the_patient_else_the_cluster_else_the_image() -> None:
    rows = [row(0, "p1"), row(1), row(2), row(3), row(4), row(5, "p2"), row(6, "p2")]
    hashes = ["00ff", "00ff", "f0f0", "f0f1", "0aaaaaaa", "f0ff0000", None]

    groups = groups_of(rows, [None if one is None else one.zfill(16) for one in hashes], bits=1)

    assert groups == [
        "patient p1",
        "patient p1",
        "near-duplicates of made i2",
        "near-duplicates of made i2",
        "image made i4",
        "patient p2",
        "patient p2",
    ]


def test_slices_of_one_study_stay_together_also_where_the_patient_is_unknown() -> None:
    rows = [replace(row(number), study=study) for number, study in enumerate(("1.2/3", "1.2/4", "1.5/6", ""))]

    groups = groups_of(rows, [None] * 4, bits=2)

    assert groups == ["study of made i0", "study of made i0", "image made i2", "image made i3"]


def test_patients_who_look_alike_stay_apart_unless_an_unknown_image_joins_them() -> None:
    same = "0" * 16

    assert groups_of([row(0, "a"), row(1, "b")], [same, same], 2) == ["patient a", "patient b"]
    assert set(groups_of([row(0, "a"), row(1, "b"), row(2)], [same] * 3, 2)) == {"patient a"}


def test_folds_are_alike_in_source_and_class() -> None:
    rows = [row(n, f"p{n}", n % 4 == 0, "one" if n % 2 else "other") for n in range(200)]

    folds = assign_folds(rows, [one.patient_id for one in rows], 5, seed=1)

    for fold in range(5):
        held_out = [one for one, its in zip(rows, folds, strict=True) if its == fold]
        assert len(held_out) == 40
        assert sum(one.labels[0] for one in held_out) == 10


def test_another_seed_gives_other_folds() -> None:
    rows = [row(n, f"p{n}") for n in range(50)]
    groups = [one.patient_id for one in rows]

    assert assign_folds(rows, groups, 5, seed=1) != assign_folds(rows, groups, 5, seed=2)


# ------------------------------------------------------------------------------------------ the perceptual hash


def distance(one: int | None, other: int | None) -> int:
    assert one is not None
    assert other is not None
    return (one ^ other).bit_count()


def test_a_picture_in_another_size_place_and_format_is_a_near_duplicate() -> None:
    gray = gray_window(head_hu(1, rows=256), 35)
    placed = np.zeros((420, 420), np.uint8)
    placed[20:404, 30:414] = np.asarray(Image.fromarray(gray).resize((384, 384), Image.Resampling.BILINEAR))
    content = io.BytesIO()
    Image.fromarray(placed).save(content, "WEBP", quality=80)
    again = np.asarray(Image.open(content).convert("L"))

    assert distance(perceptual_hash(gray), perceptual_hash(again)) <= NEAR_DUPLICATE_BITS


def test_other_heads_are_no_near_duplicates() -> None:
    hashes = [perceptual_hash(gray_window(head_hu(seed, rows=192), 35)) for seed in range(5)]

    assert all(distance(one, other) > NEAR_DUPLICATE_BITS for one, other in pairwise(hashes))


def test_a_picture_without_a_head_has_no_hash() -> None:
    assert perceptual_hash(np.zeros((64, 64), np.uint8)) is None
    assert perceptual_hash(np.full((64, 64), 255, np.uint8)) is None
