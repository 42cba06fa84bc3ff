"""A PACS that is asked for storage commitment, commits to what it holds and to nothing else, and notes what it said.

Half of its answers come on the association of the request, half on one of its own to the receiver; it repeats each
until the node has answered with success, as PACS do.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association

from ich_node.pacs import SmallPacs

PUSH_MODEL, PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
_ALL_COMMITTED, _FAILURES_EXIST = 1, 2
_NO_SUCH_OBJECT = 0x0112
_LONGEST_S = 600.0


@dataclass
class CommittingPacs(SmallPacs):
    """The small PACS, and storage commitment."""

    node_host: str = "127.0.0.1"
    node_port: int = 0
    holds: Callable[[str], bool] = lambda _: False
    note: Callable[..., None] = lambda **_: None
    """Told every answer before it is given, and again with what the node answered to it."""
    _asked: int = 0

    def _offer_contexts(self, event: evt.Event) -> None:
        super()._offer_contexts(event)
        event.assoc.acceptor.supported_contexts = [*event.assoc.acceptor.supported_contexts, build_context(PUSH_MODEL)]
        event.assoc.bind(evt.EVT_N_ACTION, self._on_action)

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        self._asked += 1
        arguments = (event.action_information, event.assoc if self._asked % 2 else None)
        threading.Thread(target=self._answer, args=arguments, daemon=True).start()
        return 0x0000, None

    def _answer(self, asked: Dataset, association: Association | None) -> None:
        answer, event_type = Dataset(), _ALL_COMMITTED
        answer.TransactionUID = asked.TransactionUID
        committed = [one for one in asked.ReferencedSOPSequence if self.holds(one.ReferencedSOPInstanceUID)]
        failed = [one for one in asked.ReferencedSOPSequence if one not in committed]
        if committed:
            answer.ReferencedSOPSequence = committed
        if failed:
            event_type = _FAILURES_EXIST
            answer.FailedSOPSequence = failed
            for one in failed:
                one.FailureReason = _NO_SUCH_OBJECT
        uids = [str(one.ReferencedSOPInstanceUID) for one in committed]
        if association is not None:
            time.sleep(0.05)  # our response to the request goes first
            if self._say(association, answer, event_type, uids) == 0:
                return
        deadline = time.monotonic() + _LONGEST_S
        while time.monotonic() < deadline and not self._on_one_of_its_own(answer, event_type, uids):
            time.sleep(0.1)

    def _on_one_of_its_own(self, answer: Dataset, event_type: int, uids: list[str]) -> bool:
        entity = AE(ae_title=self.ae_title)
        entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = 30
        entity.add_requested_context(PUSH_MODEL)
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # the receiver is being killed
            roles = [build_role(PUSH_MODEL, scp_role=True)]
            association = entity.associate(self.node_host, self.node_port, ae_title="ICH_NODE", ext_neg=roles)
            if association.is_established:
                status = self._say(association, answer, event_type, uids)
                association.release()
                return status == 0
        return False

    def _say(self, association: Any, answer: Dataset, event_type: int, uids: list[str]) -> int | None:
        said = {"transaction": str(answer.TransactionUID), "committed": uids}
        self.note(**said, status=None)
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            told, _ = association.send_n_event_report(answer, event_type, PUSH_MODEL, PUSH_MODEL_INSTANCE)
            status = told.get("Status")
            if status is not None:
                self.note(**said, status=int(status))
                return int(status)
        return None
