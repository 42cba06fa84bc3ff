"""Debian's Prometheus, scraping a node in a test."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.running import free_port, wait_for

_CONFIG = """
global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}
rule_files: [{rules}]
scrape_configs:
  - job_name: ich-node
    static_configs: [{{ targets: ["127.0.0.1:{port}"] }}]
"""


def program(name: str) -> str:
    """A program of Debian's package, or the test is skipped."""
    found = shutil.which(name, path="/usr/bin:/bin")
    if found is None:
        pytest.skip(f"{name} is absent: Debian's package prometheus (scripts/setup installs it as root)")
    return found


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that runs."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The answer to an expression now; one that cannot be evaluated fails the test."""
        answer = self._get("query", query=expression)
        assert answer["status"] == "success", (expression, answer)
        return list(answer["data"]["result"])

    def rules(self) -> list[dict[str, Any]]:
        """Every rule, and how it is."""
        return [rule for group in self._get("rules")["data"]["groups"] for rule in group["rules"]]

    def _get(self, what: str, **parameters: str) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/api/v1/{what}", params=parameters, timeout=20).json())


@contextmanager
def prometheus_of(folder: Path, node_port: int, rules: Path) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes a node's pages, until it has seen them several times."""
    config, port = folder / "prometheus.yml", free_port()
    config.write_text(_CONFIG.format(rules=json.dumps(str(rules)), port=node_port))
    words = [program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'prometheus'}",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]  # fmt: skip
    process = subprocess.Popen(words)
    try:
        running = Prometheus(f"http://127.0.0.1:{port}")
        wait_for(lambda: _has_seen(running), "Prometheus has scraped the node")
        yield running
    finally:
        process.terminate()
        process.wait(30)


def _has_seen(running: Prometheus) -> bool:
    try:
        seen = running.query("sum_over_time(up[5m])")
    except (httpx.HTTPError, ValueError, AssertionError):
        return False
    return bool(seen) and float(seen[0]["value"][1]) >= 3
