"""JSON lines on standard error, with correlation ids and without patient data.

Only names and numbers that a caller passes as fields are written. Messages of libraries are reduced to where they
came from, since their texts may quote values from a patient's header.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import threading
from datetime import UTC, datetime
from traceback import extract_tb
from types import TracebackType
from typing import Any, Final

from ich_node import failpoint

_OWN: Final = "ich_node"
_LONGEST_FIELD: Final = 1000
_LONGEST_LINE: Final = 4096
"""Bytes: what a pipe or syslog takes in one piece."""
_ENCODER: Final = json.JSONEncoder(default=str)
"""``json.dumps`` makes one for each line."""
_ALWAYS: Final = ("time", "level", "role", "event")


class EventLog:
    """Write named events: ``log.info("series concluded", series=12, triage="positive")``."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"{_OWN}.{name}")

    def debug(self, event: str, **fields: Any) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, error: BaseException | None = None, **fields: Any) -> None:
        """Write an error. Of an exception that is not ours only the type and the place are kept."""
        if error is not None:
            fields |= _describe(error)
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            # As Logger.log(), but for its search of the stack for the caller, which takes longer than the rest.
            extra = {"fields": fields}
            self._logger.handle(self._logger.makeRecord(self._logger.name, level, "", 0, event, (), None, extra=extra))


def start_logging(level: str = "INFO", role: str = "") -> None:
    """Send every event to standard error; quieten libraries, whose texts may hold patient data."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(_OWN).setLevel(level)
    silence_libraries()
    logging.raiseExceptions = False  # or a line that cannot be written would be printed with its arguments
    if armed := failpoint.arm(os.environ):
        EventLog(role).error("a fail-point is armed: this process is under test and will be killed", None, armed=armed)
    sys.excepthook = _log_uncaught
    sys.unraisablehook = lambda uncaught: _log_uncaught(uncaught.exc_type, uncaught.exc_value, uncaught.exc_traceback)
    threading.excepthook = lambda uncaught: _log_uncaught(uncaught.exc_type, uncaught.exc_value, uncaught.exc_traceback)


def silence_libraries() -> None:
    """Keep the DICOM libraries from writing messages, which quote values from headers."""
    for name in ("pynetdicom", "pydicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.captureWarnings(capture=True)


def _log_uncaught(_kind: type[BaseException], error: BaseException | None, traceback_: TracebackType | None) -> None:
    """Log what ends a process or thread: the exception's type and its call stack, never its text."""
    stack = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in extract_tb(traceback_)]
    EventLog("uncaught").error("ended by an error nobody expected", error, stack=stack[-12:])


class _JsonLines(logging.Formatter):
    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "role": self._role,
            "event": _event_of(record),
        }
        line |= {key: _writable(value) for key, value in getattr(record, "fields", {}).items()}
        return _in_one_piece(line)


def _in_one_piece(line: dict[str, Any]) -> str:
    """Write a line of ASCII; where it is too long, its texts are cut further, and in the end only the event is left."""
    text = _ENCODER.encode(line)
    for longest in (400, 100):
        if len(text) <= _LONGEST_LINE:
            return text
        text = json.dumps(line | {"cut": True} | {key: _cut(value, longest) for key, value in line.items()})
    if len(text) <= _LONGEST_LINE:
        return text
    return json.dumps({key: _cut(line[key], 100) for key in _ALWAYS} | {"cut": True})


def _cut(value: Any, longest: int) -> Any:
    """Shorten what is longer in JSON; one character may take twelve bytes."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if len(json.dumps(text)) <= longest + 2:
        return value
    while len(json.dumps(text)) > longest + 2:
        text = text[: len(text) // 2]
    return text


def _event_of(record: logging.LogRecord) -> str:
    if record.name.split(".")[0] == _OWN:
        return record.getMessage()
    place = f"{record.name} {record.module}:{record.lineno}"
    return f"message of a library ({place}); its text may hold patient data and is left out"


def _describe(error: BaseException) -> dict[str, str]:
    ours = type(error).__module__.startswith(_OWN)
    last = extract_tb(error.__traceback__)[-1:]
    where = f"{last[0].filename.rsplit('/', 1)[-1]}:{last[0].lineno}" if last else ""
    return {"error": type(error).__name__, "where": where} | ({"detail": str(error)} if ours else {})


def _writable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no NaN
    return value[:_LONGEST_FIELD] if isinstance(value, str) else value
