"""Settings: one typed model, filled from file < environment < flags; says what is wrong with place and key."""

from pacslite.config.difference import changed_keys
from pacslite.config.load import Loaded, load
from pacslite.config.model import Audit, Log, Settings
from pacslite.config.network import Access, Http, Limits, Listener, Remote, Server, Timeouts, Tls, User
from pacslite.config.problems import ConfigError
from pacslite.config.services import Commitment, Forward, Index, Outbox, Query, Retrieve, Storage
from pacslite.config.values import Permission

__all__ = [
    "Access",
    "Audit",
    "Commitment",
    "ConfigError",
    "Forward",
    "Http",
    "Index",
    "Limits",
    "Listener",
    "Loaded",
    "Log",
    "Outbox",
    "Permission",
    "Query",
    "Remote",
    "Retrieve",
    "Server",
    "Settings",
    "Storage",
    "Timeouts",
    "Tls",
    "User",
    "changed_keys",
    "load",
]
