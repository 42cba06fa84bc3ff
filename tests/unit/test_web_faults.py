"""What nobody foresaw on a page: an answer with all headers, and a line of the log that says where it was."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ich_node.web.app import _say_that_it_is_ours
from ich_node.web.pages import Pages
from ich_node.web.site import Site


@pytest.fixture
def client() -> TestClient:
    gate = SimpleNamespace(is_encrypted=lambda _request: False)
    site = cast(Site, SimpleNamespace(pages=Pages("NODE"), gate=gate))
    app = FastAPI()

    @app.get("/")
    def broken() -> Any:
        raise KeyError("Doe^Jane")

    app.add_exception_handler(Exception, _say_that_it_is_ours(site))
    return TestClient(app, raise_server_exceptions=False)


def test_a_person_gets_a_page_with_every_header(client: TestClient) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert "The node has a fault" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


def test_a_script_gets_json(client: TestClient) -> None:
    answer = client.get("/", headers={"Accept": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (500, "the node has a fault; its log says more")


def test_the_log_says_where_and_not_whose(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    client.get("/")
    (line,) = [one for one in caplog.records if one.getMessage() == "fault of a page"]
    fields = line.__dict__["fields"]
    assert (fields["error"], fields["method"]) == ("KeyError", "GET")
    assert fields["where"].startswith("test_web_faults.py:")
    assert "Doe" not in str(fields)
