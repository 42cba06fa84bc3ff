"""Roles, each with all that the one before it may do."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What somebody may do."""

    VIEWER = "viewer"
    """Sees studies, findings and the state of the node; nothing that says whose study it is, and no images."""
    READER = "reader"
    """Sees patients and images, too; acknowledges alerts and gives feedback."""
    OPERATOR = "operator"
    """Looks after queue, deliveries, quarantine and disk, too."""
    ADMINISTRATOR = "administrator"
    """Looks after accounts, sees configuration and audit trail, too."""

    @property
    def rank(self) -> int:
        return list(Role).index(self)

    def includes(self, other: Role) -> bool:
        """Say whether it may do what another may."""
        return self.rank >= other.rank
