"""What marks the node's own test, and how one stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

SELF_TEST_AE_TITLE: Final = "ICH_SELF_TEST"
"""Under which the node calls itself; from nowhere but this machine, and only with a study that it has reserved."""
SELF_TEST_PATIENT_ID: Final = "ICH-NODE-SELF-TEST"
SELF_TEST_ISSUER: Final = "ICH-NODE-SELF-TEST"
SELF_TEST_PATIENT_NAME: Final = "ICH-NODE^SELF-TEST"
SELF_TEST_PRIORITY: Final = -1000
"""Behind whatever a site's rules put last."""
BY_SCHEDULE: Final = ""
"""Who asked for a test that nobody asked for."""


def is_self_test_patient(patient_id: str, issuer: str) -> bool:
    """Say whether a header names the reserved patient."""
    return patient_id == SELF_TEST_PATIENT_ID and issuer == SELF_TEST_ISSUER


@dataclass(frozen=True, slots=True)
class SelfTestToRun:
    """A test that was asked for."""

    id: int
    study_instance_uid: str
    accepts_score: bool
    """Whatever the phantom scores is what later tests are compared with."""


@dataclass(frozen=True, slots=True)
class SelfTestVerdict:
    """How a test ended."""

    passed: bool | None
    """None: it was stopped, and says nothing."""
    fault: str = ""
    seconds: float | None = None
    """From the first byte to the saved report."""
    steps: Mapping[str, float] | None = None
    triage: str | None = None
    probability: float | None = None
    """Of any hemorrhage."""
    model_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class SelfTestStatus:
    """A test for a person to read."""

    id: int
    asked_at: float
    asked_by: str
    """Empty: nobody, it was time."""
    started_at: float | None
    finished_at: float | None
    passed: bool | None
    fault: str
    seconds: float | None
    steps: Mapping[str, float]
    triage: str | None
    probability: float | None
    model_sha256: str | None

    @property
    def outcome(self) -> str:
        """Say in a word how it stands."""
        if self.finished_at is not None:
            return "stopped" if self.passed is None else "passed" if self.passed else "failed"
        return "waiting" if self.started_at is None else "running"

    @property
    def says(self) -> str:
        """Say how it went, in a line."""
        parts = [self.outcome]
        if self.seconds is not None:
            parts.append(f"{self.seconds:.1f} s to the report")
        if self.triage is not None:
            parts.append(self.triage)
        if self.probability is not None:
            parts.append(f"any hemorrhage {self.probability:.3f}")
        return ", ".join(parts) + (f": {self.fault}" if self.fault else "")
