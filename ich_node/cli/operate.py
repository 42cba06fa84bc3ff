"""Commands for whoever keeps the node running."""

from __future__ import annotations

import argparse
import sys

from ich_node.cli.node import Commands, audit_command, open_queue, read_config, with_config
from ich_node.cli.terminal import deliveries_in_words


def add_commands(commands: Commands) -> None:
    """Add requeue, release, reject, resend, rebuild and doctor."""
    requeue = commands.add_parser("requeue", help="analyse again")
    requeue.add_argument("uid", nargs="?", help="Study or Series Instance UID")
    requeue.add_argument("--failed", action="store_true", help="every series that is FAILED")
    requeue.set_defaults(run=_requeue)

    release = commands.add_parser("release", help="trust what is quarantined as it is, and analyse it")
    release.add_argument("uid", help="Study or Series Instance UID")
    release.set_defaults(run=_release)

    reject = commands.add_parser("reject", help="give up what is quarantined: it gets no result")
    reject.add_argument("uid", help="Study or Series Instance UID")
    reject.set_defaults(run=_reject)

    resend = commands.add_parser("resend", help="send current reports again")
    resend.add_argument("uid", nargs="?", help="Study Instance UID")
    resend.add_argument("--dead", action="store_true", help="everything that is DEAD")
    resend.add_argument("--destination", metavar="NAME", help="to this destination only")
    resend.set_defaults(run=_resend)

    rebuild = commands.add_parser("rebuild", help="make the database anew from images and results, the node stopped")
    rebuild.add_argument("--hold", action="store_true", help="send nothing again until ich-node resend")
    rebuild.set_defaults(run=_rebuild)

    doctor = commands.add_parser("doctor", help="check database, disk, model, device and every destination")
    doctor.set_defaults(run=_doctor)
    for parser in (requeue, release, reject, resend, rebuild, doctor):
        with_config(parser)
        parser.description = parser.description or ""


def _requeue(options: argparse.Namespace) -> int:
    from ich_node.job_queue import requeue

    if not options.uid and not options.failed:
        sys.stderr.write("ich-node requeue: name a study or series UID, or --failed\n")
        return 2
    config = read_config(options)
    count = requeue(open_queue(config), uid=options.uid, failed_only=options.failed)
    audit_command(config, "requeue", options.uid, Series=str(count), Failed=str(options.failed))
    none = "no such series here, or its images were deleted: send the study again"
    sys.stdout.write(f"{count} series queued again\n" if count or options.failed else f"{none}\n")
    return 0 if count else 1


def _release(options: argparse.Namespace) -> int:
    from ich_node.job_queue import release_quarantined

    config = read_config(options)
    count = release_quarantined(open_queue(config), options.uid)
    audit_command(config, "release", options.uid, Series=str(count))
    return _say_of_quarantined(count, "released")


def _reject(options: argparse.Namespace) -> int:
    from ich_node.job_queue import reject_quarantined

    config = read_config(options)
    count = reject_quarantined(open_queue(config), options.uid)
    audit_command(config, "reject", options.uid, Series=str(count))
    return _say_of_quarantined(count, "rejected")


def _say_of_quarantined(count: int, what: str) -> int:
    sys.stdout.write(f"{count} series {what}\n" if count else "no quarantined series of that UID here\n")
    return 0 if count else 1


def _resend(options: argparse.Namespace) -> int:
    from ich_node.operating import resend_results

    if not (options.uid or options.dead or options.destination):
        sys.stderr.write("ich-node resend: name a Study Instance UID, --dead or --destination\n")
        return 2
    config = read_config(options)
    count = resend_results(
        config, open_queue(config), study_instance_uid=options.uid, dead_only=options.dead,
        destination=options.destination,
    )  # fmt: skip
    audit_command(
        config, "resend", options.uid, Deliveries=str(count), Dead=str(options.dead), To=options.destination or ""
    )
    nothing = "no report to send again" + (
        "; nothing leaves the node in shadow mode" if config.node.mode == "shadow" else ""
    )
    sys.stdout.write(f"{deliveries_in_words(count)} will be sent again\n" if count else f"{nothing}\n")
    return 0 if count else 1


def _rebuild(options: argparse.Namespace) -> int:
    from ich_node.rebuild import LOST, rebuild

    config = read_config(options)
    done = rebuild(config, hold=options.hold)
    audit_command(config, "rebuild", Images=str(done.images), Results=str(done.results))
    rate = f" in {done.seconds:.1f} s" if done.images else ""
    series = ", ".join(f"{count} {state}" for state, count in sorted(done.series.items())) or "none"
    lines = [
        f"images      {done.images} entered{rate}",
        f"results     {done.results} entered; revisions go on from them",
        f"studies     {done.studies}",
        f"series      {series}",
        f"deliveries  {done.deliveries} {'held' if options.hold else 'queued again'}, under the same UIDs as before",
    ]
    if done.holds:
        lines.append(f"legal holds {done.holds} entered")
    if done.put_aside is not None:
        lines.append(f"the old database lies at {done.put_aside}")
    if not done.same_installation:
        lines.append("this installation's UID is not known any more: later revisions are made under another")
    if done.unreadable:
        lines += [f"damaged, kept and not entered: {len(done.unreadable)} files", *done.unreadable[:20]]
    lines += ["not restored, since no file tells of it:", *(f"  - {what}" for what in LOST)]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from ich_node.doctor import examine

    healthy = True
    for finding in examine(read_config(options)):
        mark = "ok  " if finding.well else "BAD "
        sys.stdout.write(f"{mark} {finding.what}: {finding.says}\n")
        sys.stdout.flush()
        healthy = healthy and finding.well
    return 0 if healthy else 1
