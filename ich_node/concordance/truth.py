"""What readers' words say of a head: hemorrhage or none, and which."""

from __future__ import annotations

from typing import Final

from ich_node.queries.feedback import SpokenAnswer, Word
from ich_node.records import HEMORRHAGE_CLASSES, Presence, Triage

SUBTYPES: Final = tuple(name for name in HEMORRHAGE_CLASSES if name != "any")


def hemorrhage_by(answer: SpokenAnswer) -> bool | None:
    """Say whether there is hemorrhage; None where readers differ, or nobody said."""
    said = {one for word in answer.words if (one := said_by(answer, word)) is not None}
    return said.pop() if len(said) == 1 else None


def said_by(answer: SpokenAnswer, word: Word) -> bool | None:
    """Say whether a reader sees hemorrhage; None of one who agrees that the answer is indeterminate."""
    if not word.agrees:
        return word.hemorrhage
    return None if answer.triage == Triage.INDETERMINATE else answer.triage == Triage.POSITIVE


def subtypes_by(answer: SpokenAnswer, word: Word) -> frozenset[str] | None:
    """Name the subtypes that a reader sees; None where that is not known.

    Who agrees with a positive answer agrees with its subtypes, as far as it is known which these were.
    """
    hemorrhage = said_by(answer, word)
    if hemorrhage is None:
        return None
    if not hemorrhage:
        return frozenset()
    if not word.agrees:
        return frozenset(word.classes) & frozenset(SUBTYPES) or None
    if answer.presence is None:
        return None
    return frozenset(name for name in SUBTYPES if answer.presence.get(name) == Presence.PRESENT) or None


def sees_subtype(answer: SpokenAnswer, name: str) -> bool | None:
    """Say whether readers see a subtype; None where they differ, or nobody said."""
    known = [one for word in answer.words if (one := subtypes_by(answer, word)) is not None]
    said = {name in one for one in known}
    return said.pop() if len(said) == 1 else None
