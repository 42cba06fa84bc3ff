"""What readers say → a table of labels that ``ich-train prepare --labels`` reads.

It holds UIDs and labels alone. A row of a series says what is somewhere in it; a row of a slice, what that slice shows.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ich_node.concordance.truth import SUBTYPES, said_by, subtypes_by
from ich_node.queries.feedback import SpokenAnswer, Word

COLUMNS: Final = ("sop_instance_uid", "series_instance_uid", "study_instance_uid", "level", "any", *SUBTYPES)


@dataclass(frozen=True, slots=True)
class LabelTable:
    """A table of labels."""

    csv: str
    studies: tuple[str, ...]
    """Study Instance UIDs of those in it."""
    left_out: int
    """Studies that readers spoke of, and that cannot be labelled: they differ, or it is not known what they see."""


Spoken = tuple[SpokenAnswer, Word]


def label_table(answers: Sequence[SpokenAnswer]) -> LabelTable:
    """Write what readers say of each study, whatever revision they spoke of: a head stays as it is."""
    of_study: defaultdict[str, dict[str, Spoken]] = defaultdict(dict)
    for answer in answers:
        for word in answer.words:
            before = of_study[answer.study_instance_uid].get(word.reader)
            if before is None or before[1].given_at <= word.given_at:
                of_study[answer.study_instance_uid][word.reader] = answer, word
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    labelled = []
    for study, spoken in of_study.items():
        if rows := list(_rows(list(spoken.values()))):
            labelled.append(study)
            writer.writerows(rows)
    return LabelTable(text.getvalue(), tuple(labelled), len(of_study) - len(labelled))


def _rows(spoken: Sequence[Spoken]) -> Iterator[tuple[object, ...]]:
    """Give the rows of a study; none where readers differ, or one sees hemorrhage and it is not known which."""
    told = [(answer, word) for answer, word in spoken if said_by(answer, word) is not None]
    seen = {subtypes_by(answer, word) for answer, word in told}
    if len(seen) != 1 or (subtypes := seen.pop()) is None:
        return
    answer = spoken[-1][0]
    labels = (int(bool(subtypes)), *(int(name in subtypes) for name in SUBTYPES))
    level = "series" if answer.series_instance_uid else "study"
    yield "", answer.series_instance_uid, answer.study_instance_uid, level, *labels
    if len(subtypes) == 1:  # of several it is not known which of them a slice shows
        pointed = {uid: None for _, word in told if not word.agrees for uid, frame in word.slices if frame is None}
        for uid in pointed:
            yield uid, answer.series_instance_uid, answer.study_instance_uid, "slice", *labels
