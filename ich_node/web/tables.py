"""Tables of the worklist that were made a moment ago: many browsers ask for the same one at every change."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from fastapi import HTTPException

from ich_node.queries import WorklistQuery, worklist
from ich_node.web.gate import Visitor
from ich_node.web.lines import lines_of
from ich_node.web.patients import Patient
from ich_node.web.site import Site

_MOST: Final = 32

_Key = tuple[WorklistQuery, bool]
"""What was asked, and whether patients are shown."""


@dataclass(frozen=True, slots=True)
class MadeTable:
    """A table, and whom it shows."""

    html: str
    patients: tuple[tuple[Patient, str], ...]
    """Each with its Study Instance UID."""


class WorklistTables:
    """Makes tables, and keeps those of the newest version of the worklist."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._version: int | None = None
        self._tables: OrderedDict[_Key, MadeTable] = OrderedDict()

    def html(self, asked: WorklistQuery, visitor: Visitor, address: str) -> str:
        """Give the table that somebody asks for, and record which patients it shows.

        Raises:
            HTTPException: 404, no page ended where this one is to go on.
        """
        key, version = (asked, visitor.sees_patients), self._site.live.version
        made = self._kept(version, key) or self._make_once(version, key, visitor)
        if visitor.sees_patients:
            self._site.audit.patients_listed(visitor.name, made.patients, address)
        return made.html

    def _make_once(self, version: int | None, key: _Key, visitor: Visitor) -> MadeTable:
        """Make it, unless somebody has who came a moment before."""
        with self._making:
            made = self._kept(version, key)
            if made is None:
                made = self._make(key[0], visitor)
                self._keep(version, key, made)
        return made

    def _make(self, asked: WorklistQuery, visitor: Visitor) -> MadeTable:
        try:
            page = worklist(self._site.database, asked)
        except ValueError:
            raise HTTPException(404) from None
        lines = lines_of(page.studies, self._site, visitor)
        patients = tuple((one.patient, one.study.status.study_instance_uid) for one in lines)
        return MadeTable(self._site.pages.worklist_table(lines, asked, page.next_after, visitor), patients)

    def _kept(self, version: int | None, key: _Key) -> MadeTable | None:
        """None also where changes are not seen now."""
        with self._lock:
            return self._tables.get(key) if version is not None and version == self._version else None

    def _keep(self, version: int | None, key: _Key, table: MadeTable) -> None:
        """Keep a table of a version; one that changed while the table was made is newer."""
        with self._lock:
            if version != self._version:
                self._version = version
                self._tables.clear()
            self._tables[key] = table
            while len(self._tables) > _MOST:
                self._tables.popitem(last=False)
