"""What browsers send, read with a limit."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import parse_qs

from fastapi import HTTPException, Request

LONGEST_FORM: Final = 4096
"""Bytes."""
LONGEST_JSON: Final = 64 * 1024
_MOST_FIELDS: Final = 20
_MOST_FIELDS_OF_A_STRANGER: Final = 10


async def read_form(request: Request) -> dict[str, str]:
    """Read the fields of a form, each once.

    Raises:
        HTTPException: 413, it is too long; 400, it is none.
    """
    return await _read_fields(request, _MOST_FIELDS)


async def read_short_form(request: Request) -> dict[str, str]:
    """Read a form of who is not logged in, as `read_form` does: one that has ten fields is none of ours.

    Raises:
        HTTPException: 413, it is too long; 400, it is none.
    """
    return await _read_fields(request, _MOST_FIELDS_OF_A_STRANGER)


async def read_json(request: Request) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        HTTPException: 413, it is too long; 400, it is none.
    """
    body = await _read(request, LONGEST_JSON)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400) from None
    if not isinstance(value, dict):
        raise HTTPException(400)
    return value


def one_line(text: str, longest: int) -> str:
    """Make a line of what somebody typed: what can be seen of it, up to a length."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())[:longest]


async def _read_fields(request: Request, most: int) -> dict[str, str]:
    body = await _read(request, LONGEST_FORM)
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=most, keep_blank_values=True)
    except ValueError:
        raise HTTPException(400) from None
    return {name: values[0] for name, values in fields.items()}


async def _read(request: Request, longest: int) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > longest:
            raise HTTPException(413)
    return body
