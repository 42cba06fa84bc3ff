"""The worker: between the spool and the outbox. ``loop`` claims series; the other files are what is done with them."""

from ich_node.worker.loop import Worker, run_worker

__all__ = ["Worker", "run_worker"]
