"""Options that every command has, before or behind its name, and what follows from them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from sandpost.model.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Options:
    """What the common options say; a later one (behind the command's name) wins."""

    json: bool = False
    url: str = ""
    key_file: str = ""
    state_dir: str = ""
    config: str = ""
    cacert: str = ""

    def key(self) -> str | None:
        """Return the key to use: of `--key-file`, else of SANDPOST_KEY; None without either."""
        if not self.key_file:
            return _sendable(os.environ.get("SANDPOST_KEY", "").strip(), "SANDPOST_KEY") or None
        from sandpost.config.sources import read_secret  # noqa: PLC0415 - only commands with a key file need it

        return _sendable(read_secret(self.key_file), self.key_file)

    def address(self) -> str:
        """Return the platform's URL if it is to be reached by one; empty: on this machine."""
        url = (self.url or os.environ.get("SANDPOST_URL", "")).rstrip("/")
        if url and not url.startswith(("http://", "https://")):
            raise ConfigError(f"`{url}` is not a URL: write it as http://127.0.0.1:8721")
        return url

    def here_alone(self, command: str) -> None:
        """Refuse an address for a command that acts on this host alone: it would act on the wrong one."""
        if self.url:
            raise ConfigError(f"`{command}` acts on this host alone: leave --url out, or run it on that host")
        if os.environ.get("SANDPOST_URL"):
            raise ConfigError(f"`{command}` acts on this host alone: unset SANDPOST_URL, or run it on that host")


def _sendable(key: str, where: str) -> str:
    """Return `key` if a header can carry it; the error does not show it."""
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"the key in {where} holds something other than printable ASCII, which no key does: copy it anew"
        )
    return key


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    options = context.ensure_object(Options)
    if value and parameter.name is not None:
        setattr(options, parameter.name, value)


def common(command: F) -> F:
    """Give a command the common options and, as its first argument, what they say."""
    for option in (
        click.option(
            "--config",
            metavar="FILE",
            expose_value=False,
            callback=_keep,
            help="Settings file of this host.  [env: SANDPOST_CONFIG]",
        ),
        click.option(
            "--state-dir",
            metavar="DIR",
            expose_value=False,
            callback=_keep,
            help="Which installation of this host, by its state folder.  [env: SANDPOST_STATE_DIR]",
        ),
        click.option(
            "--key-file",
            metavar="FILE",
            expose_value=False,
            callback=_keep,
            help="File of mode 0600 that holds the key.  [env: SANDPOST_KEY holds the key itself]",
        ),
        click.option(
            "--url",
            metavar="URL",
            expose_value=False,
            callback=_keep,
            help="Another host's Sandpost, with a key.  [env: SANDPOST_URL]",
        ),
        click.option(
            "--cacert",
            metavar="FILE",
            expose_value=False,
            callback=_keep,
            help="Certificates in PEM to trust besides this machine's own.",
        ),
        click.option("--json", is_flag=True, expose_value=False, callback=_keep, help="Print JSON."),
    ):
        command = option(command)
    return command


pass_options = click.make_pass_decorator(Options, ensure=True)
