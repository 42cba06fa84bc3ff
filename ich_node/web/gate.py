"""Who asks: the session of a browser, or the token of a program; and whether it may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from fastapi import HTTPException, Request, Response

from ich_node.accounts import Role, Session, SessionRules, find_session, find_token
from ich_node.database import Database

COOKIE: Final = "ich_node_session"
FORM_FIELD: Final = "form_token"
FORM_HEADER: Final = "X-Form-Token"
BY_ITSELF: Final = "X-By-Itself"
"""Sent with what a page asks without a person: it keeps no session alive."""
_EVENTS: Final = "text/event-stream"
"""What a page listens to by itself, too: a browser sends no header of ours with it."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks for something."""

    name: str
    role: Role
    session: Session | None
    """None for a program."""

    def may(self, role: Role) -> bool:
        """Say whether the visitor may do what a role may."""
        return self.role.includes(role)

    @property
    def operates(self) -> bool:
        """Say whether the visitor may look after the node."""
        return self.may(Role.OPERATOR)

    @property
    def sees_patients(self) -> bool:
        """Say whether the visitor may see whose study it is, and its images."""
        return self.may(Role.READER)


class NotLoggedIn(Exception):
    """Nobody is logged in: a page leads to the login, everything else says 401."""


class Gate:
    """Lets visitors in.

    Args:
        trusts_proxy: says of an address whether it is a reverse proxy whose X-Forwarded-For and X-Forwarded-Proto are
            believed.
    """

    def __init__(self, database: Database, rules: SessionRules, trusts_proxy: Callable[[str], bool]) -> None:
        self._database = database
        self.rules = rules
        self._trusts_proxy = trusts_proxy

    def visitor(self, request: Request) -> Visitor | None:
        """Say who asks with a cookie; None: nobody who is logged in."""
        token = request.cookies.get(COOKIE, "")
        by_person = BY_ITSELF not in request.headers and _EVENTS not in request.headers.get("Accept", "")
        session = find_session(self._database, token, self.rules, by_person=by_person) if token else None
        return None if session is None else Visitor(session.account, session.role, session)

    def program(self, request: Request) -> Visitor:
        """Say which program asks with a token.

        Raises:
            HTTPException: 401, none does.
        """
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        found = find_token(self._database, token.strip()) if kind.lower() == "bearer" and token else None
        if found is None:
            raise HTTPException(401, "a token of this node is needed", {"WWW-Authenticate": "Bearer"})
        return Visitor(found.name, found.role, None)

    def needs(self, role: Role) -> Callable[[Request], Visitor]:
        """Make a dependency: who is logged in, and may do what a role may.

        It raises `NotLoggedIn`, and HTTPException 403 for one who may not.
        """

        def visitor(request: Request) -> Visitor:
            found = self.visitor(request)
            if found is None:
                raise NotLoggedIn
            if not found.may(role):
                raise HTTPException(403)
            return found

        return visitor

    def address(self, request: Request) -> str:
        """Give the address that a request comes from, as far as it is known."""
        peer = "" if request.client is None else request.client.host
        if not self._trusts_proxy(peer):
            return peer
        forwarded = [one.strip() for one in request.headers.get("X-Forwarded-For", "").split(",") if one.strip()]
        while forwarded and self._trusts_proxy(forwarded[-1]):
            forwarded.pop()
        return forwarded[-1][:64] if forwarded else peer

    def is_encrypted(self, request: Request) -> bool:
        """Say whether the browser's connection is TLS, here or at a proxy that we trust."""
        peer = "" if request.client is None else request.client.host
        by_proxy = self._trusts_proxy(peer) and request.headers.get("X-Forwarded-Proto", "") == "https"
        return by_proxy or request.url.scheme == "https"

    def keep(self, request: Request, response: Response, session: Session) -> None:
        """Let the browser keep a session."""
        response.set_cookie(
            COOKIE, session.token, max_age=int(self.rules.longest_s), path="/", httponly=True, samesite="lax",
            secure=self.is_encrypted(request),
        )  # fmt: skip

    def forget(self, response: Response) -> None:
        """Let the browser forget its session."""
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")


def check_form(request: Request, visitor: Visitor, form_token: str) -> None:
    """See whether a form, or a script's request, is one of this session's own pages.

    Raises:
        HTTPException: 403, it is not.
    """
    if visitor.session is None or not is_ours(request) or not visitor.session.owns(form_token):
        raise HTTPException(403, "the page was too old, or not ours: load it again")


def is_ours(request: Request) -> bool:
    """Say whether a form was sent from a page of this host, as far as the browser says."""
    origin = request.headers.get("Origin", "")
    return not origin or urlsplit(origin).netloc == request.headers.get("Host", "")
