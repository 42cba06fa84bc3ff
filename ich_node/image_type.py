"""What ImageType or FrameType says an image is (PS3.3 C.7.6.1.1.2, C.8.2.1.1.1, C.8.15.3.2)."""

import re
from typing import Final

from ich_node.records import SliceFacts

# Words, wherever they stand: Siemens writes "CT_SOM5 MIP", GE "PROJECTION IMAGE".
_LOCALIZER: Final = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "TOP", "SCANOGRAM", "SURVIEW"})
_CAPTURE: Final = frozenset(
    {
        "SCREEN", "SAVE", "CAPTURE", "PATIENT", "DOSE", "PROT", "PROTOCOL", "REPORT", "SUMMARY", "RESULT", "TEXT",
        "GRAPH",
    }
)  # fmt: skip
_PROJECTION: Final = frozenset(
    {
        "MIP", "MINIP", "MIN", "MAXIMUM", "MINIMUM", "PROJECTION", "PJN", "RAYSUM",
        "PERFUSION", "CBF", "CBV", "MTT", "TTP", "TMAX", "TTD", "PBV", "RCBF", "RCBV",
        "MAP", "QUANTITY", "IODINE", "VNC", "ZEFF", "SUBTRACTION", "SUBTRACTED", "MASKED", "MULTIPLICATION", "DIVISION",
        "DEVIATION", "FUSED", "FUSION",
        "3D", "VRT", "VR", "VOLREN", "RENDERING", "RENDERED", "SSD", "MPVR", "CURVED",
    }
)  # fmt: skip


def is_localizer(facts: SliceFacts) -> bool:
    return bool(_words(facts) & _LOCALIZER)


def is_capture(facts: SliceFacts) -> bool:
    """Tell a picture of a screen or a page from a slice.

    SECONDARY alone does not: ORIGINAL\\SECONDARY\\AXIAL is a scanner's second reconstruction, DERIVED\\SECONDARY\\MPR a
    reformat. A projection that is called OTHER is a projection.
    """
    words = _words(facts)
    other = "SECONDARY" in facts.image_type[1:2] and "OTHER" in words and not words & _PROJECTION
    return other or bool(words & _CAPTURE)


def is_projection(facts: SliceFacts) -> bool:
    """Tell projections, maps and renderings from slices."""
    return bool(_words(facts) & _PROJECTION)


def is_derived(facts: SliceFacts) -> bool:
    """Tell whether a slice was made from others, or compressed with loss: ImageType value 1."""
    return facts.image_type[:1] == ("DERIVED",)


def _words(facts: SliceFacts) -> set[str]:
    return set(re.findall(r"[^\W_]+", " ".join(facts.image_type)))
