"""The pages of a node, as a monitoring reads them."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Pages:
    """Pages that are served at a port of this machine."""

    port: int

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=60)

    def metrics(self) -> dict[tuple[str, str], float]:
        """Each sample by its name and the values of its labels."""
        families = text_string_to_metric_families(self.get("/metrics").text)
        return {(one.name, ",".join(one.labels.values())): one.value for family in families for one in family.samples}

    def not_ready(self) -> set[str]:
        """What the node says that it lacks."""
        answer = self.get("/readyz")
        found = {name for name, state in answer.json()["checks"].items() if state != "ok"}
        assert answer.status_code == (503 if found else 200)
        return found
