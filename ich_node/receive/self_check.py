"""Whether a receiver still does its work: only then does it tell systemd that it is alive."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import Final

from ich_node.association import Patience
from ich_node.database import Database, open_database
from ich_node.deliver import echo
from ich_node.errors import IchNodeError, StorageUnavailable
from ich_node.log import EventLog
from ich_node.records import Destination
from ich_node.routing import own_host

_PATIENCE: Final = Patience(connect_s=2.0, response_s=5.0)
_SHORT_S: Final = 1.0

log = EventLog("receive")


class SelfCheck:
    """A C-ECHO to the own port, a write to the database, and a look at the disk.

    Attributes:
        calling_ae_title: under which the check calls; nobody can know it, so nobody else is let in by it.
    """

    def __init__(self, database: Database, folder: Path, ae_title: str, bind: str) -> None:
        self.calling_ae_title = f"SELF{secrets.token_hex(6).upper()}"
        self._shared = database
        # for writing, its own connection: a transaction that hangs in another thread must not make us wait with it
        self._database = open_database(database.url, _SHORT_S)
        self._folder = folder
        self._ae_title = ae_title
        self._host = own_host(bind)

    def passes(self, port: int, *, tls: bool = False) -> bool:
        """Check, in less than ten seconds. A full disk or a locked database is no fault of the receiver.

        Args:
            tls: the port takes TLS alone. Who must show a certificate there may not be us, so the check ends with
                the connection being taken and closed.
        """
        try:
            if tls:
                self._is_taken(port)
            else:
                echo(Destination("self", self._ae_title, self._host, port), self.calling_ae_title, _PATIENCE)
            os.statvfs(self._folder)
            with self._shared.reading():  # first: it sees where the file was taken away
                pass
            with self._database.writing():
                pass
        except StorageUnavailable:
            return True
        except (IchNodeError, OSError) as error:
            log.error("the receiver does not pass its own check", error)
            return False
        return True

    def _is_taken(self, port: int) -> None:
        with socket.create_connection((self._host, port), _PATIENCE.connect_s) as connection:
            connection.settimeout(_PATIENCE.response_s)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass

    def close(self) -> None:
        self._database.close()
