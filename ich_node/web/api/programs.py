"""Which program asks, and whether its role may.

Annotations are evaluated as they stand: FastAPI reads them.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import HTTPException, Request, Security
from fastapi.security import HTTPBearer

from ich_node.accounts import Role
from ich_node.web.api.door import PROGRAM
from ich_node.web.forms import one_line
from ich_node.web.gate import Visitor

LONGEST_PERSON: Final = 32
"""Beside it, the name of the token has room in the record."""
_BEARER: Final = HTTPBearer(
    scheme_name="token", bearerFormat="opaque", auto_error=False, description="made by `ich-node token add`"
)


def needs(role: Role) -> Callable[[Request, Any], Visitor]:
    """Make a dependency: the program that asks, and may do what a role may. It raises HTTPException 403."""

    def program(request: Request, _bearer: Annotated[Any, Security(_BEARER)]) -> Visitor:
        asks: Visitor = getattr(request.state, PROGRAM)
        if not asks.may(role):
            raise HTTPException(403, f"this needs the role {role}; the token has {asks.role}")
        return asks

    return program


def in_the_trail(program: Visitor, by: str = "") -> str:
    """Name a program in the audit trail, and the person for whom it says that it asks."""
    return f"{by} by way of token {program.name}" if by else f"token {program.name}"


def in_the_record(program: Visitor, by: str) -> str:
    """Name who did something: the person, as the program says, and the program."""
    return f"{by} ({program.name})" if by else program.name


def person(by: str | None) -> str:
    """Read the name of a person."""
    return one_line(by or "", LONGEST_PERSON)
