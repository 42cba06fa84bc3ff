"""C-STORE response statuses by name (PS3.4 B.2.3, PS3.7 Annex C), and what says that one is to be answered."""

from typing import Final

SUCCESS: Final = 0x0000
"""The object is safe: its bytes are on disk, or in the bucket, and its row is committed."""

OUT_OF_RESOURCES: Final = 0xA700
"""No room, or the database stayed locked, or the object store is away. The sender may try again later."""

DATA_SET_DOES_NOT_MATCH_SOP_CLASS: Final = 0xA900
"""The identifiers in the data set are missing, malformed, or differ from those of the command set."""

CANNOT_UNDERSTAND: Final = 0xC000
"""The data set cannot be parsed, or promises more pixel data than it holds."""

PROCESSING_FAILURE: Final = 0x0110
"""A fault of ours; nothing was stored."""

MEANINGS: Final = {
    SUCCESS: "stored durably, or already stored with the same bytes",
    OUT_OF_RESOURCES: "Refused: out of resources",
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS: "Error: data set does not match SOP Class",
    CANNOT_UNDERSTAND: "Error: cannot understand",
    PROCESSING_FAILURE: "Failure: processing failure",
}


class RefusedDataSet(Exception):
    """The object must not be answered with success.

    Attributes:
        status: the C-STORE status to answer.
        why: what is wrong, without values from the data set.
    """

    def __init__(self, status: int, why: str) -> None:
        self.status = status
        self.why = why
        super().__init__(why)
