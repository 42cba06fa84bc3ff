"""How a storage SCP of ours listens, whatever it does with what comes."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom import _config as pynetdicom_config
from pynetdicom.events import EventHandlerType

from ich_node import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from ich_node.association import VERIFICATION, measure_by_no_clock
from ich_node.config import Config
from ich_node.errors import StartError
from ich_node.receive.known_uids import look_at_each_uid_once
from ich_node.receive.transport import ConnectionHandler, Server

ASSOCIATION_TIMEOUT_S: Final = 10.0
"""Of a release or an abort (ARTIM)."""
_TAKEN: Final = (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)


def application_entity(config: Config, ae_title: str) -> AE:
    """Make an entity that is called by its own AE title alone, with the limits of ``[receiver]``."""
    measure_by_no_clock()
    pynetdicom_config.LOG_REQUEST_IDENTIFIERS = False
    pynetdicom_config.LOG_RESPONSE_IDENTIFIERS = False
    pynetdicom_config.LOG_HANDLER_LEVEL = "none"
    # a UID that is too long is answered 0xA900; by itself pynetdicom would abort the whole study's association
    pynetdicom_config.VALIDATORS["UI"] = lambda _uid: (True, "")
    look_at_each_uid_once()
    entity = AE(ae_title=ae_title)
    entity.require_called_aet = True
    entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_pdu_size = config.receiver.maximum_pdu_kib * 1024
    entity.maximum_associations = config.receiver.maximum_associations
    entity.acse_timeout = ASSOCIATION_TIMEOUT_S
    entity.network_timeout = config.receiver.idle_timeout_s
    entity.dimse_timeout = config.receiver.idle_timeout_s
    entity.add_supported_context(VERIFICATION)  # the others are decided per association, when it is requested
    return entity


def open_port(
    config: Config, entity: AE, port: int, handlers: Sequence[EventHandlerType], incoming: Path, hint: str
) -> Server:
    """Let connections come to a port; they wait until the server serves them.

    Args:
        incoming: folder for what is not whole yet.
        hint: what to do where the port is taken.

    Raises:
        StartError: the port is taken.
    """
    bind = config.node.bind
    try:
        server = entity.make_server(
            (bind, port),
            ae_title=entity.ae_title,
            evt_handlers=list(handlers),
            server_class=Server,
            request_handler=ConnectionHandler,
        )
    except OSError as error:
        what = f"cannot listen on {bind}:{port}: {error.strerror}"
        raise StartError(f"{what}; {hint}" if error.errno in _TAKEN else what) from error
    listening = cast(Server, server)
    listening.longest_object = config.receiver.maximum_object_mib * 1024 * 1024
    listening.incoming = incoming, config.receiver.reserve_mib * 1024 * 1024
    return listening
