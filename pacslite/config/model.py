"""The settings, their defaults and limits. ``config/pacslite.toml`` is written from this model (config/render.py).

The sections of the network are in network.py, those of the services in services.py, what is neither is here. Each
description says what, in which unit and at which cost; the range is added from the constraints.
"""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pacslite.config.network import Access, Http, Limits, Listener, Remote, Server, Timeouts, Tls, User
from pacslite.config.services import Commitment, Forward, Index, Outbox, Query, Retrieve, Storage
from pacslite.config.values import OptionalPath, Section

__all__ = ["Audit", "Log", "Settings"]


class Log(Section):
    """One event, one line, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description='Least level that is written. "debug" may show patient data.'
    )
    format: Literal["text", "json"] = Field("text", description="For people or for machines.")


class Audit(Section):
    """The audit trail (PS3.15 A.5): to come, and refused until then."""

    file: OptionalPath = Field(None, description="File to which messages are appended; empty is none.")
    syslog: str = Field("", description="HOST:PORT of a syslog server; empty is none.")


class Settings(BaseSettings):
    """All settings. ``Settings()`` is the defaults, whatever the environment: ``load`` gathers what is configured."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_prefix="PACSLITE_", env_nested_delimiter="__")

    server: Server = Server()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    storage: Storage = Storage()
    index: Index = Index()
    query: Query = Query()
    retrieve: Retrieve = Retrieve()
    outbox: Outbox = Outbox()
    commitment: Commitment = Commitment()
    http: Http = Http()
    tls: Tls = Tls()
    access: Access = Access()
    log: Log = Log()
    audit: Audit = Audit()
    listener: tuple[Listener, ...] = ()
    remote: tuple[Remote, ...] = ()
    forward: tuple[Forward, ...] = ()
    user: tuple[User, ...] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The layers are read by ``load``, which also remembers where each value came from."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)
