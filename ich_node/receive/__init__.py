"""Receive DICOM objects durably: event in, status out. Never imports torch, never decodes a pixel."""

from ich_node.receive.scp import Receiver, run_receiver

__all__ = ["Receiver", "run_receiver"]
