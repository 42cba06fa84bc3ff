"""Receive DICOM objects durably: event in, status out. Never imports torch, never decodes a pixel."""

from ich_node.receive.processes import run_receiver
from ich_node.receive.scp import Receiver

__all__ = ["Receiver", "run_receiver"]
