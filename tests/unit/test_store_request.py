"""C-STORE requests that are decoded at once are those that pynetdicom decodes; whatever else comes is left to it."""

from __future__ import annotations

import random
import struct
import warnings
from io import BytesIO

import pytest
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA

from ich_node.receive.store_request import ReceivedValues, StoreRequest, usual_store_request

CT = "1.2.840.10008.5.1.4.1.1.2"


def request(instance_uid: str = "1.2.3", priority: int = 2, message_id: int = 7, **more: object) -> C_STORE:
    made = C_STORE()
    made.MessageID, made.Priority, made.AffectedSOPClassUID, made.AffectedSOPInstanceUID = (
        message_id,
        priority,
        CT,
        instance_uid,
    )
    made.DataSet = BytesIO(b"\0" * 100)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def fragments(primitive: C_STORE | C_ECHO, longest: int = 16384) -> list[tuple[int, bytes]]:
    """Give a message as pynetdicom sends it."""
    message = C_STORE_RQ() if isinstance(primitive, C_STORE) else C_ECHO_RQ()
    message.primitive_to_message(primitive)
    return [value for data in message.encode_msg(5, longest) for value in data.presentation_data_value_list]


def decoded_by_pynetdicom(*values: tuple[int, bytes]) -> C_STORE:
    message = DIMSEMessage()
    for value in values:
        data = P_DATA()
        data.presentation_data_value_list = [list(value)]  # type: ignore[list-item]  # a list
        message.decode_msg(data)
    primitive = message.message_to_primitive()
    assert isinstance(primitive, C_STORE)
    return primitive


def comparable(primitive: C_STORE) -> dict[str, object]:
    names = [*C_STORE.REQUEST_KEYWORDS, "MoveOriginatorApplicationEntityTitle", "MoveOriginatorMessageID"]
    return {name: getattr(primitive, name) for name in names if name != "DataSet"} | {"context": primitive._context_id}


@pytest.mark.parametrize("instance_uid", ["1.2.3", "1.2.34", "2.25." + "9" * 39, "1." + "2" * 62])
@pytest.mark.parametrize("priority", [0, 1, 2])
def test_a_usual_request_is_what_pynetdicom_makes_of_it(instance_uid: str, priority: int) -> None:
    command, data = fragments(request(instance_uid, priority, 65_535))
    ours = usual_store_request(*command)
    assert ours is not None
    coming = StoreRequest(ours, BytesIO())
    assert coming.take(memoryview(data[1]))
    theirs = decoded_by_pynetdicom(command, data)
    assert comparable(ours) == comparable(theirs)
    assert ours.is_valid_request
    assert ours.DataSet is not None
    assert theirs.DataSet is not None
    assert ours.DataSet.getvalue() == theirs.DataSet.getvalue()


def test_a_data_set_in_fragments_is_whole_with_the_last() -> None:
    made = request()
    made.DataSet = BytesIO(bytes(range(256)) * 20)
    command, *data = fragments(made, 1000)
    ours = usual_store_request(*command)
    assert ours is not None
    coming = StoreRequest(ours, BytesIO())
    assert [coming.take(fragment) for _, fragment in data] == [False] * (len(data) - 1) + [True]
    assert len(data) > 3
    assert ours.DataSet is not None
    assert ours.DataSet.getvalue() == made.DataSet.getvalue()


def test_a_command_in_the_middle_of_a_data_set_is_refused() -> None:
    command, _ = fragments(request())
    ours = usual_store_request(*command)
    assert ours is not None
    with pytest.raises(ValueError, match="in the middle"):
        StoreRequest(ours, BytesIO()).take(command[1])


def test_what_is_not_usual_is_left_to_pynetdicom() -> None:
    echo = C_ECHO()
    echo.MessageID, echo.AffectedSOPClassUID = 1, "1.2.840.10008.1.1"
    of_a_move = request(MoveOriginatorApplicationEntityTitle="PACS", MoveOriginatorMessageID=3)
    for primitive in (echo, of_a_move):
        assert usual_store_request(*fragments(primitive)[0]) is None
    context_id, command = fragments(request())[0]
    half, data_set = b"\1" + command[1:40], b"\2" + command[1:]
    for other in (b"", b"\3", half, data_set, command[:-1], command + b"\0", command + command[1:]):
        assert usual_store_request(context_id, other) is None


@pytest.mark.parametrize("uid", ["1.02.3", "1..2", ".1", "1.2.", "1 2", "1.2\n"])
def test_a_uid_that_is_none_is_left_to_pynetdicom(uid: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = request()
    context_id, command = fragments(made)[0]
    changed = uid.encode().ljust(6, b"\0")
    element = struct.pack("<HHL", 0, 0x1000, 6)
    before = command.index(element)
    assert usual_store_request(context_id, command[: before + 8] + changed + command[before + 14 :]) is None


def test_damaged_commands_are_left_to_pynetdicom_or_are_read_alike() -> None:
    """Whatever byte is changed: where we give a request, it is the one that pynetdicom gives."""
    chance = random.Random(5)
    (context_id, command), data = fragments(request("1.2.840.113619.2.55"))
    read = 0
    for position in range(1, len(command)):
        for value in chance.sample(range(256), 12):
            changed = command[:position] + bytes([value]) + command[position + 1 :]
            if (ours := usual_store_request(context_id, changed)) is not None:
                read += 1
                assert comparable(ours) == comparable(decoded_by_pynetdicom((context_id, changed), data))
    assert read > 50


def test_values_of_a_pdu_are_those_that_pynetdicom_finds() -> None:
    values = [(1, b"\0" + b"a" * 1000), (3, b"\2b"), (255, b"\3" + bytes(range(256)))]
    primitive = P_DATA()
    primitive.presentation_data_value_list = [list(one) for one in values]  # type: ignore[misc]  # lists
    encoded = bytearray(P_DATA_TF(primitive).encode())
    found = ReceivedValues(encoded).to_primitive().presentation_data_value_list
    assert [(context_id, bytes(value)) for context_id, value in found] == values
    assert ReceivedValues(encoded[:6]).to_primitive().presentation_data_value_list == []


def test_a_value_that_is_not_whole_is_no_pdu() -> None:
    head = b"\4\0\0\0\0\0"
    for rest in (b"\0", b"\0\0\0\1\1", b"\0\0\0\0\1", b"\0\0\0\4\1ab", b"\xff\xff\xff\xff\1ab", b"\0\0\0\3\1ab\0\0"):
        with pytest.raises(ValueError, match="not whole"):
            ReceivedValues(bytearray(head + rest))
