"""`sandpost selftest`: tries the attacks of a hostile tenant on the running installation, and shows what held."""

import sys
from typing import TYPE_CHECKING

import click

from sandpost.cli import exits, show
from sandpost.cli.options import Options, common, pass_options
from sandpost.model.engines import ENGINES
from sandpost.model.limits import EngineName

if TYPE_CHECKING:
    from sandpost.selftest.runner import Verdict


@click.command()
@click.option("--quick", is_flag=True, help="Only cases that take a moment: under a minute in all.")
@click.option("--case", "names", metavar="NAME", multiple=True, help="Only this case; may be said again.")
@click.option(
    "--engine", type=click.Choice(ENGINES), help="What makes the sandboxes of its tenants; else as the host says."
)
@click.option("--list", "listing", is_flag=True, help="List the cases and what each tries.")
@common
@pass_options
def selftest(
    options: Options, /, quick: bool, names: tuple[str, ...], engine: EngineName | None, listing: bool
) -> None:
    """Try what a hostile tenant tries, with tenants of its own.

    They take at most a tenth of the host, send nothing to a public address, and are removed at the end. As root on the
    host it looks at processes, groups and logs as well. Exit code 1 if a wall did not hold.
    """
    from sandpost.cli.attack import chosen, run  # noqa: PLC0415 - takes longer than the rest of a start

    cases = chosen(quick=quick, names=names)
    if listing:
        for one in cases:
            print(f"{one.name}\n    {one.text.strip().replace(chr(10), chr(10) + '    ')}\n")
        return
    verdicts = list(run(options, cases, engine, progress=_progress if not options.json else lambda _: None))
    if options.json:
        show.as_json(verdicts)
    else:
        _table(verdicts)
    if any(one.outcome == "broken" for one in verdicts):
        raise SystemExit(exits.FAILED)


_SEEN = 60
"""Columns of what was seen; the rest stands below the table."""


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _table(verdicts: "list[Verdict]") -> None:
    _progress("")
    show.table(
        ("PART", "CASE", "VERDICT", "SEEN", "TIME", "NEIGHBOUR P99", "QUIET"),
        [
            (
                one.part,
                one.title,
                one.outcome,
                one.seen if len(one.seen) <= _SEEN else one.seen[: _SEEN - 2] + "..",
                f"{one.seconds:.1f}s",
                f"{one.neighbour.p99 * 1000:.1f}ms" if one.neighbour else "-",
                f"{one.quiet.p99 * 1000:.1f}ms",
            )
            for one in verdicts
        ],
        empty="no case was chosen",
        right=("TIME", "NEIGHBOUR P99", "QUIET"),
    )
    for one in verdicts:
        if one.outcome != "held" and len(one.seen) > _SEEN:
            print(f"\n{one.name}: {one.seen}")
    held, broken, untried = (sum(one.outcome == word for one in verdicts) for word in ("held", "broken", "untried"))
    engines = ", ".join(sorted({one.engine for one in verdicts}))
    print(f"\n{held} held, {broken} broken, {untried} could not be tried" + (f"; on {engines}" if engines else ""))
