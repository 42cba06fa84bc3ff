"""The number of a row that was just entered."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CursorResult


def new_id(made: CursorResult[Any]) -> int:
    """Give the number of the one row that was entered."""
    key = made.inserted_primary_key
    assert key is not None, "an insert of one row has a key"
    return int(key[0])
