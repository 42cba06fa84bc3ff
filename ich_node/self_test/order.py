"""What the child process is told: which phantom goes where. Light: whoever imports this draws nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from ich_node.certificates import names_of
from ich_node.config import Config
from ich_node.records import Destination, TlsFiles
from ich_node.records.self_tests import SelfTestToRun
from ich_node.routing import own_host

SLICES: Final = 14
SPACING_MM: Final = 10.0
"""Fourteen slices of a centimetre are a whole head."""
ROWS: Final = 512


@dataclass(frozen=True, slots=True)
class SendingOrder:
    """A phantom, and the receiver that is to take it. Texts and numbers alone, so that it travels as JSON."""

    study_instance_uid: str
    lesion: str
    slices: int
    rows: int
    ae_title: str
    host: str
    port: int
    connect_s: float
    response_s: float
    tls_files: tuple[str, ...] = ()
    """Certificate, key, authorities and perhaps what is revoked; empty where plain DICOM is open."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SendingOrder:
        values = json.loads(text)
        return cls(**values | {"tls_files": tuple(values["tls_files"])})

    def destination(self) -> Destination:
        """Give the receiver as a destination; by TLS, under a name that our own certificate has.

        Raises:
            OSError: the certificate cannot be read.
            ValueError: it has no name that could be checked.
        """
        plain = Destination("self-test", self.ae_title, self.host, self.port)
        if not self.tls_files:
            return plain
        files = TlsFiles(*map(Path, self.tls_files))
        return replace(plain, tls=files, tls_name=names_of(files)[0])


def sending_order(config: Config, test: SelfTestToRun) -> SendingOrder:
    """Say what is to be sent for a test: by plain DICOM where the receiver takes it, else by TLS."""
    plain, files = config.tls.plain_is_open, config.tls.files
    return SendingOrder(
        study_instance_uid=test.study_instance_uid,
        lesion=config.self_test.lesion,
        slices=SLICES,
        rows=ROWS,
        ae_title=config.node.ae_title,
        host=own_host(config.node.bind),
        port=config.node.port if plain else config.tls.port,
        connect_s=config.delivery.connect_timeout_s,
        response_s=config.delivery.response_timeout_s,
        tls_files=() if plain or files is None else tuple(map(str, files.paths)),
    )
