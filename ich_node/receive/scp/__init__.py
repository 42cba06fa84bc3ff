"""The service class provider: one handler per event, each event in, status out."""

from ich_node.receive.scp.receiver import Receiver

__all__ = ["Receiver"]
