"""Where roles are killed: at every declared place, within system calls, and at any moment."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from ich_node.failpoint import Point

_FILE = ("file-half-written", "file-before-sync", "file-before-rename", "file-before-folder-sync")
_COMMIT = ("commit-before", "commit-after")

_REACHED_OFTEN: Final[dict[str, dict[str, int]]] = {
    "receive": {"object-received": 11, "instance-before-row": 10, "answer-before-send": 11, "release-before-note": 1,
                "commitment-answer-stored": 1}
    | dict.fromkeys(_FILE, 10) | dict.fromkeys(_COMMIT, 10),
    "work": {"series-claimed": 3, "instances-read": 2, "instances-saved": 2, "planes-scored": 3, "planes-saved": 3,
             "series-closed": 1, "report-before-save": 1, "report-before-row": 1, "conclusion-before-commit": 1,
             "concluded": 1, "leases-before-release": 3, "no-result-before-row": 1}
    | dict.fromkeys(_FILE, 1) | dict.fromkeys(_COMMIT, 6),
    "deliver": {"delivery-claimed": 1, "delivery-before-send": 1, "delivery-stored": 1, "delivery-noted": 1,
                "alert-entered": 1, "alert-claimed": 1, "alert-told": 1, "alert-noted": 1,
                "commitment-before-ask": 1, "commitment-asked": 1, "commitment-answer-stored": 1,
                "commitment-answer-matched": 1} | dict.fromkeys(_COMMIT, 4),
    "expire": {"images-forgotten": 1, "results-forgotten": 1, "stray-before-unlink": 1} | dict.fromkeys(_COMMIT, 1),
}  # fmt: skip
"""By role the places that a study leads to, and up to how many times."""

_WITHIN: Final[dict[str, dict[str, int]]] = {
    "receive": {"recv": 40, "send": 12},
    "deliver": {"send": 6},
}
"""In the middle of a system call: half an object came, half an answer or half a report left."""

LONGEST_RANDOM_S: Final = 0.7


@dataclass(frozen=True)
class Strike:
    """One way to kill one role."""

    role: str
    place: str
    nth: int = 1
    within: bool = False
    after_s: float | None = None
    """Killed from outside, this long after its start."""
    apart: bool = False
    """One of several processes of the receiver is killed, and the first of them lives."""

    @property
    def label(self) -> str:
        return f"{self.role}{', one of two' if self.apart else ''}: {'within ' if self.within else ''}{self.place}"

    @property
    def arms(self) -> dict[str, Any]:
        """What the role is started with."""
        if self.after_s is not None:
            return {}
        return {"within": [self.place, self.nth]} if self.within else {"failpoint": f"{self.place}:{self.nth}"}


ADOPTION: Final = Strike("receive", "adopted-before-row")
"""Dies on what an earlier death left: only after one of ``leaves_an_orphan``."""

MIGRATION: Final = Strike("receive", "migrated-before-commit")
CHECKPOINT: Final = Strike("receive", "checkpoint", within=True)


FIRST_OF_TWO: Final = Strike("receive", "the first of two, any moment", after_s=0.0)
ONE_OF_TWO: Final = Strike("receive", "any moment", after_s=0.0, apart=True)


def leaves_an_orphan(strike: Strike) -> bool:
    return strike.role == "receive" and strike.place in ("instance-before-row", "file-before-folder-sync")


def strikes_of(role: str, chance: random.Random, *, whole: bool = True) -> list[Strike]:
    """Give one strike for each place of a role, its time chosen at random.

    Args:
        whole: the study that is sent next gets a result; else it is too short for one.
    """
    wrong = ("no-result-before-row",) if whole else ("planes-scored", "planes-saved")
    places = {name: most for name, most in _REACHED_OFTEN[role].items() if name not in wrong}
    found = [Strike(role, name, chance.randint(1, most)) for name, most in places.items()]
    found += [Strike(role, name, chance.randint(1, most), within=True) for name, most in _WITHIN.get(role, {}).items()]
    if role != "expire":
        found.append(Strike(role, "any moment", after_s=chance.uniform(0.0, LONGEST_RANDOM_S)))
    return found


def every_label() -> list[str]:
    """Name every kind of strike that is to come; others at one of two receivers come besides."""
    chance = random.Random(0)
    found = [one for role in _REACHED_OFTEN for whole in (True, False) for one in strikes_of(role, chance, whole=whole)]
    return sorted({one.label for one in (*found, ADOPTION, MIGRATION, CHECKPOINT, FIRST_OF_TWO, ONE_OF_TWO)})


def is_of_the_end(label: str) -> bool:
    """Tell what a node is killed by when its life ends anyway."""
    return label.startswith("expire") or label == CHECKPOINT.label


def declared_points() -> Sequence[str]:
    """Name every place that the node declares."""
    return get_args(Point)
