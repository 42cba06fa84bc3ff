"""What the machine can do at most, measured: bytes copied, files made durable, bytes sent."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

_COPIED: Final = 64 * 2**20
_FILES: Final = 160
_TRIPS: Final = 400
_TIMES: Final = 5


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs: a limit is what nothing disturbed."""
    seconds = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


@cache
def copy_bytes() -> float:
    """Bytes a second that one thread copies from memory to memory."""
    source, target = np.ones(_COPIED, np.uint8), np.zeros(_COPIED, np.uint8)
    return _COPIED / _best(lambda: np.copyto(target, source))


def durable_files(folder: Path, size: int, threads: int) -> float:
    """Files of a size a second that are written, flushed, renamed and their folder flushed, by some threads."""
    content = os.urandom(size)

    def write(number: int) -> None:
        part, path = folder / f"{number}.part", folder / f"{number}.limit"
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(descriptor)
        os.close(descriptor)

    with ThreadPoolExecutor(threads) as pool:
        seconds = _best(lambda: list(pool.map(write, range(_FILES))))
    for number in range(_FILES):
        (folder / f"{number}.limit").unlink()
    return _FILES / seconds


def round_trips(size: int) -> float:
    """Messages of a size a second that go through a TCP connection on loopback and are answered by a few bytes."""
    content = bytes(size)
    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=_answer, args=(server, size))
        answering.start()
        with socket.create_connection(server.getsockname()) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def trips() -> None:
                for _ in range(_TRIPS):
                    connection.sendall(content)
                    connection.recv(64)

            seconds = _best(trips)
        answering.join()
    return _TRIPS / seconds


def _answer(server: socket.socket, size: int) -> None:
    connection, _ = server.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        missing = size
        while got := len(connection.recv(min(missing, 2**20))):
            missing -= got
            if not missing:
                connection.sendall(b"taken")
                missing = size
