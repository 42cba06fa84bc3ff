"""``python -m ich_node.self_test.sending ORDER``: the child process that draws the phantom and sends it.

Drawing takes 100 MiB and more. A process that ends gives all of it back, and the deliverer keeps its size.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from pydicom import Dataset

from ich_node.association import Patience, associate
from ich_node.errors import DestinationRefuses, IchNodeError
from ich_node.log import silence_libraries
from ich_node.phantom import PhantomSettings, make_series
from ich_node.records import CT_IMAGE_STORAGE
from ich_node.records.self_tests import (
    SELF_TEST_AE_TITLE,
    SELF_TEST_ISSUER,
    SELF_TEST_PATIENT_ID,
    SELF_TEST_PATIENT_NAME,
)
from ich_node.self_test.order import SPACING_MM, SendingOrder

_LOW: Final = 2
"""Priority of the C-STORE requests (PS3.7 9.3.1.1)."""
_NICENESS: Final = 10
_TRIES: Final = 4
_PAUSE_S: Final = 5.0


def draw(order: SendingOrder) -> list[Dataset]:
    """Make the phantom: always the same pixels, so that the same network must say the same of them."""
    settings = PhantomSettings(
        lesion=order.lesion, slices=order.slices, rows=order.rows, slice_spacing_mm=SPACING_MM, seed=0,
        patient_name=SELF_TEST_PATIENT_NAME, patient_id=SELF_TEST_PATIENT_ID, accession_number="",
        study_instance_uid=order.study_instance_uid,
    )  # fmt: skip
    instances = make_series(settings)
    for one in instances:
        one.IssuerOfPatientID = SELF_TEST_ISSUER
        one.StationName = "SELF-TEST"
        one.StudyDescription = "SELF-TEST OF ICH-NODE: A PHANTOM, NO PATIENT"
    return instances


def send(order: SendingOrder, instances: Sequence[Dataset]) -> str:
    """Send them in one association; say what went wrong, or nothing.

    Raises:
        DestinationUnavailable, DestinationRefuses: the receiver takes no association, or ended it.
        OSError, ValueError: our certificate does not serve.
    """
    patience = Patience(order.connect_s, order.response_s)
    with associate(order.destination(), SELF_TEST_AE_TITLE, [CT_IMAGE_STORAGE], patience) as association:
        for number, one in enumerate(instances, 1):
            status = association.send_c_store(one, priority=_LOW).get("Status")
            if status != 0x0000:
                said = "nothing" if status is None else f"0x{status:04X}"
                return f"the receiver answered slice {number} with {said}"
    return ""


def send_patiently(order: SendingOrder, instances: Sequence[Dataset]) -> str:
    """Send them; where the receiver takes no association, as when it is full, come again, as every sender does.

    Raises:
        DestinationUnavailable, DestinationRefuses, OSError, ValueError: as `send`, after the last try.
    """
    for _ in range(_TRIES - 1):
        try:
            return send(order, instances)
        except DestinationRefuses:
            time.sleep(_PAUSE_S)
    return send(order, instances)


def main() -> int:
    """Do the order that the one argument holds; say on standard output when it began, and what went wrong."""
    silence_libraries()
    with suppress(OSError):  # which the units' sandbox forbids
        os.nice(_NICENESS)  # no patient waits for it
    order = SendingOrder.from_json(sys.argv[1])
    instances = draw(order)
    began = time.monotonic()
    try:
        fault = send_patiently(order, instances)
    except (IchNodeError, OSError, ValueError, RuntimeError) as error:
        fault = f"the receiver does not take it: {error}"
    sys.stdout.write(json.dumps({"began": began, "fault": fault}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
