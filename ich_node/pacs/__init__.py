"""A small PACS for the demo and the tests: answers C-ECHO, keeps every object it is sent, says what it holds."""

from ich_node.pacs.small_pacs import (
    CANNOT_UNDERSTAND,
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
    OUT_OF_RESOURCES,
    SUCCESS,
    SmallPacs,
    send_study,
)

__all__ = [
    "CANNOT_UNDERSTAND",
    "DATA_SET_DOES_NOT_MATCH_SOP_CLASS",
    "OUT_OF_RESOURCES",
    "SUCCESS",
    "SmallPacs",
    "send_study",
]
