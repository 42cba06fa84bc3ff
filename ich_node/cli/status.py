"""``ich-node status``: the queue, the newest studies, and what needs a person."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ich_node.cli.node import Commands, open_queue, read_config, with_config
from ich_node.cli.terminal import deliveries_in_words, plain
from ich_node.records import REPORT_KIND

if TYPE_CHECKING:
    from ich_node.queries import AlertStatus, DeletionStatus, DeliveryStatus, NodeStatus, SeriesStatus, StudyStatus
    from ich_node.records.self_tests import SelfTestStatus

_SHORT_UID = 12
_WIDTH_OF_A_FILE = 200
_NARROWEST = {"study": _SHORT_UID + 1, "answer": 14, "series": len("NOT_ANALYSED"), "delivery": len("pacs DELIVERED")}
"""Columns: a state is never broken in the middle."""
_MODES = {
    "objects": "results leave the node, and nobody is alerted",
    "shadow": "everything is analysed and kept, and nothing leaves the node",
}
_TO_DO = {
    "QUARANTINED": "look at its images, then: ich-node release {uid}, or: ich-node reject {uid}",
    "FAILED": "mend what the log of the worker names, then: ich-node requeue {uid}",
}
_VALIDITY = {
    "QUARANTINED": "before, not valid any more: ",
    "REJECTED": "before, not valid any more: ",
    "RECEIVING": "so far: ",
    "COMPLETE": "so far: ",
}


def add_command(commands: Commands) -> None:
    """Add status."""
    status = commands.add_parser("status", help="show the queue, the newest studies and what needs a person")
    status.add_argument("uid", nargs="?", help="Study or Series Instance UID: show only this one, with all details")
    status.add_argument("--json", action="store_true", help="everything, for programs")
    status.add_argument("--limit", type=int, default=20, metavar="N", help="how many studies (default 20)")
    status.set_defaults(run=_status)
    with_config(status)
    status.description = status.description or ""


def _status(options: argparse.Namespace) -> int:
    from ich_node.job_queue.retention import what_stays
    from ich_node.queries import node_status

    config = read_config(options)
    database = open_queue(config)
    status = dataclasses.replace(
        node_status(database, limit=options.limit, uid=options.uid),
        mode=config.node.mode,
        stays=what_stays(database, config.retention_rules),
    )
    if options.uid and not status.studies:
        sys.stderr.write(f"ich-node: no study or series {options.uid} here\n")
        return 1
    if options.json:
        sys.stdout.write(json.dumps(dataclasses.asdict(status), indent=2, default=str) + "\n")
        return 0
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)
    show_status(status, console, full=options.uid is not None)
    return 0


def show_status(status: NodeStatus, console: Console, *, full: bool = False) -> None:
    """Print what a person wants to know first: the counts, what needs a person, the newest studies."""
    if status.mode != "live":
        console.print(f"[yellow]mode {status.mode}: {_MODES[status.mode]}[/yellow]")
    console.print(f"series      {_counts(status.series)}")
    console.print(f"deliveries  {_counts(status.deliveries)}")
    if status.alerts:
        console.print(f"alerts      {_counts(status.alerts)}")
    if status.legal_holds:
        console.print(f"legal holds {status.legal_holds}: ich-node legal-hold list")
    if status.self_test is not None:
        console.print(_self_test(status.self_test))
    for line in _what_needs_a_person(status):
        console.print(line)
    if status.own_objects_returned:
        times = "once" if status.own_objects_returned == 1 else f"{status.own_objects_returned} times"
        console.print(f"own reports that peers sent back to us: {times}; ignored")
    if status.studies:
        console.print(_study_table(status.studies, full=full))
    for study in status.studies if full else ():
        _show_study(study, console)


def _self_test(test: SelfTestStatus) -> str:
    when = datetime.fromtimestamp(test.finished_at or test.asked_at).astimezone()
    says = plain(test.says) if test.passed else f"[red]{plain(test.says)}[/red]"
    return f"self-test   {when:%d %b %H:%M} {says}"


def _what_needs_a_person(status: NodeStatus) -> Iterator[str]:
    for name, what in status.stays.items():
        if name not in status.conditions:
            yield f"[red]kept:[/red] {plain(what)}"
    for name, why in status.paused_destinations.items():
        yield f"[red]destination {name} is paused:[/red] {plain(why)}; its reports wait until it answers"
    for what in status.conditions.values():
        yield f"[red]watchdog:[/red] {plain(what)}"
    if dead := status.deliveries.get("DEAD"):
        are, need = ("is", "needs") if dead == 1 else ("are", "need")
        yield f"[red]{deliveries_in_words(dead)} {are} DEAD and {need} a person:[/red] ich-node resend --dead"
    if unanswered := status.alerts.get("UNANSWERED"):
        yield f"[red]{unanswered} alerts UNANSWERED:[/red] nobody acknowledged them; ich-node ack IDENTIFIER"
    if dead := status.alerts.get("DEAD"):
        yield f"[red]{dead} alerts DEAD:[/red] nobody was told through their channel; ich-node alert resend"
    if failed := status.series.get("FAILED"):
        yield f"[red]{failed} series FAILED:[/red] ich-node requeue --failed"
    if quarantined := status.series.get("QUARANTINED"):
        yield f"[red]{quarantined} series QUARANTINED:[/red] look at them, then ich-node release UID or reject UID"


def _show_study(study: StudyStatus, console: Console) -> None:
    if study.rests_on and len(study.series) > 1:
        console.print(f"\nthe answer rests on series {study.rests_on}", soft_wrap=True)
    console.print(f"  earlier studies: {study.prior}", soft_wrap=True)
    if study.legal_hold:
        console.print(f"  [red]legal hold, nothing is deleted:[/red] {plain(study.legal_hold)}", soft_wrap=True)
    for deletion in study.deletions:
        console.print(f"  {_deletion(deletion)}", soft_wrap=True)
    for series in study.series:
        _show_series(series, console)
    for delivery in study.deliveries:
        console.print(f"  {delivery.what}, revision {delivery.revision}: {_delivery(delivery, full=True)}")
    for alert in study.alerts:
        console.print(f"  alert {alert.identifier}, {alert.kind}, revision {alert.revision}: {_alert(alert)}")


def _deletion(deletion: DeletionStatus) -> str:
    when = datetime.fromtimestamp(deletion.deleted_at).astimezone()
    what = f"{deletion.files} files of {deletion.what}, {deletion.size_bytes} bytes"
    return f"deleted {when:%d %b %Y %H:%M}: {what} ({deletion.rule})"


def _alert(alert: AlertStatus) -> str:
    parts = [f"{alert.channel} {alert.state}"]
    if alert.sent_at:
        parts.append(f"{datetime.fromtimestamp(alert.sent_at).astimezone():%H:%M:%S.%f} {plain(alert.answer)}".strip())
    if alert.attempts > 1:
        parts.append(f"after {alert.attempts} tries")
    if alert.acknowledged_by:
        parts.append(f"acknowledged by {plain(alert.acknowledged_by)}")
    text = ", ".join(parts)
    return f"{text} ({plain(alert.error)})" if alert.error else text


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"


def _study_table(studies: tuple[StudyStatus, ...], *, full: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("received", "study", "answer", "rev", "series", "delivery"):
        table.add_column(title, overflow="fold", min_width=_NARROWEST.get(title), no_wrap=title in ("received", "rev"))
    for study in studies:
        uid = study.study_instance_uid
        shown = uid if full or len(uid) <= _SHORT_UID else f"…{uid[-_SHORT_UID:]}"
        current = [one for one in study.deliveries if one.revision == study.revision]
        table.add_row(
            _received(study),
            shown,
            _answer(study),
            str(study.revision or ""),
            "\n".join(_in_short(one) for one in study.series),
            "\n".join(_by_destination(current)),
        )
    return table


def _received(study: StudyStatus) -> str:
    priority = max((one.priority for one in study.series), default=0)
    lines = [
        datetime.fromtimestamp(study.received_at).astimezone().strftime("%d %b %H:%M"),
        "old study" if study.old else "",
        f"priority {priority}" if priority else "",
    ]
    return "\n".join(filter(None, lines))


def _answer(study: StudyStatus) -> str:
    needs_a_person = study.withdrawn or "QUARANTINED" in study.outcome
    return f"[red]{plain(study.outcome)}[/red]" if needs_a_person else plain(study.outcome)


def _show_series(series: SeriesStatus, console: Console) -> None:
    number = "" if series.number is None else f" (number {series.number})"
    why = f": {plain(series.why)}" if series.why else ""
    console.print(f"\nseries {series.series_instance_uid}{number}: {plain(series.modality)} {series.state}{why}")
    if todo := _TO_DO.get(series.state):
        console.print(f"  [red]{todo.format(uid=series.series_instance_uid)}[/red]", soft_wrap=True)
    console.print(f"  {_images(series)}{_incomplete(series)}")
    if series.finding and series.finding["probabilities"]:
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in series.finding["probabilities"].items())
        mark = "TEST MODEL, for tests only: " if series.finding["test_model"] else ""
        console.print(f"  {_VALIDITY.get(series.state, '')}{mark}{series.triage}: {numbers}")
    before = None
    for name, at in (series.steps or {}).items():
        since = "" if before is None else f"  +{at - before:.2f} s"
        console.print(f"  {datetime.fromtimestamp(at).astimezone():%H:%M:%S.%f}  {name}{since}")
        before = at


def _images(series: SeriesStatus) -> str:
    parts = [f"{series.slices} images", f"{series.unreadable} unreadable"]
    if series.expected is not None and series.expected != series.slices:
        parts.insert(1, f"the PACS holds {series.expected}")
    if series.planes:
        parts.append(f"scored as {series.planes} {_kind_of_planes(series)}")
    if series.priority:
        parts.append(f"priority {series.priority}")
    return ", ".join(parts)


def _kind_of_planes(series: SeriesStatus) -> str:
    scored = (series.finding or {}).get("slices", ())
    if any(len(one.get("members") or ()) > 1 for one in scored):
        return "slabs of 5 mm"
    return "frames" if any(one.get("frame") for one in scored) else "slices" if scored else "planes"


def _in_short(series: SeriesStatus) -> str:
    number = "" if series.number is None else f"{series.number}: "
    return f"{number}{plain(series.modality)} {series.slices} {series.state}"


def _incomplete(series: SeriesStatus) -> str:
    """Say whether a series is whole, and what is missing of it."""
    if series.complete is not False:
        return ", complete" if series.complete else ""
    finding = series.finding or {}
    gaps = ", ".join(f"{begin:.1f} to {end:.1f} mm" for begin, end in finding.get("gaps_mm", ()))
    ends = [end for end, cut in (("below", finding.get("cut_below")), ("above", finding.get("cut_above"))) if cut]
    causes = [
        f"gaps at {gaps}" if gaps else "",
        f"cut off {' and '.join(ends)}" if ends else "",
        "shorter than a head" if finding.get("short") else "",
        f"the PACS holds {missing} more" if (missing := finding.get("missing_by_count")) else "",
    ]
    return f", INCOMPLETE: {'; '.join(filter(None, causes))}".rstrip(": ")


def _by_destination(deliveries: Sequence[DeliveryStatus]) -> list[str]:
    """A line for each destination: its report, and beside it what did not simply arrive."""
    lines = []
    for name in dict.fromkeys(one.destination for one in deliveries):
        mine = [one for one in deliveries if one.destination == name]
        report = [one for one in mine if one.kind == REPORT_KIND] or mine[:1]
        others = Counter(one.state for one in mine if one not in report and one.state != report[0].state)
        more = "".join(f", {count} images or flags {state}" for state, count in sorted(others.items()))
        lines += [_delivery(one, full=False) + more for one in report]
    return lines


def _delivery(delivery: DeliveryStatus, *, full: bool) -> str:
    text = f"{delivery.destination} {delivery.state}"
    if full and delivery.finished_at:
        text += f" {datetime.fromtimestamp(delivery.finished_at).astimezone():%H:%M:%S.%f}"
    if delivery.attempts > 1:
        text += f" after {delivery.attempts} tries"
    why = "; ".join(filter(None, (delivery.error, delivery.commitment)))
    return f"{text} ({plain(why)})" if why else text
