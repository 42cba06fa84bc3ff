"""Write the tables of the conformance statement from the code: ``python -m docs.generate`` (``make docs``).

A table stands between ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->``; everything else is written by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Final

from highdicom.sr import CodedConcept
from pydicom.uid import (
    UID,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)

from ich_node import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    association,
    deliver,
    query_retrieve,
    storage_commitment,
    tls,
)
from ich_node.audit import events as audit_events
from ich_node.config import Config
from ich_node.receive import negotiation, statuses, transport
from ich_node.receive.scp import listening
from ich_node.records import ANALYSED_SOP_CLASSES, FAILURE_REASONS, HEMORRHAGE_CLASSES, Presence, Triage
from ich_node.report import codes, content, structured_report

CONFORMANCE_STATEMENT: Final = Path(__file__).with_name("conformance-statement.md")
_VERIFICATION: Final = "1.2.840.10008.1.1"
_PART: Final = re.compile(r"(<!-- generated: (?P<name>[a-z_]+) -->\n).*?(<!-- end of (?P=name) -->)", re.DOTALL)

_DEFAULT: Final = Config()
_QUERIES: Final = (
    ("STUDY", query_retrieve.STUDY_KEYS),
    ("SERIES", query_retrieve.SERIES_KEYS),
    ("IMAGE", query_retrieve.IMAGE_KEYS),
)
_ARCHIVE_REQUESTS: Final = (
    ("C-FIND", "STUDY", query_retrieve.LISTED_STUDY_KEYS),
    ("C-FIND", "SERIES", query_retrieve.LISTED_SERIES_KEYS),
    ("C-FIND", "IMAGE", query_retrieve.IMAGE_KEYS),
    ("C-MOVE", "SERIES", query_retrieve.MOVE_KEYS),
)

_CONFIGURED: Final = (
    ("`node.ae_title`", "AE title, as SCP and as SCU", _DEFAULT.node.ae_title),
    ("`node.bind`", "address it listens on", _DEFAULT.node.bind),
    ("`node.port`", "TCP port it listens on", _DEFAULT.node.port),
    ("`tls.port`", "TCP port it listens on with TLS, where there is a certificate", _DEFAULT.tls.port),
    (
        "`tls.require_client_certificate`",
        "who shows no certificate is refused",
        str(_DEFAULT.tls.require_client_certificate).lower(),
    ),
    ("`tls.plain_port_open`", "plain DICOM beside TLS", str(_DEFAULT.tls.plain_port_open).lower()),
    ("`receiver.maximum_pdu_kib`", "longest PDU it asks peers to send, KiB", _DEFAULT.receiver.maximum_pdu_kib),
    (
        "`receiver.maximum_object_mib`",
        "longest object, MiB; who sends more is cut off",
        _DEFAULT.receiver.maximum_object_mib,
    ),
    ("`receiver.maximum_associations`", "associations at the same time", _DEFAULT.receiver.maximum_associations),
    (
        "`receiver.maximum_associations_per_address`",
        "of those, from one address; 0: three quarters",
        _DEFAULT.receiver.maximum_associations_per_address,
    ),
    ("`receiver.idle_timeout_s`", "time-out between messages (ARTIM apart), s", _DEFAULT.receiver.idle_timeout_s),
    ("`receiver.allow_any`", "anybody may send", str(_DEFAULT.receiver.allow_any).lower()),
    ("`receiver.accept`", "storage classes accepted: all, or CT only", _DEFAULT.receiver.accept),
    ("`receiver.reserve_mib`", "space that stays free on the disk, MiB", _DEFAULT.receiver.reserve_mib),
    ("`delivery.connect_timeout_s`", "SCU: time-out of the connection, s", _DEFAULT.delivery.connect_timeout_s),
    ("`delivery.response_timeout_s`", "SCU: time-out of ACSE and DIMSE, s", _DEFAULT.delivery.response_timeout_s),
    ("`delivery.first_retry_s`", "SCU: first pause before another try, s", _DEFAULT.delivery.first_retry_s),
    ("`delivery.longest_retry_s`", "SCU: longest pause before another try, s", _DEFAULT.delivery.longest_retry_s),
    ("`delivery.give_up_days`", "SCU: days after which a delivery is DEAD", _DEFAULT.delivery.give_up_days),
    ("`delivery.refused_tries`", "SCU: refusals after which it is DEAD", _DEFAULT.delivery.refused_tries),
    ("`delivery.paused_retry_s`", "SCU: pause of a destination that rejects us, s", _DEFAULT.delivery.paused_retry_s),
    (
        "`delivery.commitment_wait_h`",
        "SCU: time until storage commitment is asked again, h",
        _DEFAULT.delivery.commitment_wait_h,
    ),
    (
        "`delivery.commitment_stay_s`",
        "SCU: time an association stays open for its answer, s",
        _DEFAULT.delivery.commitment_stay_s,
    ),
)

_AFTERWARDS: Final = {
    deliver.Verdict.DELIVERED: "Delivered. A warning (Bxxx) is kept and shown by `ich-node status`.",
    deliver.Verdict.TRY_AGAIN: (
        f"Tried again with growing pauses, {_DEFAULT.delivery.first_retry_s:g} s to "
        f"{_DEFAULT.delivery.longest_retry_s:g} s; DEAD after {_DEFAULT.delivery.give_up_days:g} days."
    ),
    deliver.Verdict.REFUSED: f"Tried {_DEFAULT.delivery.refused_tries} times, then DEAD: a person must look.",
}


def main() -> int:
    """Bring the conformance statement up to date; say whether it was not."""
    before = CONFORMANCE_STATEMENT.read_text()
    after = generate(before)
    CONFORMANCE_STATEMENT.write_text(after)
    sys.stdout.write(f"{CONFORMANCE_STATEMENT.name}: {'unchanged' if before == after else 'tables written anew'}\n")
    return 0


def generate(text: str) -> str:
    """Replace every generated part of a document."""
    return _PART.sub(lambda part: f"{part[1]}\n{PARTS[part['name']]()}\n{part[3]}", text)


def implementation() -> str:
    """How this software names itself (PS3.7 D.3.3.2)."""
    return _table(
        ("Item", "Value"),
        [
            ("Implementation Class UID", f"`{IMPLEMENTATION_CLASS_UID}`"),
            ("Implementation Version Name", f"`{IMPLEMENTATION_VERSION_NAME}`"),
        ],
    )


def defaults() -> str:
    """The configuration parameters of the network, with their defaults."""
    rows = [(key, what, f"{value:g}" if isinstance(value, float) else value) for key, what, value in _CONFIGURED]
    rows.append(("fixed", "from the connection to its whole association request, s", f"{transport.REQUEST_S:g}"))
    rows.append(("fixed", "without a byte in the middle of a PDU, s", f"{transport.PDU_S:g}"))
    rows.append(("fixed", "longest PDU that is read, KiB", transport.LONGEST_PDU // 1024))
    rows.append(("fixed", "time-out of a release or abort (ARTIM), s", f"{listening.ASSOCIATION_TIMEOUT_S:g}"))
    return _table(("Key", "Meaning", "Default"), rows)


def tls_profile() -> str:
    """What is negotiated by TLS."""
    return _table(
        ("Version", "Cipher suites, by their names in OpenSSL"),
        [
            ("TLS 1.3", ", ".join(f"`{one}`" for one in tls.CIPHERS_OF_TLS_1_3)),
            ("TLS 1.2", ", ".join(f"`{one}`" for one in tls.CIPHERS_OF_TLS_1_2)),
        ],
    )


def scp_contexts() -> str:
    """What the SCP accepts, by kind of class."""
    uncompressed = ", ".join(UID(uid).name for uid in negotiation._ONLY_UNCOMPRESSED)
    analysed = ", ".join(f"{UID(uid).name} `{uid}`" for uid in ANALYSED_SOP_CLASSES)
    every = f"the {len(negotiation.TRANSFER_SYNTAXES)} of the table below"
    known = len(negotiation.known_storage_classes())
    return _table(
        ("SOP Class", "Role", "Transfer Syntaxes", "What becomes of it"),
        [
            (f"Verification `{_VERIFICATION}`", "SCP", uncompressed, "answered"),
            (analysed, "SCP", every, "stored, analysed"),
            (f"the other {known - len(ANALYSED_SOP_CLASSES)} storage classes of annex C", "SCP", every, "stored"),
            ("private classes, and standard ones newer than this version", "SCP", every, "stored"),
        ],
    )


def transfer_syntaxes() -> str:
    """What the SCP accepts for storage, in its order of preference."""
    return _table(
        ("Transfer Syntax", "UID"), [(name, f"`{uid}`") for uid, name in negotiation.TRANSFER_SYNTAXES.items()]
    )


def scp_statuses() -> str:
    """What the SCP answers to a C-STORE."""
    return _table(
        ("Status", "Name", "Meaning"),
        [
            (f"`{code:04X}`", f"`{_name_of_status(code)}`", meaning)
            for code, meaning in sorted(statuses.MEANINGS.items(), key=lambda one: one[0])
        ],
    )


_BESIDE_THE_REPORT = (
    SecondaryCaptureImageStorage,
    KeyObjectSelectionDocumentStorage,
    GrayscaleSoftcopyPresentationStateStorage,
)


def scu_contexts() -> str:
    """What the SCU proposes."""
    syntaxes = ", ".join(UID(uid).name for uid in association.UNCOMPRESSED)
    rows = [
        (f"{uid.name} `{uid}`", "SCU", syntaxes, str(number))
        for number, (_, uid) in enumerate(structured_report.ENCODINGS, start=1)
    ]
    rows += [(f"{uid.name} `{uid}`", "SCU", syntaxes, "") for uid in _BESIDE_THE_REPORT]
    rows.append((f"Verification `{_VERIFICATION}` (`ich-node doctor` only)", "SCU", syntaxes, ""))
    return _table(("SOP Class", "Role", "Transfer Syntaxes", "Preference"), rows)


def scu_statuses() -> str:
    """What the SCU does after each C-STORE status, from the function that decides it."""
    ranges = []
    for verdict, codes_ in groupby(range(0x10000), key=deliver.judge):
        members = list(codes_)
        first, last = members[0], members[-1]
        shown = f"`{first:04X}`" if first == last else f"`{first:04X}` to `{last:04X}`"
        ranges.append((shown, verdict))
    return _table(
        ("Status", "Behaviour"),
        [
            (", ".join(shown for shown, one in ranges if one is verdict), _AFTERWARDS[verdict])
            for verdict in deliver.Verdict
        ],
    )


def query_contexts() -> str:
    """What the Query SCU proposes."""
    syntaxes = ", ".join(UID(uid).name for uid in association.UNCOMPRESSED)
    uid = query_retrieve.STUDY_ROOT_FIND
    return _table(("SOP Class", "Role", "Transfer Syntaxes"), [(f"{UID(uid).name} `{uid}`", "SCU", syntaxes)])


def query_keys() -> str:
    """The keys of its requests."""
    rows = [
        (level, ", ".join(keyword for keyword in keys if keyword != "QueryRetrieveLevel")) for level, keys in _QUERIES
    ]
    return _table(("Query/Retrieve Level", "Keys"), rows)


def archive_contexts() -> str:
    """What bulk scoring of a PACS proposes."""
    syntaxes = ", ".join(UID(uid).name for uid in association.UNCOMPRESSED)
    proposed = (query_retrieve.STUDY_ROOT_FIND, query_retrieve.STUDY_ROOT_MOVE)
    rows = [(f"{UID(uid).name} `{uid}`", "SCU", syntaxes) for uid in proposed]
    return _table(("SOP Class", "Role", "Transfer Syntaxes"), rows)


def archive_keys() -> str:
    """The keys of its requests."""
    rows = [
        (request, level, ", ".join(keyword for keyword in keys if keyword != "QueryRetrieveLevel"))
        for request, level, keys in _ARCHIVE_REQUESTS
    ]
    return _table(("Request", "Query/Retrieve Level", "Keys"), rows)


def audit_messages() -> str:
    """The audit messages and what makes them."""
    rows = [
        (f"{event.meaning} ({event.value})", "" if kind is None else f"{kind.meaning} ({kind.value})", trigger)
        for event, kind, trigger in audit_events.TRIGGERS
    ]
    return _table(("EventID", "EventTypeCode", "Trigger"), rows)


def commitment_contexts() -> str:
    """What is proposed and accepted for storage commitment."""
    syntaxes = ", ".join(UID(uid).name for uid in association.UNCOMPRESSED)
    uid = storage_commitment.STORAGE_COMMITMENT
    instance = f"instance `{storage_commitment.STORAGE_COMMITMENT_INSTANCE}`"
    return _table(
        ("SOP Class", "Role", "Transfer Syntaxes"), [(f"{UID(uid).name} `{uid}`, {instance}", "SCU", syntaxes)]
    )


def commitment_statuses() -> str:
    """What is answered to an N-EVENT-REPORT."""
    return _table(
        ("Status", "Meaning"), [(f"`{code:04X}`", meaning) for code, meaning in storage_commitment.STATUSES.items()]
    )


def commitment_failures() -> str:
    """The failure reasons that are told in words."""
    return _table(("Failure Reason", "Meaning"), [(f"`{code:04X}`", text) for code, text in FAILURE_REASONS.items()])


def storage_classes() -> str:
    """Every storage class that is accepted by name."""
    rows = [(UID(uid).name, f"`{uid}`") for uid in negotiation.known_storage_classes()]
    return _table(("Storage SOP Class", "UID"), sorted(rows))


def findings() -> str:
    """The concepts of the six classes."""
    return _table(
        ("Class", "Concept", "Finding Site"),
        [(name, _code(codes.FINDINGS[name]), _code(codes.FINDING_SITES[name])) for name in HEMORRHAGE_CLASSES],
    )


def presences() -> str:
    """The value of a class."""
    return _table(("Outcome of the class", "Value"), _values(Presence, content._VALUES))


def triage_categories() -> str:
    """The value of the triage category."""
    rows = _values(Triage, content._TRIAGE_CATEGORIES)
    rows.append(("none", _code(content._TRIAGE_CATEGORIES[None])))
    rows.append(("none, an earlier result withdrawn", _code(codes.WITHDRAWN)))
    return _table(("Triage", "Value"), rows)


def private_codes() -> str:
    """The codes of the private scheme."""
    private = {
        (one.value, one.meaning)
        for one in vars(codes).values()
        if isinstance(one, CodedConcept) and one.scheme_designator == codes.PRIVATE_SCHEME
    }
    return _table(("Code Value", "Code Meaning"), [(f"`{value}`", meaning) for value, meaning in sorted(private)])


def coding_schemes() -> str:
    """The Coding Scheme Identification Sequence."""
    rows = [
        (f"`{item.CodingSchemeDesignator}`", item.CodingSchemeName, f"`{item.get('CodingSchemeUID', '')}`".strip("`"))
        for item in codes.coding_schemes()
    ]
    return _table(("Designator", "Name", "UID"), rows)


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    part.__name__: part
    for part in (
        implementation, defaults, scp_contexts, transfer_syntaxes, scp_statuses, scu_contexts, scu_statuses,
        query_contexts, query_keys, archive_contexts, archive_keys,
        commitment_contexts, commitment_statuses, commitment_failures,
        tls_profile, audit_messages,
        storage_classes, findings, presences, triage_categories, private_codes, coding_schemes,
    )
}  # fmt: skip


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, ("---",) * len(head), *rows)]
    return "\n".join(lines) + "\n"


def _name_of_status(code: int) -> str:
    return next(name for name, value in vars(statuses).items() if name.isupper() and value == code)


def _values(kinds: type[Presence] | type[Triage], values: Mapping[object, CodedConcept]) -> list[tuple[str, str]]:
    return [(str(kind), _code(values[kind])) for kind in kinds]


def _code(concept: CodedConcept) -> str:
    return f"({concept.value}, {concept.scheme_designator}, “{concept.meaning}”)"


if __name__ == "__main__":
    sys.exit(main())
