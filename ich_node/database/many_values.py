"""Rows by many values at once, with one statement for every number of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Boolean, ColumnElement, String, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import QueryableAttribute
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


def is_one_of(column: QueryableAttribute[Any], values: Iterable[int | str]) -> ColumnElement[bool]:
    """Tell rows that have one of some values, which go to the database as one parameter, a list in JSON.

    ``column.in_(values)`` makes another statement for each number of values. Every connection to SQLite keeps its last
    128 statements prepared, at 70 KiB for 500 values: where the number changes from time to time, memory grows for
    days. PostgreSQL plans each of them anew.
    """
    return _IsOneOf(column, bindparam(None, json.dumps(list(values)), String()))


class _IsOneOf(FunctionElement[bool]):
    """A column, and the list in JSON."""

    inherit_cache = True
    type = Boolean()


@compiles(_IsOneOf, "sqlite")
def _sqlite(element: _IsOneOf, compiler: SQLCompiler, **options: Any) -> str:
    """As https://sqlite.org/json1.html has it."""
    column, given = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({given}))"  # noqa: S608 - the values are a parameter


@compiles(_IsOneOf, "postgresql")
def _postgresql(element: _IsOneOf, compiler: SQLCompiler, **options: Any) -> str:
    """As https://www.postgresql.org/docs/current/functions-json.html has it."""
    column, given = (compiler.process(clause, **options) for clause in element.clauses)
    kind = compiler.dialect.type_compiler_instance.process(next(iter(element.clauses)).type)
    chosen = f"SELECT value::{kind} FROM json_array_elements_text({given}::json)"  # noqa: S608 - the values are a parameter
    return f"{column} IN ({chosen})"
