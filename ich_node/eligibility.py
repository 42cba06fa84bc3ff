"""Is this an axial CT of an adult's head without contrast agent? If not, why not.

One series at a time: the header of each slice, then the Hounsfield values of the planes. Which of several eligible
series of a study is analysed is the matter of ``series_choice``.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from ich_node.image_type import is_capture, is_derived, is_localizer, is_projection
from ich_node.records import ANALYSED_SOP_CLASSES, EligibilityRules, NotAnalysedReason, SliceFacts, TissueMeasure
from ich_node.slice_position import slice_normal, slice_positions_mm

__all__ = ["head_expected", "header_ineligibility", "is_derived", "series_ineligibility", "slice_ineligibility"]

Planes = Sequence[tuple[SliceFacts, TissueMeasure]]
"""What is scored, measured: a slice, or a slab with the facts of its middle slice."""

_SECONDARY_CAPTURE_PREFIX: Final = "1.2.840.10008.5.1.4.1.1.7"
_HU_RESCALE_TYPES: Final = frozenset({"", "HU", "US"})  # US, unspecified, is met in original CT, which has HU anyway
_MAX_TILT_DEGREES: Final = 35.0  # gantries tilt to 30; the rest is for rounding and tilt in the other plane
_MAX_HEAD_EXTENT_MM: Final = 400.0  # head and neck are within 350

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


_USUAL_RULES: Final = EligibilityRules()
_HEAD_ANYWAY: Final = (None, NotAnalysedReason.CONTRAST, NotAnalysedReason.TOO_YOUNG)  # may well show a head


def slice_ineligibility(facts: SliceFacts, rules: EligibilityRules = _USUAL_RULES) -> NotAnalysedReason | None:
    """Say why the header of a slice excludes it, or None. A missing attribute alone excludes nothing but geometry."""
    return _object_ineligibility(facts) or _geometry_ineligibility(facts) or _patient_ineligibility(facts, rules)


def header_ineligibility(
    facts: Sequence[SliceFacts], rules: EligibilityRules = _USUAL_RULES, minimum_slices: int = 10
) -> tuple[NotAnalysedReason, str] | None:
    """Say why the headers of a series exclude it, with a detail, or None."""
    reasons = [slice_ineligibility(one, rules) for one in facts]
    declined = Counter(reason for reason in reasons if reason is not None)
    axial = [one for one, reason in zip(facts, reasons, strict=True) if reason in _HEAD_ANYWAY]
    if not facts:
        return NotAnalysedReason.NO_READABLE_SLICE, ""
    if axial and _names_another_body_part(axial):
        return NotAnalysedReason.NOT_HEAD, ""
    if (extent_mm := _extent_mm(axial)) > _MAX_HEAD_EXTENT_MM:
        return NotAnalysedReason.NOT_HEAD, f"the slices cover {extent_mm:.0f} mm"
    for of_all_slices in (NotAnalysedReason.CONTRAST, NotAnalysedReason.TOO_YOUNG):
        if of_all_slices in declined:
            return of_all_slices, ""
    if not axial:
        return declined.most_common(1)[0][0], ""
    if len(axial) < minimum_slices:
        return NotAnalysedReason.TOO_FEW_SLICES, _count(len(axial), declined)
    return None


def series_ineligibility(
    facts: Sequence[SliceFacts],
    tissues: Planes = (),
    rules: EligibilityRules = _USUAL_RULES,
    minimum_slices: int = 10,
) -> tuple[NotAnalysedReason, str] | None:
    """Say why a series gets no result, with a detail, or None. Without a measured plane the headers alone speak."""
    if (declined := header_ineligibility(facts, rules, minimum_slices)) is not None:
        return declined
    shown = _brain_planes(tissues)
    if rules.pixel_gate and tissues and not _enough(shown, len(tissues)):
        return NotAnalysedReason.NO_BRAIN_FOUND, f"{shown} of {len(tissues)} slices look like brain"
    return None


def head_expected(facts: Sequence[SliceFacts], tissues: Planes = (), rules: EligibilityRules = _USUAL_RULES) -> bool:
    """Tell whether a reader would expect a result for this series: it is a head CT by header or by pixels.

    Localizers, captures, projections and other modalities never count; a head with contrast agent or of a child does.
    """
    expected = (*_HEAD_ANYWAY, NotAnalysedReason.GEOMETRY_MISSING)
    candidates = [one for one in facts if slice_ineligibility(one, rules) in expected]
    if any(one.names_head for one in candidates):
        return True
    if not candidates or _names_another_body_part(candidates):
        return False
    return _enough(_brain_planes(tissues), len(tissues))


def _object_ineligibility(facts: SliceFacts) -> NotAnalysedReason | None:
    if facts.sop_class_uid not in ANALYSED_SOP_CLASSES:
        captured = facts.sop_class_uid.startswith(_SECONDARY_CAPTURE_PREFIX)
        return NotAnalysedReason.SECONDARY if captured else NotAnalysedReason.NOT_CT
    if facts.modality not in ("CT", ""):
        return NotAnalysedReason.NOT_CT
    if is_localizer(facts):
        return NotAnalysedReason.LOCALIZER
    if is_capture(facts):
        return NotAnalysedReason.SECONDARY
    if is_projection(facts) or not _is_in_hu(facts):
        return NotAnalysedReason.PROJECTION
    return None if facts.rows and facts.columns else NotAnalysedReason.NO_PIXEL_DATA


def _is_in_hu(facts: SliceFacts) -> bool:
    return facts.rescale_type in _HU_RESCALE_TYPES and not (is_derived(facts) and facts.rescale_type == "US")


def _geometry_ineligibility(facts: SliceFacts) -> NotAnalysedReason | None:
    normal = slice_normal(facts)
    if normal is None or facts.image_position_patient is None:
        return NotAnalysedReason.GEOMETRY_MISSING
    return None if abs(normal[2]) >= math.cos(math.radians(_MAX_TILT_DEGREES)) else NotAnalysedReason.NOT_AXIAL


def _patient_ineligibility(facts: SliceFacts, rules: EligibilityRules) -> NotAnalysedReason | None:
    none_given = {"", *(value.strip().casefold() for value in rules.no_contrast_values)}
    if facts.contrast_agent.strip().casefold() not in none_given:
        return NotAnalysedReason.CONTRAST
    age = facts.patient_age_years
    return NotAnalysedReason.TOO_YOUNG if age is not None and age < rules.minimum_age_years else None


def _extent_mm(facts: Sequence[SliceFacts]) -> float:
    positions = slice_positions_mm(facts)
    return max(positions) - min(positions) if positions else 0.0


def _names_another_body_part(facts: Sequence[SliceFacts]) -> bool:
    return any(one.names_other_body_part for one in facts) and not any(one.names_head for one in facts)


def _count(eligible: int, declined: Counter[NotAnalysedReason]) -> str:
    left_out = "".join(f", {count} {reason.text}" for reason, count in declined.most_common())
    return f"{eligible} axial{left_out}"


def _brain_planes(tissues: Planes) -> int:
    return sum(_shows_brain(facts, tissue) for facts, tissue in tissues)


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
