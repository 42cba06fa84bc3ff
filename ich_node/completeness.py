"""Has the whole series arrived, and does it show a whole head? Where are the gaps?"""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Final

from ich_node.records import Completeness, Gap, SliceFacts, TissueMeasure

_GAP_FACTOR: Final = 1.6  # over a step's jitter, under the 2 that one missing slice makes
_NEIGHBOURS: Final = 5
_SAME_POSITION_MM: Final = 0.01
_HEAD_HEIGHT_MM: Final = 100.0  # the brain alone is higher in an adult

# An end still shows much brain when the brain that its bone encloses is large. Seen at the ends of whole heads, and at
# the cut end of the halves and middle thirds of the same series:
#                                    whole, lower end    whole, upper end    cut
#   of the series' largest plane
#     CQ500, 7 heads; a GE head      0.03 to 0.20        0                   0.60 to 1.00
#     the same, noise of 120 HU      0.14 to 0.29        0                   0.68 to 1.00
#     phantom, 5 mm and thinner      0.03 to 0.05        0                   0.72 to 1.00
#     phantom, 12 slices at 11 mm    0.16 to 0.28        0.11 to 0.28        0.69 to 1.00
#   cm²
#     CQ500, 7 heads; a GE head      4 to 32             0                   83 to 181
#     the same, noise of 120 HU      5 to 13             0                   24 to 46
#     phantom, 12 slices at 11 mm    26 to 50            18 to 52            121 to 187
# No plane of the plastic head or of a chest encloses more than 14 cm². The real heads are seen to be cut once they lack
# their lowest 18 to 35 mm or their highest 19 to 33 mm.
_MUCH_OF_LARGEST: Final = 0.35
_MUCH_CM2: Final = 15.0


def assess_completeness(
    positions_mm: Sequence[float],
    slice_thickness_mm: float | Sequence[float | None] | None = None,
    unreadable: int = 0,
    *,
    tissues: Sequence[tuple[SliceFacts, TissueMeasure]] = (),
    expected: int | None = None,
    received: int | None = None,
) -> Completeness:
    """Find the gaps between positions along the slice normal, given in any order, and what lies beyond the two ends.

    A gap is a step over 1.6 times the larger of the median of its five neighbouring steps and SliceThickness, so a
    series may change its spacing on the way. SliceThickness is one for all, one per position, or unknown (None); of the
    two slices of a step the thicker counts. Slices at the same position leave no gap.

    ``tissues`` are the measured planes from foot to head: the first and the last say whether the head goes on; without
    them no end counts as cut. ``expected`` is how many images the PACS says it holds, ``received`` how many arrived.
    """
    positions, thickness = _by_position(positions_mm, slice_thickness_mm)
    cut_below, cut_above = _cut_ends(tissues)
    return Completeness(
        gaps=_gaps(positions, thickness),
        unreadable=unreadable,
        extent_mm=(positions[0], positions[-1]) if positions else None,
        short=_covered_mm(positions, thickness) < _HEAD_HEIGHT_MM,
        cut_below=cut_below,
        cut_above=cut_above,
        missing_by_count=max(0, expected - received) if expected is not None and received is not None else 0,
    )


def _gaps(positions: list[float], thickness: list[float]) -> tuple[Gap, ...]:
    steps = [above - below for below, above in pairwise(positions)]
    return tuple(
        Gap(positions[index], positions[index + 1])
        for index, step in enumerate(steps)
        if step > _GAP_FACTOR * max(_usual_step(steps, index), thickness[index], thickness[index + 1])
    )


def _covered_mm(positions: list[float], thickness: list[float]) -> float:
    """From the first to the last position, and one slice: its thickness, or a usual step where that is unknown."""
    if len(positions) < 2:
        return max(thickness, default=0.0)
    steps = [above - below for below, above in pairwise(positions)]
    return positions[-1] - positions[0] + (median(thickness) or median(steps))


def _cut_ends(tissues: Sequence[tuple[SliceFacts, TissueMeasure]]) -> tuple[bool, bool]:
    """Say whether the first and the last plane still show much brain."""
    if not tissues:
        return False, False
    areas = [_enclosed_brain(facts, tissue) for facts, tissue in tissues]
    spaced = all(facts.pixel_spacing_mm for facts, _ in tissues)
    much = max(_MUCH_OF_LARGEST * max(areas), _MUCH_CM2 if spaced else 0.0)
    return areas[0] >= much > 0.0, areas[-1] >= much > 0.0


def _enclosed_brain(facts: SliceFacts, tissue: TissueMeasure) -> float:
    """Area in cm²; of unknown spacing in pixels, which can be compared within a series."""
    rows_mm, columns_mm = facts.pixel_spacing_mm or (10.0, 10.0)
    return tissue.enclosed_brain_fraction * facts.rows * facts.columns * rows_mm * columns_mm / 100.0


def _by_position(
    positions_mm: Sequence[float], slice_thickness_mm: float | Sequence[float | None] | None
) -> tuple[list[float], list[float]]:
    """Sort positions, each once, with the largest thickness given for it (0 where none is)."""
    if slice_thickness_mm is None or isinstance(slice_thickness_mm, int | float):
        slice_thickness_mm = [slice_thickness_mm] * len(positions_mm)
    positions: list[float] = []
    thickness: list[float] = []
    for position, thick in sorted(
        (position, thick or 0.0) for position, thick in zip(positions_mm, slice_thickness_mm, strict=True)
    ):
        if positions and position - positions[-1] <= _SAME_POSITION_MM:
            thickness[-1] = max(thickness[-1], thick)
        else:
            positions.append(position)
            thickness.append(thick)
    return positions, thickness


def _usual_step(steps: list[float], index: int) -> float:
    """Median of the five steps nearest to this one, without it; the step itself where it is the only one."""
    near = range(max(0, index - _NEIGHBOURS), min(len(steps), index + _NEIGHBOURS + 1))
    others = sorted((other for other in near if other != index), key=lambda other: abs(other - index))
    return float(median(steps[other] for other in others[:_NEIGHBOURS])) if others else steps[index]
