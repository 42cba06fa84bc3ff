"""Values that nobody can mistake for anything else, put wherever patient data may be, and looked for everywhere."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psutil
from pydicom import DataElement, Dataset

_MARK: Final = "ZQCANARY"
HEADER: Final[dict[str, str]] = {
    "PatientName": f"NAME{_MARK}^Jane",
    "PatientID": f"ID77{_MARK}",
    "OtherPatientIDs": f"OTHERID{_MARK}",
    "IssuerOfPatientID": f"ISSUER{_MARK}",
    "PatientBirthDate": "18970413",
    "PatientAddress": f"STREET{_MARK} 7",
    "PatientTelephoneNumbers": f"PHONE{_MARK}",
    "PatientComments": f"COMMENT{_MARK}",
    "AdditionalPatientHistory": f"HISTORY{_MARK}",
    "AccessionNumber": f"ACC{_MARK}",
    "ReferringPhysicianName": f"REF{_MARK}^Erring",
    "PerformingPhysicianName": f"PERF{_MARK}",
    "OperatorsName": f"OPER{_MARK}",
    "InstitutionName": f"HOSPITAL{_MARK}",
    "StudyDescription": f"STUDY{_MARK}",
    "SeriesDescription": f"SERIES{_MARK}",
    "StudyID": f"SID{_MARK}",
    "ProtocolName": f"PROTOCOL{_MARK}",
    "RequestedProcedureDescription": f"REQUEST{_MARK}",
    "ImageComments": f"IMAGE{_MARK}",
}
ELSEWHERE: Final = {
    "a private element": f"PRIVATE{_MARK}",
    "a UID that is none": f"UID{_MARK}",
    "the path of a page": f"PATH{_MARK}",
    "the token of a page": f"TOKEN{_MARK}",
    "PID of an HL7 answer": f"PID{_MARK}",
    "OBX of an HL7 answer": f"OBX{_MARK}",
    "nonsense to the HL7 port": f"NONSENSE{_MARK}",
}
EVERY: Final = {**HEADER, **ELSEWHERE}


def put_into(ds: Dataset) -> Dataset:
    """Put a canary into every element of a header that may tell of a patient."""
    for keyword, value in HEADER.items():
        setattr(ds, keyword, value)
    ds[0x0009_0010] = DataElement(0x0009_0010, "LO", "CANARIES")
    ds[0x0009_1001] = DataElement(0x0009_1001, "LT", ELSEWHERE["a private element"])
    return ds


def found_in(content: bytes) -> set[str]:
    """Name the canaries in bytes, as they stand or in any of the usual encodings."""
    folded = content.lower()
    return {name for name, value in EVERY.items() if any(form in folded for form in _forms(value))}


def found_in_files(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, set[str]]:
    """Look into every file below a folder, and at its name."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_file() and not name.startswith(without) and (seen := found_in(name.encode() + path.read_bytes())):
            found[name] = seen
    return found


def found_in_processes(processes: list[int]) -> dict[str, set[str]]:
    """Look into command lines and environments of processes and of their children."""
    found = {}
    for process in _with_children(processes):
        for what in ("cmdline", "environ", "comm"):
            with suppress(OSError):
                if seen := found_in(Path(f"/proc/{process.pid}/{what}").read_bytes()):
                    found[f"{process.pid}/{what}"] = seen
    return found


def _with_children(processes: list[int]) -> Iterator[psutil.Process]:
    for number in processes:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(number)
            yield parent
            yield from parent.children(recursive=True)


def _forms(value: str) -> Iterator[bytes]:
    first = value.split("^")[0]
    for text in {value, first}:
        plain = text.encode()
        yield plain.lower()
        yield text.encode("utf-16-le").lower()
        yield plain.hex().encode()
        yield quote(text).lower().encode()
        yield json.dumps(text)[1:-1].lower().encode()
        for shift in range(3):  # base64 of a piece depends on where it begins
            encoded = base64.b64encode(b"\0" * shift + plain)
            yield encoded[(0, 2, 3)[shift] : -4].lower()


def any_of(values: dict[str, Any]) -> str:
    """Say what was found, for the message of a test that fails."""
    return json.dumps({name: sorted(seen) for name, seen in values.items()}, indent=1) if values else os.linesep
