"""Commands about alerts: acknowledge one, try the channels out."""

from __future__ import annotations

import argparse
import getpass
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ich_node.cli.node import audit_command, open_queue, read_config, with_config
from ich_node.config import find_config
from ich_node.errors import AlertRefused, ChannelUnavailable

if TYPE_CHECKING:
    from ich_node.alert_channels import Channel
    from ich_node.config import Config
    from ich_node.database import Database

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = Any


def add_commands(commands: Commands) -> None:
    """Add ack and alert."""
    text = "say that an alert was seen: nobody further is told"
    ack = commands.add_parser("ack", help=text, description=text)
    ack.add_argument("what", metavar="IDENTIFIER", help="of the alert, or a Study Instance UID")
    ack.add_argument("--by", metavar="NAME", help="who has seen it (default: the user of this command)")
    with_config(ack)
    ack.set_defaults(run=_acknowledge)

    text = "try the alert channels out"
    alert = commands.add_parser("alert", help=text, description=text)
    kinds = alert.add_subparsers(title="commands", metavar="COMMAND", required=True)
    text = "send a message marked as a test through every channel, and tell how each answered"
    test = kinds.add_parser("test", help=text, description=text)
    test.add_argument("--channel", metavar="NAME", help="this one only")
    with_config(test)
    test.set_defaults(run=_test)

    text = "send alerts again that are DEAD, with the same identifiers"
    again = kinds.add_parser("resend", help=text, description=text)
    again.add_argument("identifier", nargs="?", metavar="IDENTIFIER", help="of one alert (default: all that are DEAD)")
    with_config(again)
    again.set_defaults(run=_resend)


def _acknowledge(options: argparse.Namespace) -> int:
    from ich_node.job_queue.alert_answers import acknowledge

    config = read_config(options)
    database, by = open_queue(config), options.by or getpass.getuser()
    count = acknowledge(database, options.what, by)
    if count:
        _audit_acknowledgement(config, database, options.what, by)
    nothing = "nothing to acknowledge: no alert of that identifier or study was sent, or somebody has already"
    sys.stdout.write(f"{count} alert{'' if count == 1 else 's'} acknowledged\n" if count else f"{nothing}\n")
    return 0 if count else 1


def _audit_acknowledgement(config: Config, database: Database, what: str, by: str) -> None:
    from ich_node.audit import Subject, open_trail
    from ich_node.audit.subject import read_subject
    from ich_node.job_queue.alert_answers import find_alert
    from ich_node.job_queue.alert_outbox import source_at_hand
    from ich_node.stored_files import stored_files

    asked = find_alert(database, what)
    trail = open_trail(config, "ack")
    subject = Subject("", what)  # named by its study
    if asked is not None:
        subject = read_subject(source_at_hand(stored_files(config), asked.alert), asked.alert.study_instance_uid)
    trail.alert_acknowledged(subject, what if asked else "all of the study", by, f"command of {trail.person.user_id}")
    trail.close()


def _resend(options: argparse.Namespace) -> int:
    from ich_node.job_queue.alert_outbox import send_again

    config = read_config(options)
    count = send_again(open_queue(config), options.identifier)
    audit_command(config, "alert-resend", None, Alerts=str(count), Identifier=options.identifier or "")
    alerts = f"{count} alert{'' if count == 1 else 's'} will be sent again"
    sys.stdout.write(f"{alerts if count else 'no alert that is DEAD'}\n")
    return 0 if count else 1


def _test(options: argparse.Namespace) -> int:
    from ich_node.alert_channels import make_channels

    config = read_config(options)
    channels = make_channels(config, find_config(options.config))
    if config.node.mode == "shadow":
        sys.stderr.write("ich-node alert test: shadow mode: nothing leaves the node\n")
        return 1
    chosen = {name: one for name, one in channels.items() if options.channel in (None, name)}
    if not chosen:
        known = ", ".join(channels) or "none; add [[alert_hl7]], [[alert_webhook]] or [[alert_mail]]"
        sys.stderr.write(f"ich-node alert test: no such channel; known: {known}\n")
        return 2
    well = True
    with ThreadPoolExecutor(len(chosen)) as threads:
        for name, (taken, says) in zip(chosen, threads.map(_try, chosen.values()), strict=True):
            sys.stdout.write(f"{'ok  ' if taken else 'BAD '} {name}: {says}\n")
            well = well and taken
    return 0 if well else 1


def _try(channel: Channel) -> tuple[bool, str]:
    from ich_node.alert import message_of_test
    from ich_node.job_queue.alert_entries import new_alert_identifier

    try:
        return True, channel.tell(message_of_test(new_alert_identifier()))
    except (AlertRefused, ChannelUnavailable) as error:
        return False, str(error)
