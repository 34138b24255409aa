"""``pacslite config show|check``: what is configured, where it comes from, and what is wrong with it."""

import json
import sys

from pacslite.cli.options import Config, Json, group
from pacslite.log import escape

__all__ = ["app"]

app = group("Show or check the configuration.")


@app.command()
def show(config: Config = None, json_: Json = False) -> None:
    """Print every setting and where its value comes from; secrets are masked."""
    from pacslite.config import load
    from pacslite.config.render import show as rendered
    from pacslite.config.render import values

    loaded = load(config)
    print(json.dumps(values(loaded), indent=2) if json_ else escape_lines(rendered(loaded)))


@app.command()
def check(config: Config = None) -> None:
    """Exit 0 if the server could start with this configuration, else say why not and exit 2."""
    from pacslite.config import load
    from pacslite.config.advice import advice
    from pacslite.config.advice import check as check_together

    loaded = load(config)
    check_together(loaded)
    for sentence in advice(loaded):
        print(f"warning: {escape(sentence)}", file=sys.stderr)
    print(f"{loaded.file or 'defaults'}: no error")


def escape_lines(text: str) -> str:
    """``text`` with its own line breaks kept and all else escaped."""
    return "\n".join(escape(line) for line in text.rstrip("\n").split("\n"))
