"""Typed settings from one TOML file; all faults are reported at once."""

from ich_node.config.load import DEFAULT_PATHS, Config, find_config, load_config, parse_config
from ich_node.config.sections import (
    DestinationSettings,
    Mode,
    PeerSettings,
    PrioritySettings,
    QuerySettings,
    ViewerSettings,
)

__all__ = [
    "DEFAULT_PATHS",
    "Config",
    "DestinationSettings",
    "Mode",
    "PeerSettings",
    "PrioritySettings",
    "QuerySettings",
    "ViewerSettings",
    "find_config",
    "load_config",
    "parse_config",
]
