"""Connections that misbehave below DICOM."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from ich_node.config import parse_config
from ich_node.database import open_database, prepare_database
from ich_node.receive import Receiver
from tests.running import settings

ASSOCIATE_RQ = 1


@pytest.fixture
def receiver(tmp_path: Path):
    values = settings(tmp_path, tmp_path, receiver={"allow_any": True, "reserve_mib": 0, "idle_timeout_s": 0.3})
    config = parse_config(values)
    database = open_database(config.database_url)
    prepare_database(database, tmp_path)
    receiver = Receiver(config, database)
    receiver.start()
    yield receiver
    receiver.stop(drain_s=1.0)
    database.close()


def connect(receiver: Receiver) -> socket.socket:
    return socket.create_connection(("127.0.0.1", receiver.port), timeout=60)


def test_a_peer_that_stops_in_the_middle_of_a_pdu_is_dropped(receiver: Receiver):
    with connect(receiver) as peer:
        peer.sendall(struct.pack(">BBL", ASSOCIATE_RQ, 0, 200) + bytes(100))
        assert peer.recv(1024) == b""


def test_a_pdu_longer_than_any_is_dropped_before_it_is_read(receiver: Receiver):
    with connect(receiver) as peer:
        peer.sendall(struct.pack(">BBL", ASSOCIATE_RQ, 0, 400 * 1024 * 1024))
        assert peer.recv(1024) == b""
