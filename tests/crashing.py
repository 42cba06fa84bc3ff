"""What a decoding child is given instead of the eligibility of slices, to make it crash. Light: children import it."""

import os
import signal

from ich_node.eligibility import slice_ineligibility
from ich_node.records import NotAnalysedReason, SliceFacts


def kill_the_child_at_slice_7(facts: SliceFacts) -> NotAnalysedReason | None:
    """Die as a codec does that writes where it must not."""
    if facts.instance_number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return slice_ineligibility(facts)
