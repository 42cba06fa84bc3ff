"""The listening socket under pynetdicom 3.0.4, and how its connections are read.

pynetdicom makes an association of every connection, counts those that have not asked for one, does the TLS handshake in
the loop that accepts, reads PDUs of any length, and waits for the rest of one for ever. Here a connection becomes an
association when its A-ASSOCIATE-RQ has come whole and in time; no PDU is read that is longer than allowed, and each has
a deadline. Private names of pynetdicom are used: its version is pinned, and tests fail where they change.
"""

from ich_node.receive.transport.connection import LONGEST_REQUEST, REQUEST_S, ConnectionHandler
from ich_node.receive.transport.server import Server
from ich_node.receive.transport.whole_reads import LONGEST_PDU, PDU_S, WholeReads

__all__ = ["LONGEST_PDU", "LONGEST_REQUEST", "PDU_S", "REQUEST_S", "ConnectionHandler", "Server", "WholeReads"]
