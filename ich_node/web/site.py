"""What the routes of the pages share."""

from __future__ import annotations

from dataclasses import dataclass

from ich_node.alert_links import AlertLinks
from ich_node.config import Config
from ich_node.database import Database
from ich_node.web.audit import PageAudit
from ich_node.web.folder_sizes import FolderSizes
from ich_node.web.gate import Gate
from ich_node.web.live import LiveFeed
from ich_node.web.pages import Pages
from ich_node.web.patients import Patients
from ich_node.web.slices import SliceReader


@dataclass(frozen=True, slots=True)
class Site:
    """The pages of one node, and what they are made from."""

    config: Config
    database: Database
    links: AlertLinks
    audit: PageAudit
    gate: Gate
    pages: Pages
    patients: Patients
    live: LiveFeed
    slices: SliceReader
    sizes: FolderSizes
