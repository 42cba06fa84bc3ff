"""The trail for people and programs: every message in the order of time, in words."""

from __future__ import annotations

import heapq
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError, fromstring

from ich_node.audit.message import utc
from ich_node.audit.stored import audit_files, faults_of, last_digest, predecessors, read_records
from ich_node.audit.syslog import time_of, xml_of

_OUTCOMES: Final = {"0": "success", "4": "minor failure", "8": "serious failure", "12": "major failure"}
_CODE: Final = "originalText"
_AT_ONCE: Final = 64 * 1024
"""Bytes of a file, read from its end."""


def read_messages(directory: Path, since: datetime | None = None) -> Iterator[bytes]:
    """Give the syslog messages of a trail from a time on, in the order of time."""
    start = "" if since is None else utc(since.astimezone(UTC).timestamp())
    files = ((record.message for record in read_records(path)) for path in audit_files(directory))
    return (message for message in heapq.merge(*files, key=time_of) if time_of(message) >= start)


def newest_messages(directory: Path, before: str = "") -> Iterator[bytes]:
    """Give the syslog messages of a trail the newest first, from before a time on (as `time_of` writes it).

    Files are read from their ends, as far as somebody asks.
    """
    files = (_backward(path) for path in audit_files(directory))
    every = heapq.merge(*files, key=time_of, reverse=True)
    return (message for message in every if not before or time_of(message) < before)


def _backward(path: Path) -> Iterator[bytes]:
    """Give the messages of one file, the last first."""
    end = path.stat().st_size
    size = _AT_ONCE
    while end > 0:
        start = _line_after(path, max(0, end - size))
        if start >= end:  # a record longer than that
            size *= 2
            continue
        yield from reversed(_messages_between(path, start, end))
        end, size = start, _AT_ONCE


def _messages_between(path: Path, start: int, end: int) -> list[bytes]:
    return [one.message for one in takewhile(lambda one: one.end <= end, read_records(path, start))]


def _line_after(path: Path, place: int) -> int:
    """Give where the first line begins at or after a place."""
    if place == 0:
        return 0
    with path.open("rb") as file:
        file.seek(place - 1)
        file.readline()
        return file.tell()


def as_words(message: bytes) -> dict[str, Any]:
    """Say what a message says, by its parts."""
    head = message.split(b" ", 6)
    said: dict[str, Any] = {
        "time": time_of(message),
        "host": head[2].decode("ascii", "replace"),
        "process": head[4].decode("ascii", "replace"),
    }
    try:
        root = fromstring(xml_of(message))  # noqa: S314 - our own file; expat stops what grows without end
    except ParseError:
        return said | {"event": "not an audit message"}
    event = root.find("EventIdentification")
    if event is None:
        return said | {"event": "not an audit message"}
    why = event.findtext("EventOutcomeDescription")
    return said | {
        "event": ", ".join(one.get(_CODE, "") for one in event if one.tag in ("EventID", "EventTypeCode")),
        "outcome": _OUTCOMES.get(event.get("EventOutcomeIndicator", ""), ""),
        **({"why": why} if why else {}),
        "participants": [_participant(one) for one in root.findall("ActiveParticipant")],
        "objects": [_thing(one) for one in root.findall("ParticipantObjectIdentification")],
    }


def in_a_line(said: dict[str, Any]) -> str:
    """Say the same on one line."""
    parts = [said["time"], said["event"]]
    if said.get("outcome") != "success":
        parts.append(f"{said.get('outcome', '')}: {said.get('why', '')}".strip(": "))
    parts.append("by " + " / ".join(one["user"] for one in said.get("participants", ())))
    for one in said.get("objects", ()):
        details = "".join(
            f", {key} {value}" for key, value in one.get("details", {}).items() if key != "TransferSyntax"
        )
        counts = sum(one.get("instances", {}).values())
        parts.append(f"{one['kind']} {one['id']}" + (f" ({counts} instances)" if counts else "") + details)
    return "; ".join(part for part in parts if part)


def verify(directory: Path) -> tuple[int, list[str], list[str]]:
    """Check every file of a trail.

    Returns:
        How many files there are, what is wrong, and what is remarkable: a file whose predecessor is not here, since it
        was past its days, or was taken away.
    """
    paths = audit_files(directory)
    faults = [f"{path.name}: {fault}" for path in paths for fault in faults_of(path)]
    ends = {last_digest(path) for path in paths}
    notes = [
        f"{name}: the file that its process wrote before is not here, or ends elsewhere"
        for name, digest in predecessors(paths).items()
        if digest not in ends
    ]
    return len(paths), faults, notes


def _participant(one: Element) -> dict[str, str]:
    role = one.find("RoleIDCode")
    said = {
        "user": one.get("UserID", ""),
        "also": one.get("AlternativeUserID", ""),
        "role": "" if role is None else role.get(_CODE, ""),
        "address": one.get("NetworkAccessPointID", ""),
    }
    return {key: value for key, value in said.items() if value}


def _thing(one: Element) -> dict[str, Any]:
    kind = one.find("ParticipantObjectIDTypeCode")
    details = {
        detail.get("type", ""): b64decode(detail.get("value", "")).decode("utf-8", "replace")
        for detail in one.findall("ParticipantObjectDetail")
    }
    classes = {
        found.get("UID", ""): int(found.get("NumberOfInstances", "0"))
        for found in one.findall("ParticipantObjectDescription/SOPClass")
    }
    studies = [found.get("UID", "") for found in one.findall(".//StudyIDs")]
    said: dict[str, Any] = {
        "kind": "" if kind is None else kind.get(_CODE, ""),
        "id": one.get("ParticipantObjectID", ""),
    }
    more = {"details": details, "instances": classes, "studies": studies}
    return said | {key: value for key, value in more.items() if value}
