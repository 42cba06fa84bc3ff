"""Sidecars of all shards → groups, folds, the table of slices, the manifest: a set that is whole."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from ich_node import __version__
from ich_node.durable import replace_durably
from ich_node.errors import TrainingError
from ich_node.records import HEMORRHAGE_CLASSES
from ich_node.training.hu_code import HU_OF_CODE
from ich_node.training.prepare.duplicates import groups_of
from ich_node.training.prepare.folds import assign_folds
from ich_node.training.prepare.shard import Sidecar
from ich_node.training.prepared import MANIFEST, TABLE, FoldRule, LeftOut, PreparedManifest, SliceRow, write_rows


def finish(
    directory: Path, sidecars: Sequence[Path], rule: FoldRule, left_out: Sequence[LeftOut], terms: Mapping[str, str]
) -> None:
    """Merge what the children wrote; the manifest comes last.

    Raises:
        TrainingError: no slice could be used, or there are too few groups for the folds.
    """
    (directory / MANIFEST).unlink(missing_ok=True)
    found = [read_sidecar(path) for path in sidecars]
    left_out = sorted(
        (*left_out, *(one for sidecar in found for one in sidecar.left_out)), key=lambda one: one.image_id
    )
    rows = _with_folds(found, rule, left_out)
    manifest = PreparedManifest(
        made_by=f"ich-node {__version__}",
        hu_of_code=tuple(map(float, HU_OF_CODE)),
        shards=tuple(sidecar.shard for sidecar in found if sidecar.shard),
        table_sha256=write_rows(directory / TABLE, rows),
        counts=_counts(rows),
        fold_counts=_fold_counts(rows),
        folds=rule,
        repairs=dict(sorted(sum((Counter(sidecar.repairs) for sidecar in found), Counter()).items())),
        left_out=tuple(left_out),
        terms=dict(terms),
    )
    replace_durably(directory / MANIFEST, [manifest.model_dump_json(indent=1).encode()])


def _with_folds(found: Sequence[Sidecar], rule: FoldRule, left_out: Sequence[LeftOut]) -> list[SliceRow]:
    rows = [row for sidecar in found for row in sidecar.rows]
    if not rows:
        reasons = Counter(one.reason for one in left_out).most_common(3)
        why = "; ".join(f"{count} times: {reason}" for reason, count in reasons)
        raise TrainingError(f"no slice could be used ({why}); mend the source and prepare it into an empty folder")
    hashes = [one for sidecar in found for one in sidecar.hashes]
    groups = groups_of(rows, hashes, rule.near_duplicate_bits)
    folds = assign_folds(rows, groups, rule.folds, rule.seed)
    return [replace(row, group=group, fold=fold) for row, group, fold in zip(rows, groups, folds, strict=True)]


def read_sidecar(path: Path) -> Sidecar:
    """Read what a child wrote of its shard.

    Raises:
        TrainingError: it is damaged.
    """
    try:
        return Sidecar.model_validate_json(path.read_bytes())
    except ValidationError:
        raise TrainingError(f"{path}: not understood; delete it and run the same command again") from None


def _counts(rows: Iterable[SliceRow]) -> dict[str, dict[str, int]]:
    by_source: dict[str, list[SliceRow]] = {}
    for row in rows:
        by_source.setdefault(row.source, []).append(row)
    return {
        source: {"slices": len(some), "patients": len({row.patient_id for row in some} - {""})} | _positives(some)
        for source, some in sorted(by_source.items())
    }


def _fold_counts(rows: Iterable[SliceRow]) -> dict[str, dict[str, int]]:
    by_fold: dict[int, list[SliceRow]] = {}
    for row in rows:
        by_fold.setdefault(row.fold, []).append(row)
    return {
        str(fold): {"slices": len(some), "groups": len({row.group for row in some})} | _positives(some)
        for fold, some in sorted(by_fold.items())
    }


def _positives(rows: Sequence[SliceRow]) -> dict[str, int]:
    return {name: sum(row.labels[index] for row in rows) for index, name in enumerate(HEMORRHAGE_CLASSES)}
