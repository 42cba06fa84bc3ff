"""Typed settings from one TOML file; all faults are reported at once."""

from ich_node.config.alert_sections import (
    AlertRuleSettings,
    AlertSettings,
    HL7ChannelSettings,
    MailChannelSettings,
    WatchdogSettings,
    WebhookChannelSettings,
)
from ich_node.config.answer_sections import AlertAnswersSettings, WebSettings
from ich_node.config.load import DEFAULT_PATHS, Config, find_config, load_config, parse_config
from ich_node.config.sections import (
    DestinationSettings,
    Mode,
    PeerSettings,
    PrioritySettings,
    QuerySettings,
    ViewerSettings,
)
from ich_node.config.self_test_section import SelfTestSettings
from ich_node.config.storage_section import BucketName, StorageSettings
from ich_node.config.tls_section import TlsSettings

__all__ = [
    "DEFAULT_PATHS",
    "AlertAnswersSettings",
    "AlertRuleSettings",
    "AlertSettings",
    "BucketName",
    "Config",
    "DestinationSettings",
    "HL7ChannelSettings",
    "MailChannelSettings",
    "Mode",
    "PeerSettings",
    "PrioritySettings",
    "QuerySettings",
    "SelfTestSettings",
    "StorageSettings",
    "TlsSettings",
    "ViewerSettings",
    "WatchdogSettings",
    "WebSettings",
    "WebhookChannelSettings",
    "find_config",
    "load_config",
    "parse_config",
]
