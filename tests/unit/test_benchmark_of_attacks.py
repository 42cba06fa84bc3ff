"""What the benchmark of damaged objects takes for a refusal: an answer that came, and never a silence."""

from __future__ import annotations

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from benchmarks.hostile_objects import KINDS, is_right
from benchmarks.raw_sender import NotAccepted, RawSender
from tests.outbox import peer

WHOLE, *DAMAGED = KINDS
ANSWERS = ("0x0000", "0xC000", "0xA700", "not accepted", "association ended", "no answer in 5 s")


@pytest.mark.parametrize(
    ("kind", "right"),
    [(WHOLE, {"0x0000"}), *((kind, {"0xC000", "0xA700"}) for kind in DAMAGED), ("deflated, 512 MiB", {"not accepted"})],
)
def test_only_an_answer_that_came_is_counted_as_right(kind: str, right: set[str]) -> None:
    assert {answer for answer in ANSWERS if is_right(kind, answer)} == right


def test_an_association_whose_only_context_is_refused_is_not_accepted() -> None:
    with peer(lambda _: 0x0000, classes=(CTImageStorage,)) as port:
        with RawSender(port, CTImageStorage, ExplicitVRLittleEndian) as sender:
            assert sender.store("1.2.3", b"any") == 0x0000
        with pytest.raises(NotAccepted):
            RawSender(port, CTImageStorage, "1.2.3.4")
