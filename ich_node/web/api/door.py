"""Before anything is routed or read: whose token it is, how often it was used, and how long the body is."""

from __future__ import annotations

import math
from typing import Final

from fastapi import HTTPException, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ich_node.errors import TransientError
from ich_node.web.api.allowance import Allowance
from ich_node.web.api.problems import busy, problem_of
from ich_node.web.audit import PageAudit
from ich_node.web.gate import Gate, Visitor

LONGEST_BODY: Final = 64 * 1024
"""Bytes."""
PROGRAM: Final = "program"
"""Under which a request holds who asks."""
_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; sandbox"


class Door:
    """Lets programs in. A cookie is not looked at."""

    def __init__(self, app: ASGIApp, gate: Gate, audit: PageAudit, allowance: Allowance) -> None:
        self._app = app
        self._gate = gate
        self._audit = audit
        self._allowance = allowance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not."""
        answer = _with_policy(send)
        refused = await run_in_threadpool(self._refusal, Request(scope))
        if refused is not None:
            await refused(scope, receive, answer)
        else:
            await self._app(scope, _limited(receive), answer)

    def _refusal(self, request: Request) -> Response | None:
        try:
            self._let_in(request)
        except HTTPException as error:
            return problem_of(error)
        except TransientError as error:
            return busy(error, request.method)
        return None

    def _let_in(self, request: Request) -> None:
        program = self._program(request)
        if wait_s := self._allowance.take(program.name):
            headers = {"Retry-After": str(math.ceil(wait_s))}
            raise HTTPException(429, "the token was used too often; try again", headers)
        length = request.headers.get("Content-Length", "0")
        if length.isdecimal() and int(length) > LONGEST_BODY:
            raise HTTPException(413)
        setattr(request.state, PROGRAM, program)

    def _program(self, request: Request) -> Visitor:
        try:
            return self._gate.program(request)
        except HTTPException:
            if "Authorization" in request.headers:
                self._audit.login_refused("", self._gate.address(request), "no token of this node")
            raise


def _with_policy(send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Content-Security-Policy"] = _POLICY
        await send(message)

    return answer


def _limited(receive: Receive) -> Receive:
    """Stop reading where a body without a true length grows too long."""
    length = 0

    async def part() -> Message:
        nonlocal length
        message = await receive()
        length += len(message.get("body", b""))
        if length > LONGEST_BODY:
            raise HTTPException(413)
        return message

    return part
