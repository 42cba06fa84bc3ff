"""Why a request was not served, as RFC 9457 writes it: ``application/problem+json``."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from ich_node.errors import TransientError
from ich_node.log import EventLog

PROBLEM_JSON: Final = "application/problem+json"
_MOST_FAULTS: Final = 20
_LONGEST: Final = 200
_TRY_AGAIN_S: Final = 5

_MEANINGS: Final = {
    400: "The body is no JSON.",
    401: "A token of this node is needed, and none that can be used came.",
    403: "The token's role may not do this.",
    404: "The node does not know it.",
    409: "It cannot be done as things stand.",
    413: "The body is longer than 64 KiB.",
    422: "The request does not say what is described here.",
    429: "The token was used too often.",
    503: "The node is busy, and nothing was noted: try again.",
}
_HEADERS: Final = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}
_ALWAYS: Final = (401, 403, 413, 422, 429, 503)

log = EventLog("web")


class Fault(BaseModel):
    """What is wrong with one part of a request."""

    where: str = Field(max_length=_LONGEST)
    what: str = Field(max_length=_LONGEST)


class Problem(BaseModel):
    """Why a request was not served (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[Fault] = Field(default=[], max_length=_MOST_FAULTS)


def problem(
    status: int, detail: str, headers: dict[str, str] | None = None, faults: list[Fault] | None = None
) -> Response:
    """Say why a request is not served."""
    said = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=faults or [])
    return JSONResponse(said.model_dump(), status, headers, media_type=PROBLEM_JSON)


def problem_of(error: HTTPException) -> Response:
    """Say what an error says."""
    told = str(error.detail)
    detail = _MEANINGS.get(error.status_code, told) if told == HTTPStatus(error.status_code).phrase else told
    return problem(error.status_code, detail, dict(error.headers or {}))


def busy(error: TransientError, method: str) -> Response:
    """Say that the database stays locked or the disk is full."""
    log.error("the request could not be answered", error, method=method)
    return problem(503, _MEANINGS[503], {"Retry-After": str(_TRY_AGAIN_S)})


def described(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Describe problems for the OpenAPI document: these, and those that every request may meet."""
    return {code: _description(code) for code in sorted({*_ALWAYS, *codes})}


def answer_problems(api: FastAPI) -> None:
    """Let an application answer as RFC 9457 says, whatever happens."""

    def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), "it is registered for these"
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            error.headers = {"Allow": ", ".join(sorted(_methods(api, request)))}
        return problem_of(error)

    def refuse_request(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError), "it is registered for these"
        faults = error.errors()
        is_json = all(one["type"] != "json_invalid" for one in faults)
        code = 422 if is_json else 400
        return problem(code, _MEANINGS[code], faults=[_fault(one) for one in faults[:_MOST_FAULTS]])

    def refuse_for_now(request: Request, error: Exception) -> Response:
        assert isinstance(error, TransientError), "it is registered for these"
        return busy(error, request.method)

    def give_up(_request: Request, _error: Exception) -> Response:  # it goes on to the pages' handler, which logs it
        return problem(500, "The node has a fault; its log says more.")

    api.add_exception_handler(HTTPException, refuse)
    api.add_exception_handler(RequestValidationError, refuse_request)
    api.add_exception_handler(TransientError, refuse_for_now)
    api.add_exception_handler(Exception, give_up)


def _description(code: int) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": _MEANINGS[code],
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if code in _HEADERS:
        described["headers"] = {_HEADERS[code]: {"required": True, "schema": {"type": "string"}}}
    return described


def _fault(error: dict[str, Any]) -> Fault:
    """Say where a request is wrong; what it said there is not repeated."""
    where = ".".join(str(one) for one in error["loc"])
    return Fault(where=where[:_LONGEST], what=str(error["msg"])[:_LONGEST])


def _methods(api: FastAPI, request: Request) -> set[str]:
    fits = [one for one in api.routes if one.matches(request.scope)[0] is not Match.NONE]
    return {method for one in fits for method in getattr(one, "methods", None) or ()}
