"""The section of the configuration on the node's own test, and what the other sections must leave to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from ich_node.config.values import PositiveSeconds, Section
from ich_node.records.self_tests import SELF_TEST_AE_TITLE

_SECONDS_A_MINUTE: Final = 60.0


class SelfTestSettings(Section):
    """``[self_test]``: a phantom that the node sends to itself."""

    enabled: bool = True
    every_min: Annotated[float, Field(gt=0, le=1440, allow_inf_nan=False)] = 15
    limit_s: PositiveSeconds = 300
    expect: Literal["positive", "any"] = "positive"
    lesion: Literal["epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural"] = "intraparenchymal"

    @property
    def every_s(self) -> float:
        return self.every_min * _SECONDS_A_MINUTE

    @property
    def silence_s(self) -> float:
        """After so long without a test that has ended, somebody is told."""
        return 2 * self.every_s + self.limit_s


def faults_of_reserved_ae_title(values: dict[str, Any]) -> Iterator[str]:
    """Name who is called as the node's own test is. Looks at raw values."""
    named = [("node", values.get("node")), ("query", values.get("query"))]
    for section in ("peer", "destination"):
        tables = values.get(section)
        named += [(f"{section}.{number}", one) for number, one in enumerate(tables if isinstance(tables, list) else [])]
    for name, table in named:
        title = table.get("ae_title") if isinstance(table, dict) else None
        if isinstance(title, str) and title.strip() == SELF_TEST_AE_TITLE:
            yield f"{name}.ae_title = {title!r}: is the node's own, for its self-test; nobody else may have it"
