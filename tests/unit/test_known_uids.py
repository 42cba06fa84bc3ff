"""pynetdicom looks at a valid UID once; what it says of any UID stays as it was."""

from __future__ import annotations

import logging

import pytest
from pydicom.uid import UID
from pynetdicom import build_context, pdu_items, presentation
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.utils import set_uid

from ich_node.receive.association_request import read_association_request
from ich_node.receive.known_uids import SetUid, look_at_each_uid_once, remembering

CT, LONG = "1.2.840.10008.5.1.4.1.1.2", "1." + "2" * 80
pytestmark = [pytest.mark.filterwarnings(f"ignore:{what}") for what in ("Invalid value for VR UI", "The value length")]
RULES = [(), (True, False), (False,), (True, True, False)]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("value", [CT, CT.encode(), UID(CT), "1.02.3", "abc", "", b"", None, LONG, "1.2.3 ", 7])
def test_what_is_said_of_a_uid_stays_the_same(value: object, rules: tuple[bool, ...]) -> None:
    remembered = remembering(set_uid)
    for _ in range(3):
        assert said_by(remembered, value, rules) == said_by(set_uid, value, rules)


def said_by(function: SetUid, value: object, rules: tuple[bool, ...]) -> tuple[str, object, type]:
    try:
        uid = function(value, "SOP Class UID", *rules)
    except (ValueError, TypeError) as error:
        return "refused", str(error), type(error)
    return "taken", uid, type(uid)


def test_a_valid_uid_is_looked_at_once_and_any_other_each_time() -> None:
    looks: list[object] = []

    def counting(value: str, name: str) -> UID:
        looks.append((value, name))
        return UID(value)

    remembered = remembering(counting)
    for _ in range(3):
        remembered(CT, "abstract")
        remembered(CT, "transfer")
    assert looks == [(CT, "abstract"), (CT, "transfer")]
    looks.clear()
    for _ in range(3):
        remembered("1.02.3", "abstract")
        remembered(LONG, "abstract")
    assert len(looks) >= 6


def test_what_is_wrong_with_a_uid_is_logged_each_time(caplog: pytest.LogCaptureFixture) -> None:
    remembered = remembering(set_uid)
    with caplog.at_level(logging.WARNING, "pynetdicom"):
        for _ in range(2):
            remembered("1.02.3", "SOP Class UID")
    assert sum("Non-conformant" in record.message for record in caplog.records) >= 2


def test_pynetdicom_remembers_where_it_reads_and_writes_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is by these names that it asks: another version may not."""
    for module in (pdu_items, presentation):
        monkeypatch.setattr(module, "set_uid", set_uid)
    before = read_association_request(request()).pdu
    look_at_each_uid_once()
    once = [module.set_uid for module in (pdu_items, presentation)]
    look_at_each_uid_once()
    assert [module.set_uid for module in (pdu_items, presentation)] == once
    assert all(one.__wrapped__ is set_uid for one in once)
    after = read_association_request(request()).pdu
    assert A_ASSOCIATE_RQ(after.primitive).encode() == A_ASSOCIATE_RQ(before.primitive).encode() == request()
    assert proposed_by(after.primitive) == proposed_by(before.primitive)
    assert len(proposed_by(after.primitive)) == 59


def test_a_request_is_read_once_though_it_is_asked_for_twice() -> None:
    asked = read_association_request(request()).pdu
    assert asked.to_primitive() is asked.to_primitive()
    plain = A_ASSOCIATE_RQ()
    plain.decode(request())
    assert proposed_by(plain.to_primitive()) == proposed_by(asked.to_primitive())


def proposed_by(primitive: object) -> list[tuple[object, ...]]:
    assert isinstance(primitive, A_ASSOCIATE)
    contexts = primitive.presentation_context_definition_list
    return [(one.context_id, one.abstract_syntax, tuple(one.transfer_syntax)) for one in contexts]


def request() -> bytes:
    asked = A_ASSOCIATE()
    asked.application_context_name = "1.2.840.10008.3.1.1.1"
    asked.calling_ae_title, asked.called_ae_title = "SCANNER", "ICH_NODE"
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    implementation.implementation_class_uid = UID("1.2.3")
    asked.user_information = [length, implementation]
    contexts = [build_context(f"1.2.840.10008.5.1.4.1.1.{number}") for number in range(1, 60)]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    asked.presentation_context_definition_list = contexts
    pdu = A_ASSOCIATE_RQ(asked)
    return bytes(pdu.encode())
