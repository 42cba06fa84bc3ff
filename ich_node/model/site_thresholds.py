"""A site's own thresholds: proposed by a validation, signed off by a person, taken by the node for that one model.

The file is sealed with a hash over the rest of it. That is no signature: it finds what was damaged, or edited by hand
so that the figures beside it do not hold any more. Who may write into the state folder may write it.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ich_node.durable import replace_durably, sync_directory
from ich_node.errors import ModelError
from ich_node.model.manifest import OperatingPoint, Thresholds
from ich_node.records import HEMORRHAGE_CLASSES

SITE_THRESHOLDS: Final = "site-thresholds.json"
"""In the state folder."""
_LARGEST: Final = 1024 * 1024


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ValidatedModel(_Record):
    """The model that was validated."""

    name: str
    version: str
    sha256: str = Field(pattern=r"[0-9a-f]{64}")
    """Of its manifest, which names the hashes of all other files."""


class ValidatedData(_Record):
    """What the thresholds rest on."""

    labels: str
    """SHA-256 of the table of labels."""
    studies: int = Field(ge=0)
    """That were analysed and labelled."""
    positives: int = Field(ge=0)
    received_from: float | None = None
    """When the first of them was received, in seconds since 1970; None where that is not known."""
    received_until: float | None = None


class SignedOff(_Record):
    """Who answers for it."""

    by: str = Field(min_length=1)
    at: float
    reason: str = Field(min_length=1)

    def in_words(self) -> str:
        """Say who and when."""
        return f"signed off by {self.by} on {datetime.fromtimestamp(self.at, UTC):%Y-%m-%d}"


class SiteThresholds(_Record):
    """The whole file."""

    format_version: Literal[1] = 1
    model: ValidatedModel
    thresholds: dict[str, Thresholds]
    site_classes: tuple[str, ...]
    """Whose thresholds were chosen on the site's own studies; those of the others are as they were."""
    operating_points: dict[str, OperatingPoint]
    """What was measured at them, on the site's studies."""
    data: ValidatedData
    proposed_at: float
    proposed_by: str
    """Which version of the node."""
    signed_off: SignedOff | None = None

    @field_validator("thresholds", "operating_points")
    @classmethod
    def _names_every_class(cls, per_class: dict[str, Any]) -> dict[str, Any]:
        if set(per_class) != set(HEMORRHAGE_CLASSES):
            raise ValueError(f"one entry for each of {', '.join(HEMORRHAGE_CLASSES)} is needed")
        return per_class

    def measured(self, name: str) -> str:
        """Say what was measured of a class. One that the site has no positives of keeps its thresholds."""
        point = self.operating_points[name]
        return point.in_words(name) if point.positives else f"{name}: no positive study of the site to measure on"

    def in_words(self) -> str:
        """Say who signed off what."""
        assert self.signed_off is not None, "what is used is signed off"
        return f"{self.signed_off.in_words()}, for {', '.join(self.site_classes) or 'no class'}"

    def to_bytes(self) -> bytes:
        """Write it as JSON, sealed."""
        fields = self.model_dump(mode="json")
        return (json.dumps(fields | {"seal": _seal(fields)}, indent=2) + "\n").encode()


def read_thresholds(path: Path) -> SiteThresholds:
    """Read proposed or signed thresholds.

    Raises:
        ModelError: the file is damaged, was edited, or cannot be read.
    """
    if not path.is_file():
        raise ModelError(f"{path}: the thresholds cannot be read: there is no such file")
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise ModelError(f"{path}: the thresholds cannot be read: {error.strerror}") from error
    try:
        fields = json.loads(content) if len(content) <= _LARGEST else None
        seal = fields.pop("seal", None) if isinstance(fields, dict) else None
        found = SiteThresholds.model_validate_json(json.dumps(fields))
    except (ValueError, RecursionError):
        raise ModelError(f"{path}: no thresholds of a site, or damaged") from None
    if seal != _seal(found.model_dump(mode="json")):
        raise ModelError(
            f"{path}: it was changed since it was written, so the figures in it do not hold: validate again"
        )
    return found


def signed_thresholds(state_directory: Path) -> SiteThresholds | None:
    """Give the thresholds that were signed off for this node; None where there are none.

    Raises:
        ModelError: the file is there, and is damaged or not signed off. Other thresholds are not used in its place.
    """
    path = state_directory / SITE_THRESHOLDS
    if not path.is_symlink() and not path.exists():
        return None
    advice = "restore it, or take it away with `ich-node thresholds remove`"
    try:
        found = read_thresholds(path)
    except ModelError as error:
        raise ModelError(f"{error}; {advice}") from error
    if found.signed_off is None:
        raise ModelError(f"{path}: nobody signed these thresholds off; {advice}")
    return found


def sign_off(proposed: SiteThresholds, state_directory: Path, by: str, reason: str, at: float) -> SiteThresholds:
    """Write thresholds into the state folder, in the place of earlier ones."""
    signed = proposed.model_copy(update={"signed_off": SignedOff(by=by, at=at, reason=reason)})
    path = state_directory / SITE_THRESHOLDS
    replace_durably(path, [signed.to_bytes()])
    path.chmod(0o600)
    return signed


def remove_thresholds(state_directory: Path) -> bool:
    """Take the site's thresholds away, damaged or not. False: there are none."""
    path = state_directory / SITE_THRESHOLDS
    if not path.is_symlink() and not path.exists():
        return False
    path.unlink()
    sync_directory(state_directory)
    return True


def _seal(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
