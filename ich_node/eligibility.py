"""Is this an original axial CT of the head? If not, why not.

First version: one series at a time, judged by the header of each slice and by the Hounsfield values of all of them.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from ich_node.records import ANALYSED_SOP_CLASSES, NotAnalysedReason, SliceFacts, TissueMeasure

_SECONDARY_CAPTURE_PREFIX: Final = "1.2.840.10008.5.1.4.1.1.7"
_LOCALIZER_TYPES: Final = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM"})
_REFORMATTED_TYPES: Final = frozenset({"MPR", "CSA MPR", "REFORMATTED", "MIP", "CSA MIP", "MINIP", "PROJECTION IMAGE"})
_MAX_TILT_DEGREES: Final = 35.0  # gantries tilt to 30; the rest is for rounding and tilt in the other plane

# A slice shows brain when all of these hold. Seen where brain is cut (CQ500, 7 heads; a GE head) against what must not
# pass (plastic head, chest, MR read as HU):
#                     real heads        plastic head    chest           MR
#   brain fraction    0.41 to 0.79      0.04 to 0.22    0.36 to 0.40    0.4 to 0.7
#   median inside     25 to 59 HU       52 to 107 HU    33 to 47 HU     35 to 99
#   bone fraction     0.10 to 0.30      0.13 to 0.64    0.07 to 0.10    0.01 to 0.4
#   lung or fat       0.00 to 0.18      0.06 to 0.31    0.40 to 0.44    0
#   body area         60 to 290 cm²     13 to 100 cm²   439 to 447 cm²  the whole image
_BRAIN_FRACTION: Final = 0.35
_MEDIAN_HU: Final = (10.0, 65.0)
_BONE_FRACTION: Final = (0.05, 0.50)
_MAX_LUNG_FRACTION: Final = 0.30
_MAX_BODY_FRACTION: Final = 0.90
_MAX_BODY_AREA_CM2: Final = 400.0
# The share of such slices: 0.80 to 0.87 in the eight heads, 0 in the others. A whole-body CT has a few per cent.
_BRAIN_SLICE_SHARE: Final = 0.25
_MINIMUM_BRAIN_SLICES: Final = 3


def slice_ineligibility(facts: SliceFacts) -> NotAnalysedReason | None:
    """Say why the header of a slice excludes it, or None. A missing attribute alone excludes nothing but geometry."""
    if facts.sop_class_uid not in ANALYSED_SOP_CLASSES:
        is_capture = facts.sop_class_uid.startswith(_SECONDARY_CAPTURE_PREFIX)
        return NotAnalysedReason.SECONDARY if is_capture else NotAnalysedReason.NOT_CT
    if facts.modality not in ("CT", ""):
        return NotAnalysedReason.NOT_CT
    if _LOCALIZER_TYPES.intersection(facts.image_type):
        return NotAnalysedReason.LOCALIZER
    if _is_derived(facts.image_type):
        return NotAnalysedReason.SECONDARY
    if not facts.rows or not facts.columns:
        return NotAnalysedReason.NO_PIXEL_DATA
    return _geometry_ineligibility(facts)


def series_ineligibility(facts: Sequence[SliceFacts], minimum_slices: int = 10) -> tuple[NotAnalysedReason, str] | None:
    """Say why a series gets no result, with a detail, or None. Slices without a tissue measure are judged by header."""
    reasons = [slice_ineligibility(one) for one in facts]
    eligible = [one for one, reason in zip(facts, reasons, strict=True) if reason is None]
    declined = Counter(reason for reason in reasons if reason is not None)
    if not facts:
        return NotAnalysedReason.NO_READABLE_SLICE, ""
    if not eligible:
        return declined.most_common(1)[0][0], ""
    if _names_another_body_part(eligible):
        return NotAnalysedReason.NOT_HEAD, ""
    if len(eligible) < minimum_slices:
        return NotAnalysedReason.TOO_FEW_SLICES, _count(len(eligible), declined)
    shown, measured = _brain_slices(eligible)
    if measured and not _enough(shown, measured):
        return NotAnalysedReason.NO_BRAIN_FOUND, f"{shown} of {measured} slices look like brain"
    return None


def head_expected(facts: Sequence[SliceFacts]) -> bool:
    """Tell whether a reader would expect a result for this series: it is a head CT by header or by pixels.

    Localizers, secondary captures and other modalities never count.
    """
    candidates = [one for one in facts if slice_ineligibility(one) in (None, NotAnalysedReason.GEOMETRY_MISSING)]
    if any(one.names_head for one in candidates):
        return True
    return not _names_another_body_part(candidates) and _enough(*_brain_slices(candidates))


def _is_derived(image_type: tuple[str, ...]) -> bool:
    """ImageType (PS3.3 C.7.6.1.1.2). ORIGINAL\\SECONDARY\\AXIAL is a scanner's second reconstruction, not a capture."""
    if "DERIVED" in image_type[:1] or _REFORMATTED_TYPES.intersection(image_type):
        return True
    return "SECONDARY" in image_type[1:2] and "AXIAL" not in image_type


def _geometry_ineligibility(facts: SliceFacts) -> NotAnalysedReason | None:
    if facts.image_position_patient is None or facts.image_orientation_patient is None:
        return NotAnalysedReason.GEOMETRY_MISSING
    orientation = np.asarray(facts.image_orientation_patient)
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    if length < 0.5:  # rows and columns should be unit vectors at a right angle
        return NotAnalysedReason.GEOMETRY_MISSING
    upright = abs(float(normal[2])) / length
    return None if upright >= np.cos(np.radians(_MAX_TILT_DEGREES)) else NotAnalysedReason.NOT_AXIAL


def _names_another_body_part(facts: Sequence[SliceFacts]) -> bool:
    return any(one.names_other_body_part for one in facts) and not any(one.names_head for one in facts)


def _count(eligible: int, declined: Counter[NotAnalysedReason]) -> str:
    left_out = "".join(f", {count} {reason.text}" for reason, count in declined.most_common())
    return f"{eligible} axial{left_out}"


def _brain_slices(facts: Sequence[SliceFacts]) -> tuple[int, int]:
    """Count the slices that show brain, and those measured at all."""
    measured = [(one, one.tissue) for one in facts if one.tissue is not None]
    return sum(_shows_brain(one, tissue) for one, tissue in measured), len(measured)


def _enough(shown: int, measured: int) -> bool:
    return shown >= max(_MINIMUM_BRAIN_SLICES, _BRAIN_SLICE_SHARE * measured)


def _shows_brain(facts: SliceFacts, tissue: TissueMeasure) -> bool:
    spacing = facts.pixel_spacing_mm
    pixel_cm2 = spacing[0] * spacing[1] / 100.0 if spacing else 0.0  # unknown spacing: area cannot speak
    return (
        tissue.brain_fraction >= _BRAIN_FRACTION
        and _MEDIAN_HU[0] <= tissue.brain_median_hu <= _MEDIAN_HU[1]
        and _BONE_FRACTION[0] <= tissue.bone_fraction <= _BONE_FRACTION[1]
        and tissue.lung_or_fat_fraction <= _MAX_LUNG_FRACTION
        and tissue.body_fraction <= _MAX_BODY_FRACTION
        and tissue.body_fraction * facts.rows * facts.columns * pixel_cm2 <= _MAX_BODY_AREA_CM2
    )
