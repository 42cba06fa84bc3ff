"""What viewers are shown beside the report: which kinds of object, and the pictures in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ich_node.decode import DecodedPlane, MemberFile
from ich_node.pictures import pictured_slices, pictures_of_slices
from ich_node.records import (
    Destination,
    KeySlicePicture,
    ReportReference,
    SeriesContent,
    SliceKey,
    SliceProbability,
    Triage,
    TriageFinding,
)
from ich_node.report.slice_pictures import positive_shares
from ich_node.report.viewer_objects import VIEWER_KINDS
from ich_node.saved_maps import SavedMap
from ich_node.worker.bench import Workbench

_MARKS_A_PLACE = ("KEY_SLICES", "PRESENTATION")
_SUMMARY = "SUMMARY"


def viewer_kinds(
    bench: Workbench,
    destinations: Sequence[Destination],
    finding: TriageFinding,
    predecessors: Sequence[ReportReference] = (),
) -> tuple[str, ...]:
    """Choose the kinds of object that a destination wants, and that the site allows for such a finding."""
    wanted = {name for one in destinations for name in one.objects}
    return tuple(
        kind for kind in VIEWER_KINDS if kind.lower() in wanted and _is_made(bench, kind, finding, predecessors)
    )


def _is_made(bench: Workbench, kind: str, finding: TriageFinding, predecessors: Sequence[ReportReference]) -> bool:
    viewer = bench.config.viewer
    if kind in _MARKS_A_PLACE:
        return viewer.heatmaps
    if kind != _SUMMARY or finding.triage is Triage.POSITIVE:
        return True
    replaces_one = any(one.kind == _SUMMARY for one in predecessors)
    return replaces_one or (finding.triage or "not_analysed") in viewer.summary_also_for


def keeps_maps(bench: Workbench) -> bool:
    """Say whether the pages of this node show where scores come from."""
    return bench.config.web.enabled and bench.config.viewer.heatmaps


def maps_of(finding: TriageFinding, pictures: Sequence[KeySlicePicture]) -> tuple[SavedMap, ...]:
    """Give the maps of pictures for the viewer, all on one scale; none where nothing speaks for hemorrhage."""
    shares = {(one.sop_instance_uid, one.frame): positive_shares(one) for one in pictures if one.shares is not None}
    highest = max((float(one.max()) for one in shares.values()), default=0.0)
    if highest <= 0:
        return ()
    slabs = {(one.sop_instance_uid, one.frame): [member.key for member in one.members] for one in finding.slices}
    return tuple(
        SavedMap(tuple(slabs.get(key) or [key]), np.rint(255 * one / highest).astype(np.uint8))
        for key, one in shares.items()
    )


def pictures_of(
    bench: Workbench, content: SeriesContent, finding: TriageFinding, kinds: Collection[str], *, for_maps: bool
) -> tuple[KeySlicePicture, ...]:
    """Read the key slices of a series again and show where their scores come from.

    Args:
        for_maps: their maps are wanted, whatever kinds of object are.
    """
    if not (for_maps or set(kinds) & {_SUMMARY, *_MARKS_A_PLACE}):
        return ()
    shown = {uid for one in pictured_slices(finding) for uid, _ in _keys(one)}
    wanted = [one for one in content.instances if one.sop_instance_uid in shown]
    files = bench.files_of(one.path for one in wanted)
    paths = {one.sop_instance_uid: path for one, path in zip(wanted, files, strict=True)}

    def read(members: Sequence[MemberFile]) -> DecodedPlane:
        plane = bench.reader.read(members).result()
        bench.alive()
        return plane

    return pictures_of_slices(finding, paths, content.facts, read, bench.model.windowing, bench.model.engine)


def _keys(one: SliceProbability) -> list[SliceKey]:
    return [(one.sop_instance_uid, one.frame), *(member.key for member in one.members)]
