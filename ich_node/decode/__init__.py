"""Files → slices in Hounsfield units, in child processes with limits.

``instance`` reads what arrived, ``plane`` what is scored: ``file`` opens, ``header`` reads facts, ``frames`` takes
single frames out, ``codec`` turns pixel data into stored values, ``hounsfield`` turns those into HU, ``tissue``
measures them, ``identity`` compares whose and which picture it is. ``geometry`` orders slices, ``pool`` runs it all in
children.
"""

from ich_node.decode.geometry import anatomical_order, position_along_normal_mm, sort_slices
from ich_node.decode.instance import DecodedInstance, read_facts, read_instance, read_slices
from ich_node.decode.limits import DecodeLimits
from ich_node.decode.plane import DecodedPlane, MemberFile, make_plane
from ich_node.decode.pool import DecoderPool, DecodeTask, PlaneTask

__all__ = [
    "DecodeLimits",
    "DecodeTask",
    "DecodedInstance",
    "DecodedPlane",
    "DecoderPool",
    "MemberFile",
    "PlaneTask",
    "anatomical_order",
    "make_plane",
    "position_along_normal_mm",
    "read_facts",
    "read_instance",
    "read_slices",
    "sort_slices",
]
