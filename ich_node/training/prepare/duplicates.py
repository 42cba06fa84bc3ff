"""Near-duplicates by perceptual hash, and the groups that no split may cut.

Images are compared only where the patient of at least one is unknown. Two hashes that differ in at most k of 64 bits
agree in at least one of k + 1 pieces (pigeonhole), so only images that share a piece are compared.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ich_node.training.prepared import SliceRow

_BITS: Final = 64
_AT_ONCE: Final = 1024
"""Images of unknown patients compared with all others of their bucket together."""

Indices = NDArray[np.int64]


def groups_of(rows: Sequence[SliceRow], hashes: Sequence[str | None], bits: int) -> list[str]:
    """Name the group of each row: its patient, else its study and cluster of near-duplicates, else itself.

    A cluster with images of a known patient joins that patient; one with images of two patients joins them. Slices of
    one study stay together also where nobody knows whose they are.
    """
    from scipy.sparse import coo_matrix  # late: the children that make shards need neither
    from scipy.sparse.csgraph import connected_components

    patients = sorted({row.patient_id for row in rows if row.patient_id})
    number = {patient: len(rows) + index for index, patient in enumerate(patients)}
    owned = [(index, number[row.patient_id]) for index, row in enumerate(rows) if row.patient_id]
    alike = near_duplicates(hashes, np.array([bool(row.patient_id) for row in rows], np.bool_), bits)
    studies: dict[tuple[str, str], int] = {}
    of_study = [
        (index, len(rows) + len(patients) + studies.setdefault((row.source, row.study.split("/")[0]), len(studies)))
        for index, row in enumerate(rows)
        if row.study
    ]
    edges = np.concatenate([np.array(pairs, np.int64).reshape(-1, 2) for pairs in (owned, of_study, alike)])
    nodes = len(rows) + len(patients) + len(studies)
    graph = coo_matrix((np.ones(len(edges), np.bool_), (edges[:, 0], edges[:, 1])), shape=(nodes, nodes))
    _, component = connected_components(graph, directed=False)
    return _names(rows, patients, component)


def near_duplicates(hashes: Sequence[str | None], patient_known: NDArray[np.bool_], bits: int) -> Indices:
    """Pair images (pairs, 2) whose hashes differ in at most ``bits`` bits; one of each pair has no known patient."""
    valid = np.array([one is not None for one in hashes], np.bool_)
    values = np.array([0 if one is None else int(one, 16) for one in hashes], np.uint64)
    pairs = [np.empty((0, 2), np.int64)]
    if not (valid & ~patient_known).any():
        return pairs[0]
    for bucket in _buckets(values, np.flatnonzero(valid), bits + 1):
        unknown = bucket[~patient_known[bucket]]
        for start in range(0, len(unknown), _AT_ONCE):
            some = unknown[start : start + _AT_ONCE]
            first, second = np.nonzero(np.bitwise_count(values[some, None] ^ values[None, bucket]) <= bits)
            found = np.stack([some[first], bucket[second]], axis=1)
            pairs.append(found[found[:, 0] != found[:, 1]])
    return np.concatenate(pairs)


def _buckets(values: NDArray[np.uint64], images: Indices, pieces: int) -> Iterator[Indices]:
    """Yield the images, two or more, that agree in one piece of their hash."""
    edges = [round(_BITS * index / pieces) for index in range(pieces + 1)]
    for low, high in pairwise(edges):
        piece = (values[images] >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(piece, kind="stable")
        borders = np.flatnonzero(np.diff(piece[order])) + 1
        yield from (bucket for bucket in np.split(images[order], borders) if len(bucket) > 1)


def _names(rows: Sequence[SliceRow], patients: Sequence[str], component: NDArray[np.integer]) -> list[str]:
    of_component: dict[int, str] = {}
    for index, patient in enumerate(patients):
        of_component.setdefault(int(component[len(rows) + index]), f"patient {patient}")
    sizes = np.bincount(component[: len(rows)], minlength=int(component.max()) + 1)
    for index, row in enumerate(rows):
        several = "study of" if row.study else "near-duplicates of"
        kind = several if sizes[component[index]] > 1 else "image"
        of_component.setdefault(int(component[index]), f"{kind} {row.source} {row.image_id}")
    return [of_component[int(one)] for one in component[: len(rows)]]
