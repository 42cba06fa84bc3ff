"""``ich-node score-archive pacs://AE_TITLE``: the words about a PACS as the archive."""

from __future__ import annotations

import argparse
import re
from datetime import date
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ich_node.archive_scoring.from_pacs import PacsRequest
    from ich_node.archive_scoring.pace import Hours
    from ich_node.config import Config
    from ich_node.records import Destination

_SCHEME: Final = "pacs://"
_AE_TITLE: Final = "ICH_ARCHIVE"
_PORT: Final = 11113
_MOVE_RESPONSE_S: Final = 600.0
"""For each response to a C-MOVE: some PACS send none before the whole series has gone, from tape perhaps."""
_FOR_A_PACS: Final = ("begin", "end", "study_description", "body_part", "per_hour", "hours", "ae_title", "port")


def with_pacs(parser: argparse.ArgumentParser) -> None:
    """Give the command the options of a PACS as source."""
    pacs = parser.add_argument_group(f"a PACS as SOURCE ({_SCHEME}AE_TITLE)")
    pacs.add_argument("--from", dest="begin", type=date.fromisoformat, metavar="DAY", help="first day, as 2024-01-31")
    pacs.add_argument("--to", dest="end", type=date.fromisoformat, metavar="DAY", help="last day, inclusive")
    pacs.add_argument("--study-description", metavar="PATTERN", help="only such studies; * and ? are wild")
    pacs.add_argument("--body-part", metavar="PATTERN", help="only series with such a BodyPartExamined")
    pacs.add_argument("--per-hour", type=positive, metavar="N", help="series that are asked for at most (default 120)")
    pacs.add_argument("--hours", type=_hours, metavar="H-H", help="hours of the day in which the PACS is asked: 19-7")
    pacs.add_argument("--ae-title", metavar="TITLE", help=f"of this command (default {_AE_TITLE})")
    pacs.add_argument("--port", type=positive, metavar="P", help=f"that the PACS sends to (default {_PORT})")


def positive(text: str) -> int:
    """Read a number of things, for argparse."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("a whole number above 0")
    return value


def _hours(text: str) -> Hours:
    from ich_node.archive_scoring.pace import Hours

    found = re.fullmatch(r"(\d{1,2})-(\d{1,2})", text)
    begin, end = (int(found[1]), int(found[2]) % 24) if found else (24, 0)
    if begin > 23 or begin == end or (found and int(found[2]) > 24):
        raise argparse.ArgumentTypeError("two hours of the day, such as 19-7")
    return Hours(begin, end)


def is_pacs(source: str) -> bool:
    """Say whether a source is a PACS."""
    return source.startswith(_SCHEME)


def fault_of_pacs(options: argparse.Namespace) -> str | None:
    """Say what is wrong with the words about a PACS; None where nothing is."""
    if not any(map(is_pacs, options.sources)):
        given = [name for name in _FOR_A_PACS if getattr(options, name) is not None]
        return f"{_as_option(given[0])} is for a PACS as source: {_SCHEME}AE_TITLE" if given else None
    if len(options.sources) > 1:
        return "a PACS is the only source of a run; score other sources by a run of their own"
    if options.begin is None or options.end is None:
        return "name the days that the PACS is asked for: --from 2024-01-01 --to 2024-12-31"
    if options.begin > options.end:
        return f"--from {options.begin} is later than --to {options.end}"
    if len(options.ae_title or "") > 16:
        return "--ae-title: at most 16 characters"
    return None


def _as_option(name: str) -> str:
    return {"begin": "--from", "end": "--to"}.get(name, f"--{name.replace('_', '-')}")


def request_of(options: argparse.Namespace, config: Config) -> PacsRequest:
    """Say what is wanted of which PACS.

    Raises:
        StartError: the configuration names no such PACS, or several.
    """
    from ich_node.archive_scoring.from_pacs import PacsRequest
    from ich_node.archive_scoring.pace import Politeness
    from ich_node.archive_scoring.retrieving import PacsAccess
    from ich_node.association import Patience
    from ich_node.query_retrieve import WantedSeries

    connect_s, response_s = config.delivery.connect_timeout_s, config.delivery.response_timeout_s
    access = PacsAccess(
        pacs=_pacs(options.sources[0].removeprefix(_SCHEME), config),
        ae_title=options.ae_title or _AE_TITLE,
        port=options.port or _PORT,
        queries=Patience(connect_s, response_s),
        moves=Patience(connect_s, max(response_s, _MOVE_RESPONSE_S)),
    )
    usual = Politeness()
    return PacsRequest(
        access,
        options.begin,
        options.end,
        WantedSeries(options.study_description or "", options.body_part or ""),
        Politeness(options.per_hour or usual.per_hour, options.hours),
    )


def _pacs(name: str, config: Config) -> Destination:
    from ich_node.errors import StartError
    from ich_node.routing import pacs_named

    found = pacs_named(config, name)
    if not found:
        raise StartError(
            f"{_SCHEME}{name}: no such PACS in the configuration; enter its AE title, host and port as [query] or as a "
            "[[destination]], and name the file with --config"
        )
    if len(found) > 1:
        places = ", ".join(f"{one.host}:{one.port}" for one in found)
        raise StartError(f"{_SCHEME}{name}: several go by this name ({places}); name a [[destination]] by its name")
    return found[0]
