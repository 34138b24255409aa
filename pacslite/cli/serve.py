"""``pacslite serve``: the server, until SIGTERM or SIGINT."""

import logging
import os
import resource
import sys
from typing import Annotated, Any

import typer

from pacslite.cli.options import Config, DataDir, command, run

__all__ = ["app"]

app = command()
log = logging.getLogger(__name__)

_DESCRIPTORS = 65_536


@app.command()
def serve(
    config: Config = None,
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(metavar="ADDR", help="Address to listen on; default: all.")] = None,
    port: Annotated[int | None, typer.Option(metavar="N", help="DICOM port; default: 11112. 0: a free one.")] = None,
    ae_title: Annotated[str | None, typer.Option(metavar="AET", help="Our AE title; default: PACSLITE.")] = None,
    remote: Annotated[
        list[str] | None,
        typer.Option(metavar="AET@HOST:PORT", help="A peer that may do everything, and move destination; repeatable."),
    ] = None,
    http_port: Annotated[int | None, typer.Option(metavar="N", help="HTTP port; default: HTTP is off.")] = None,
    log_format: Annotated[str | None, typer.Option(metavar="text|json", help="Form of the log lines.")] = None,
    log_level: Annotated[str | None, typer.Option(metavar="L", help="debug, info, warning or error.")] = None,
) -> None:
    """Receive, index, find and send images until SIGTERM or SIGINT."""
    from pacslite import app as server
    from pacslite.config import Loaded, load
    from pacslite.config.advice import advice, check
    from pacslite.config.load import Flag, find_file
    from pacslite.log import configure

    given: dict[str, tuple[str, Any]] = {
        "server.data_dir": ("--data-dir", data_dir),
        "server.host": ("--host", host),
        "server.port": ("--port", port),
        "server.ae_title": ("--ae-title", ae_title),
        "remote": ("--remote", remote or None),
        "http.port": ("--http-port", http_port),
        "log.format": ("--log-format", log_format),
        "log.level": ("--log-level", log_level),
    }
    flags = [Flag(key, name, value) for key, (name, value) in given.items() if value is not None]

    file = config or find_file(os.environ)  # once: without it a SIGHUP is refused, and takes no remote away

    def read() -> Loaded:
        loaded = load(file, flags=flags)
        check(loaded)
        return loaded

    loaded = read()
    configure(loaded.settings.log.level, loaded.settings.log.format)
    for sentence in advice(loaded):
        log.warning(sentence)
    _raise_descriptor_limit()
    sys.exit(run(server.run(loaded.settings, lambda: read().settings)))


def _raise_descriptor_limit() -> None:
    """An association is a descriptor, and so is each file in use: the usual 1024 are fewer than the associations."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
