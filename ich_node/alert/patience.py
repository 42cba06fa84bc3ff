"""How long a channel is waited for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChannelPatience:
    """Seconds until a connection stands, and until an answer has come."""

    connect_s: float
    response_s: float
