"""Enter what was received: instance, series and study, and when the series is due."""

from ich_node.job_queue.reception.entering import (
    Entered,
    SendingAssociation,
    enter_instance,
    forget_association,
    is_forgotten,
    look_up,
    register_instance,
    rehearse,
    release_association,
)

__all__ = [
    "Entered",
    "SendingAssociation",
    "enter_instance",
    "forget_association",
    "is_forgotten",
    "look_up",
    "register_instance",
    "rehearse",
    "release_association",
]
