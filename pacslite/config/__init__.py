"""Settings: one typed model, filled from file < environment < flags; says what is wrong with place and key."""

from pacslite.config.load import Loaded, load
from pacslite.config.model import (
    Access,
    Audit,
    Http,
    Index,
    Limits,
    Listener,
    Log,
    Permission,
    Query,
    Remote,
    Retrieve,
    Server,
    Settings,
    Storage,
    Timeouts,
    Tls,
    User,
)
from pacslite.config.problems import ConfigError

__all__ = [
    "Access",
    "Audit",
    "ConfigError",
    "Http",
    "Index",
    "Limits",
    "Listener",
    "Loaded",
    "Log",
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
    "load",
]
