"""Look for known weaknesses of the pinned parts: ``python -m release.audit``. Ends with 1 where there is one.

Where the database of weaknesses cannot be reached, that is said, and is no failure: a check without a network must not
stand in the way, and must not pass for a clean one either. Whatever else goes wrong is a failure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from release.parts import REQUIREMENTS, pinned

_LONGEST_S: Final = 60
_ANSWER_S: Final = 5

_NO_NETWORK: Final = ("requests.exceptions.", "urllib3.exceptions.", "Could not connect to", "not redirecting properly")
"""What pip-audit writes where it has no answer."""

NOT_REACHED: Final = "NOT AUDITED: the database of known weaknesses cannot be reached from here"


def ask(requirements: Path = REQUIREMENTS) -> list[dict[str, Any]] | None:
    """Ask pip-audit about every pin; None where it got no answer.

    Raises:
        RuntimeError: it failed by itself.
    """
    program = Path(sys.executable).with_name("pip-audit")
    options = [
        "--no-deps",
        "--disable-pip",
        "--format",
        "json",
        "--progress-spinner",
        "off",
        "--timeout",
        str(_ANSWER_S),
    ]
    command = [program, *options, "--requirement", requirements]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LONGEST_S)
    except subprocess.TimeoutExpired:
        return None
    try:
        found: list[dict[str, Any]] = json.loads(told.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError) as error:
        if any(words in told.stderr for words in _NO_NETWORK):
            return None
        raise RuntimeError(f"pip-audit failed: {told.stderr[-500:].strip()}") from error
    return found


def judge(found: list[dict[str, Any]] | None) -> tuple[int, list[str]]:
    """Say what the answers come to: the exit status, and lines for people."""
    answered = [one for one in found or () if "vulns" in one]
    if not answered:
        return 0, [NOT_REACHED]
    lines = []
    for part in answered:
        for weakness in part["vulns"]:
            mended = ", ".join(weakness["fix_versions"]) or "none yet"
            lines.append(f"{part['name']} {part['version']}: {weakness['id']} (mended in: {mended})")
    silent = sorted(one["name"] for one in found or () if "vulns" not in one)
    unknown = [f"not audited, unknown to the database: {', '.join(silent)}"] if silent else []
    if lines:
        return 1, lines + unknown
    return 0, [f"no known weakness in {len(answered)} parts", *unknown]


def main() -> int:
    """Audit what is pinned.

    Raises:
        RuntimeError: nothing is, or pip-audit failed by itself.
    """
    if not pinned():
        raise RuntimeError("nothing is pinned")
    status, lines = judge(ask())
    sys.stdout.write("".join(f"audit: {line}\n" for line in lines))
    return status


if __name__ == "__main__":
    sys.exit(main())
