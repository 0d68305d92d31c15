"""`sandpost module ..`"""

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from sandpost.cli import exits, show
from sandpost.cli.commands import Commands
from sandpost.cli.options import Options, common, pass_options
from sandpost.cli.place import management
from sandpost.model.errors import SandpostError
from sandpost.model.modules import REGISTRIES

if TYPE_CHECKING:
    from sandpost.api.views import ModuleView
    from sandpost.client import Client

_LOOK = 0.3
"""Seconds between looks how modules stand, while somebody waits for them."""
_WAIT_MOST = 3600.0
"""Seconds that are waited at most; the platform goes on with it afterwards."""


class NotInTime(SandpostError):  # noqa: N818 - it says what is wrong, like the platform's own errors
    """Modules are queued still."""

    reason = "queued"


@click.group(cls=Commands)
def module() -> None:
    """Modules of npm and PyPI that programs may use."""


_wait = click.option("--no-wait", is_flag=True, help="Do not wait until they are available or have failed.")


@module.command()
@click.argument("specs", nargs=-1, required=True, metavar="SPEC..")
@click.option(
    "--scripts",
    is_flag=True,
    help="Run the packages' own install scripts, or build them from source where there is no wheel.",
)
@_wait
@common
@pass_options
def add(options: Options, specs: tuple[str, ...], scripts: bool, no_wait: bool) -> None:
    """Install modules: `npm:lodash@4.17.21`, `npm:@scope/x@1.0.0`, `pypi:httpx==0.28.1`."""
    with management(options) as client:
        found = client.add_modules(specs, scripts=scripts)
        if not no_wait:
            found = _until_done(client, [one.spec for one in found])
    _report(options, found)


@module.command()
@_wait
@common
@pass_options
def starter(options: Options, no_wait: bool) -> None:
    """Install a set of modules to begin with (docs/modules.md lists it), of the registries that are set."""
    from sandpost.client import Refused  # noqa: PLC0415 - not every command needs it
    from sandpost.modules.starter import STARTERS  # noqa: PLC0415 - only here

    found: list[ModuleView] = []
    refused: Refused | None = None
    with management(options) as client:
        for registry in REGISTRIES:
            wanted = [one.spec for one in STARTERS if one.spec.startswith(f"{registry}:")]
            try:
                found += client.add_modules(wanted)
            except Refused as error:
                refused = error
        if refused is not None and not found:
            raise refused
        if not no_wait:
            found = _until_done(client, [one.spec for one in found])
    _report(options, found)


@module.command("ls")
@common
@pass_options
def list_modules(options: Options) -> None:
    """List modules and how they stand."""
    with management(options) as client:
        found = list(client.modules())
    if options.json:
        show.as_json(found)
        return
    _table(found)


@module.command("show")
@click.argument("spec")
@common
@pass_options
def show_module(options: Options, spec: str) -> None:
    """Show a module with the hashes of all packages that are in it."""
    with management(options) as client:
        found = client.module(spec)
    if options.json:
        show.as_json(found)
        return
    show.pairs(
        [
            ("module", found.spec),
            ("state", found.state),
            *([("reason", found.reason)] if found.reason else []),
            ("size", _size(found)),
            ("files", str(found.files)),
            ("scripts", "its own were run" if found.scripts else "none were run"),
            ("digest", found.digest or "-"),
        ]
    )
    show.table(("PACKAGE", "HASH"), sorted((found.integrity or {}).items()), empty="")


@module.command("rm")
@click.argument("spec")
@common
@pass_options
def remove(options: Options, spec: str) -> None:
    """Remove a module, whatever its state; what was loaded from it goes on."""
    with management(options) as client:
        client.remove_module(spec)
    if options.json:
        show.as_json({"removed": spec})
        return
    print(f"module {spec} removed")


@module.command()
@click.option("--keep", type=click.IntRange(0, 1000), metavar="N", help="Leave the newest N versions of each package.")
@click.option("--older-than", metavar="TIME", help="Of the others, remove what has been available for longer: 90d.")
@common
@pass_options
def gc(options: Options, keep: int | None, older_than: str | None) -> None:
    """Remove what failed and, with an option, older versions; the platform does not know what programs use."""
    with management(options) as client:
        removed = client.collect_modules(keep=keep, older_than=older_than)
    if options.json:
        show.as_json(removed)
        return
    for one in removed:
        print(f"{one.spec} removed ({one.state})")
    from sandpost.model.units import show_size  # noqa: PLC0415 - only here

    print(f"{len(removed)} removed, {show_size(sum(one.size for one in removed))} freed")


def _until_done(client: "Client", specs: Sequence[str]) -> "list[ModuleView]":
    """Wait until none of `specs` is queued; say on stderr what they wait for whenever that changes."""
    told: dict[str, str] = {}
    deadline = time.monotonic() + _WAIT_MOST
    while True:
        known = {one.spec: one for one in client.modules()}
        found = [known[spec] for spec in specs if spec in known]
        waiting = [one for one in found if one.state == "queued"]
        if not waiting:
            return found
        for one in waiting:
            if one.reason and told.get(one.spec) != one.reason:
                print(f"{one.spec}: {_plain(one.reason)}", file=sys.stderr)
                told[one.spec] = one.reason
        if time.monotonic() > deadline:
            raise NotInTime(f"{len(waiting)} modules are queued still: `sandpost module ls` shows when they are there")
        time.sleep(_LOOK)


def _report(options: Options, found: "Sequence[ModuleView]") -> None:
    if options.json:
        show.as_json(found)
    else:
        _table(found)
    if any(one.state == "failed" for one in found):
        raise SystemExit(exits.PROGRAM)


def _table(found: "Sequence[ModuleView]") -> None:
    show.table(
        ("MODULE", "STATE", "SIZE", "FILES", "WHY"),
        [
            (one.spec, one.state, _size(one), str(one.files) if one.done_at else "-", _plain(one.reason) or "-")
            for one in found
        ],
        empty="there is no module: `sandpost module add npm:lodash@4.17.21` installs one",
        right=("SIZE", "FILES"),
    )


def _size(one: "ModuleView") -> str:
    from sandpost.model.units import show_size  # noqa: PLC0415 - only here

    return show_size(one.size) if one.state == "available" else "-"


def _plain(text: str) -> str:
    """Return what npm or pip said, without anything that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
