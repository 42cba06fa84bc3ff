"""The API does what its OpenAPI document says, whatever it is asked (schemathesis); docs/api.md tells of all of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.schemas import APIOperation

from ich_node.accounts import Role
from tests.rest_api import ApiSite, api_site, next_name

DOCUMENT = Path(__file__).parents[2] / "docs/api.md"
WANTED = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "response_headers_conformance", "negative_data_rejection", "positive_data_acceptance", "allow_header_conformance",
)  # fmt: skip
TOKENS = 40
"""More than can be used up: a token may ask 20 times a second."""
quick = settings(
    max_examples=6, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiSite]:
    """One ``ich-node web`` for all tests."""
    with api_site(tmp_path_factory.mktemp("api")) as served:
        yield served


@pytest.fixture(scope="module")
def document(site: ApiSite) -> dict[str, Any]:
    described: dict[str, Any] = site.program(Role.VIEWER).get("/openapi.json").json()
    return described


def known(site: ApiSite) -> dict[str, Any]:
    """Name a study, an alert and an object that there are."""
    uid = site.add_study()
    found = site.program(Role.READER).get(f"/studies/{uid}").json()
    return {"study": uid, "alert": found["alerts"][0]["identifier"], "name": found["objects"][0]["name"]}


def questions(operation: APIOperation, names: dict[str, Any]) -> st.SearchStrategy[Case]:
    """Draw what an operation may be asked, and what not; of studies that there are, and of others."""
    there = {one.name: names[one.name] for one in operation.path_parameters}
    return st.one_of(
        operation.as_strategy(mode, path_parameters=one)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        for one in ((there, None) if there else (None,))
    )


def ask_everything(site: ApiSite, document: dict[str, Any], how: settings) -> set[int]:
    """Ask each operation, check every answer, and give the statuses that came."""
    schema, names = schemathesis.openapi.from_dict(document), known(site)
    tokens = cycle(site.token(next_name("asks"), Role.OPERATOR) for _ in range(TOKENS))
    checks = CHECKS.get_by_names(WANTED)
    seen: set[int] = set()
    with requests.Session() as session:
        for found in schema.get_all_operations():
            operation = found.ok()

            @how
            @given(case=questions(operation, names))
            def ask(case: Case) -> None:
                headers = {"Authorization": f"Bearer {next(tokens)}"}
                answer = case.call(base_url=site.url, session=session, headers=headers)
                case.validate_response(answer, checks=checks)
                seen.add(answer.status_code)

            ask()
    return seen


def test_every_operation_answers_as_its_document_says(site: ApiSite, document: dict[str, Any]) -> None:
    seen = ask_everything(site, document, quick)
    assert {200, 201, 202, 404, 422} <= seen
    assert 429 not in seen


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_operation_answers_as_its_document_says_for_long(site: ApiSite, document: dict[str, Any]) -> None:
    seen = ask_everything(site, document, settings(quick, max_examples=100, derandomize=False))
    assert {200, 201, 202, 404, 422} <= seen


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_schemathesis_itself_finds_nothing_in_any_of_its_phases(site: ApiSite, tmp_path: Path) -> None:
    token = site.token(next_name("schemathesis"), Role.OPERATOR)
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{site.url}/openapi.json", "--url", site.url,
        "--header", f"Authorization: Bearer {token}", "--rate-limit", "15/s", "--max-examples", "25",
        "--mode", "all", "--checks", "all", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=850, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_example_of_the_documentation_lists_the_findings(site: ApiSite) -> None:
    uid = site.add_study(told=False)
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    environment = os.environ | {"API": site.url, "TOKEN": site.token(next_name("example"), Role.VIEWER)}
    done = subprocess.run(
        [sys.executable, "-c", example], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{uid} None 1.0.0 {{'any': 0.97" in done.stdout


def test_documentation_names_every_path_and_its_methods(document: dict[str, Any]) -> None:
    text = DOCUMENT.read_text()
    assert document["paths"]
    for path, operations in document["paths"].items():
        for method in operations:
            assert f"`{method.upper()} /api/v1{path}`" in text
