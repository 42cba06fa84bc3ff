"""C-STORE responses that are encoded at once are those that pynetdicom encodes."""

from __future__ import annotations

import warnings

import pytest
from pydicom.uid import UID
from pynetdicom.dimse_messages import C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE

from ich_node.receive.store_response import encode_store_response


def response(status: int, class_uid: str | None, instance_uid: str | None) -> C_STORE:
    made = C_STORE()
    made.MessageIDBeingRespondedTo, made.Status = 65_535, status
    made.AffectedSOPClassUID = class_uid
    made._affected_sop_instance_uid = None if instance_uid is None else UID(instance_uid)
    return made


@pytest.mark.parametrize("status", [0x0000, 0xA700, 0xA900, 0xC000, 0x0110])
@pytest.mark.parametrize("instance_uid", ["1.2.3", "1.2.34", None], ids=["odd", "even", "none"])
def test_they_are_byte_for_byte_the_same(status: int, instance_uid: str | None) -> None:
    answer = response(status, "1.2.840.10008.5.1.4.1.1.2", instance_uid)
    message = C_STORE_RSP()
    message.primitive_to_message(answer)
    (data,) = message.encode_msg(1, 16384)
    ((_, value),) = data.presentation_data_value_list
    assert value[1:] == encode_store_response(answer)
    assert value[:1] == b"\3"


def test_what_holds_more_is_left_to_pynetdicom() -> None:
    with_comment = response(0xC000, "1.2.840.10008.5.1.4.1.1.2", "1.2.3")
    with_comment.ErrorComment = "why"
    assert encode_store_response(with_comment) is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a UID too long for any
        assert encode_store_response(response(0xA900, None, "1." * 40 + "1")) is None
    assert encode_store_response(C_STORE()) is None, "a request"
