"""Decode in child processes with limits: a crash or a bomb costs one object, never the worker."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from pebble import ProcessExpired, ProcessPool

from ich_node.decode.archived import read_archived_header
from ich_node.decode.instance import DeclineSlice, DecodedInstance, read_header_only, read_instance
from ich_node.decode.limits import DecodeLimits
from ich_node.decode.plane import DecodedPlane, MemberFile, UnreadableMember, read_plane
from ich_node.decode.sandbox import limit_cpu_time, limit_this_process
from ich_node.records import ArchivedHeader, InstanceState, NotAnalysedReason
from ich_node.service import MemoryGivenBack

_STOP_WAIT_S = 5.0
_COMPARING = 6
"""Times the limit of one object: two versions are decoded whole, of objects that else are decoded plane by plane."""

_memory = MemoryGivenBack()
"""Of a child: one large slice needs more than the next thousand."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class DecodeTask:
    """A decode that was handed to a child."""

    future: "Future[DecodedInstance]"
    read_header: "Callable[[], Future[DecodedInstance]]"

    def done(self) -> bool:
        """Tell whether `result` would answer at once."""
        return self.future.done()

    def result(self) -> DecodedInstance:
        """Wait for the child; its crash or time-out makes this one object unreadable, with the header's facts."""
        try:
            return self.future.result()
        except TimeoutError:
            return self._by_header(NotAnalysedReason.DECODE_TIMEOUT, "")
        except ProcessExpired as crash:
            return self._by_header(NotAnalysedReason.DECODE_CRASHED, f"exit code {crash.exitcode}")

    def _by_header(self, reason: NotAnalysedReason, detail: str) -> DecodedInstance:
        try:
            header = self.read_header().result()
        except (TimeoutError, ProcessExpired):
            return DecodedInstance(InstanceState.UNREADABLE, reason=reason, detail=detail)
        return replace(header, state=InstanceState.UNREADABLE, reason=reason, detail=detail)


@dataclass(frozen=True, slots=True, eq=False)
class HeaderTask:
    """A header that is being read by a child."""

    future: "Future[ArchivedHeader]"

    def result(self) -> ArchivedHeader:
        """Wait for the child; its crash or time-out is why the file cannot be used."""
        try:
            return self.future.result()
        except TimeoutError:
            return ArchivedHeader(why=NotAnalysedReason.DECODE_TIMEOUT.text)
        except ProcessExpired:
            return ArchivedHeader(why=NotAnalysedReason.DECODE_CRASHED.text)


@dataclass(frozen=True, slots=True, eq=False)
class PlaneTask:
    """A plane that is being read by a child."""

    members: tuple[MemberFile, ...]
    future: "Future[DecodedPlane]"
    read_alone: "Callable[[MemberFile], Future[DecodedPlane]]"

    def result(self) -> DecodedPlane:
        """Wait for the child; where it crashes or takes too long, its members are tried one by one to find which."""
        reason = _trouble(self.future)
        if reason is None:
            return self.future.result()
        if len(self.members) == 1:
            return DecodedPlane(unreadable=(UnreadableMember(0, *reason),))
        unreadable = []
        for index, member in enumerate(self.members):
            alone = self.read_alone(member)
            if (why := _trouble(alone)) is not None:
                unreadable.append(UnreadableMember(index, *why))
            else:
                unreadable += [replace(one, index=index) for one in alone.result().unreadable]
        # none of them by itself: together they are too much
        return DecodedPlane(unreadable=tuple(unreadable or [UnreadableMember(0, *reason)]))


def _trouble(future: "Future[DecodedPlane]") -> tuple[NotAnalysedReason, str] | None:
    try:
        future.result()
    except TimeoutError:
        return NotAnalysedReason.DECODE_TIMEOUT, ""
    except ProcessExpired as crash:
        return NotAnalysedReason.DECODE_CRASHED, f"exit code {crash.exitcode}"
    return None


class DecoderPool:
    """Child processes that decode files; use it as a context manager.

    Children are spawned, not forked: they hold neither torch nor a thread of the worker. A spawned child imports the
    program's main module, so that module must import torch late, inside the command that needs it.
    """

    def __init__(self, limits: DecodeLimits, decline: DeclineSlice, processes: int = 1) -> None:
        self._limits = limits
        self._decline = decline
        self._pool = ProcessPool(
            max_workers=processes,
            context=multiprocessing.get_context("spawn"),
            initializer=limit_this_process,
            initargs=(limits.address_space_bytes, os.getpid()),
        )

    def __enter__(self) -> Self:
        self._schedule(_warm_up)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]  # pebble annotates most, not this
        self._pool.join(timeout=_STOP_WAIT_S)

    def submit(self, path: Path, older: Path | None = None) -> DecodeTask:
        """Have a child decode one file, and compare it with the version before it."""
        return DecodeTask(
            self._schedule(read_instance, path, self._limits, self._decline, older, times=_COMPARING if older else 1),
            lambda: self._schedule(read_header_only, path, self._limits),
        )

    def submit_header(self, path: Path, member: int | None = None) -> HeaderTask:
        """Have a child read which series a file, or a member of a zip file, belongs to; no pixel is touched."""
        return HeaderTask(self._schedule(read_archived_header, path, member))

    def submit_plane(self, members: Sequence[MemberFile]) -> PlaneTask:
        """Have a child decode the members of a plane and average them."""
        return PlaneTask(
            tuple(members),
            self._schedule(read_plane, tuple(members), self._limits),
            lambda member: self._schedule(read_plane, (member,), self._limits),
        )

    def _schedule(self, function: Callable[..., Result], *arguments: object, times: int = 1) -> "Future[Result]":
        limit_s = times * self._limits.seconds_per_object
        task: Future[Result] = self._pool.schedule(_run, args=(function, limit_s, arguments), timeout=limit_s)
        return task


def _warm_up() -> DecodedInstance:
    """Do nothing in a child: this starts it and its imports, so that it is ready when the first slice arrives."""
    return DecodedInstance(InstanceState.NOT_NEEDED)


def _run(function: Callable[..., Result], cpu_s: float, arguments: tuple[object, ...]) -> Result:
    limit_cpu_time(cpu_s)
    _memory.look()
    return function(*arguments)
