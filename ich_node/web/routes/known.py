"""The study that an address names."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from fastapi import HTTPException

from ich_node.queries import WorklistStudy, worklist_line
from ich_node.web.site import Site

UID: Final = re.compile(r"[0-9.]{1,64}")


def knowing(site: Site) -> Callable[[str], WorklistStudy]:
    """Make a dependency: the study of an address. It raises HTTPException 404 where the node does not know it."""

    def known_study(study: str) -> WorklistStudy:
        found = worklist_line(site.database, study, in_full=True) if UID.fullmatch(study) else None
        if found is None:
            raise HTTPException(404)
        return found

    return known_study
