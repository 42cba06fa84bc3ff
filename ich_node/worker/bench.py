"""What every part of the worker works with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ich_node.config import Config, Mode
from ich_node.database import Database
from ich_node.decode import DecoderPool
from ich_node.pipeline import Model
from ich_node.plane_reader import PlaneReader
from ich_node.records import Destination, EligibilityRules, StudySent
from ich_node.routing import destinations_for, mode_for, peer_of
from ich_node.stored_files import StoredFiles

LEASE_S: Final = 60.0
PLANES_AT_ONCE: Final = 16


def batch_of(model: Model) -> int:
    """Say how many planes are scored and saved at once: so few that they are decoded within a lease."""
    return max(1, min(model.engine.batch_size, PLANES_AT_ONCE))


@dataclass(frozen=True, slots=True, eq=False)
class Workbench:
    """Settings, database, files, model and decoder of one worker, and the name its leases carry."""

    config: Config
    database: Database
    files: StoredFiles
    model: Model
    decoder: DecoderPool
    reader: PlaneReader
    rules: EligibilityRules
    installation_uid: str
    owner: str
    alive: Callable[[], None]
    """Called after every slice, however long it took: decoding may time out on each of many."""
    striking: set[int] = field(default_factory=set)
    """Series with a slice far above the high threshold, of which nobody was told yet."""

    @property
    def model_sha256(self) -> str:
        return self.model.identity.sha256

    def file(self, name: str) -> Path:
        """Give a path to read a file at, by the name that the database has for it."""
        return self.files.path(name)

    def files_of(self, names: Iterable[str]) -> list[Path]:
        """Give paths to read several files at, in their order."""
        return list(self.files.paths(names))

    def destinations(self, study: StudySent) -> tuple[Destination, ...]:
        """List where the results of a study go."""
        return tuple(destinations_for(self.config, study))

    def mode(self, calling_ae_title: str, remote_address: str) -> Mode:
        """Say what of a sender's studies leaves the node."""
        return mode_for(self.config, peer_of(self.config, calling_ae_title, remote_address))
