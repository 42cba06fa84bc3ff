"""Fuzz one target with atheris: ``python -m tests.fuzz.one_target NAME [options of libFuzzer] FOLDER``."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import atheris
import hl7.parser
import pydicom.encaps
import pydicom.filereader
import pydicom.values
import pynetdicom.dimse_messages
import pynetdicom.pdu
import pynetdicom.pdu_items

from ich_node.alert import hl7_answer
from ich_node.decode import file, frames, header, limits
from ich_node.log import silence_libraries
from ich_node.receive import association_request, data_set, incoming, nesting, spool
from ich_node.receive.transport import connection, whole_reads
from tests.fuzz.targets import TARGETS

SLOWEST_S = 20
INSTRUMENTED = (
    association_request, data_set, incoming, nesting, spool, connection, whole_reads, file, frames, header, limits,
    hl7_answer,
    pydicom.filereader, pydicom.encaps, pydicom.values, pynetdicom.pdu, pynetdicom.pdu_items, pynetdicom.dimse_messages,
    hl7.parser,
)  # fmt: skip
"""What leads the fuzzer to new inputs; to instrument all that is loaded takes minutes."""


def main() -> None:
    silence_libraries()
    target = TARGETS[sys.argv.pop(1)]
    for module in INSTRUMENTED:
        functions = list(functions_of(module))
        assert functions, f"nothing to instrument in {module.__name__}"
        for function in functions:
            atheris.instrument_func(function)

    def in_time(data: bytes) -> None:
        began = time.process_time()
        target(data)
        assert time.process_time() - began < SLOWEST_S, "a small input took too long"

    atheris.Setup(sys.argv, in_time)
    atheris.Fuzz()


def functions_of(module: ModuleType) -> Iterator[FunctionType]:
    """Functions and methods that are written in a module."""
    holders: list[Any] = [module, *(one for one in vars(module).values() if inspect.isclass(one))]
    for holder in holders:
        for one in list(vars(holder).values()):
            plain = inspect.unwrap(one.fget if isinstance(one, property) else getattr(one, "__func__", one))
            if isinstance(plain, FunctionType) and plain.__module__ == module.__name__:
                yield plain


if __name__ == "__main__":
    main()
