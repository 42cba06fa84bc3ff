"""The seed corpus: a few small inputs for each target, made from the synthetic slice. Nothing of it is real data."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless

from ich_node.receive.spool import file_head
from tests.corruption import objects
from tests.ct_series import as_file, ct_slice
from tests.fuzz.wire import (
    COMMAND,
    CT,
    IMPLICIT,
    LAST,
    VERIFICATION,
    associate_rq,
    echo_command,
    p_data,
    pdu,
    store_command,
    store_pdus,
)

SYNTAXES: Final = tuple(map(str, (ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless, JPEG2000Lossless)))
_ACK: Final = "MSH|^~\\&|RIS|H|ICH_NODE|H|20260302140512||ACK^R01^ACK|7|P|2.5.1\rMSA|AA|1\r"
_ORU: Final = "\r".join(
    (
        "MSH|^~\\&|RIS|H|ICH_NODE|H|20260302||ORU^R01^ORU_R01|8|P|2.5.1",
        "PID|||P1",
        "OBR|1|||X",
        "OBX|1|ST|ACK||2.25.1\r",
    )
)


def data_sets() -> list[bytes]:
    """One byte for the transfer syntax, then the data set."""
    return [bytes([SYNTAXES.index(syntax)]) + content for syntax, content in objects().items()]


def files() -> list[bytes]:
    whole = as_file(ct_slice(1))
    heads = [file_head(CT, "1.2.3", syntax, "SCANNER") + content for syntax, content in objects().items()]
    return [whole, *heads]


def requests() -> list[bytes]:
    explicit = str(ExplicitVRLittleEndian)
    return [associate_rq((CT, explicit)), associate_rq((VERIFICATION, IMPLICIT), (CT, explicit), (CT, IMPLICIT))]


def streams() -> list[bytes]:
    """What follows an accepted request."""
    whole = b"".join(store_pdus(as_data_set(), str(ct_slice(1).SOPInstanceUID).encode(), 400))
    return [
        whole,
        p_data((1, COMMAND | LAST, echo_command())) + pdu(5, bytes(4)),
        p_data((1, COMMAND, store_command(b"1.2.3")[:20]), (1, COMMAND | LAST, store_command(b"1.2.3")[20:])),
        pdu(7, struct.pack(">BBBB", 0, 0, 2, 6)),
    ]


def as_data_set() -> bytes:
    return next(iter(objects().values()))


def answers() -> list[bytes]:
    return [_ACK.encode(), _ORU.encode()]


SEEDS: Final[dict[str, Callable[[], list[bytes]]]] = {
    "association_request": requests,
    "data_set": data_sets,
    "header": files,
    "spool": files,
    "hl7_answer": answers,
    "transport": streams,
}


def write(folder: Path) -> None:
    """Write the corpus of each target into a folder of its name."""
    for name, make in SEEDS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(make()):
            (folder / name / f"seed{number}").write_bytes(seed)
