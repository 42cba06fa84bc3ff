"""Files → slices in Hounsfield units, in child processes with limits.

``instance`` is the stage itself: ``file`` opens, ``header`` reads facts, ``codec`` turns pixel data into stored values,
``hounsfield`` turns those into HU, ``tissue`` measures them. ``geometry`` orders slices, ``pool`` runs it in children.
"""

from ich_node.decode.geometry import anatomical_order, position_along_normal_mm, sort_slices
from ich_node.decode.instance import DecodedInstance, read_facts, read_instance, read_slices
from ich_node.decode.limits import DecodeLimits
from ich_node.decode.pool import DecoderPool, DecodeTask

__all__ = [
    "DecodeLimits",
    "DecodeTask",
    "DecodedInstance",
    "DecoderPool",
    "anatomical_order",
    "position_along_normal_mm",
    "read_facts",
    "read_instance",
    "read_slices",
    "sort_slices",
]
