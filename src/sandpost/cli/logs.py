"""`sandpost logs`: a stream of records, for people on a terminal, for programs in a pipe."""

import os
import select
import sys

import click

from sandpost.cli.options import Options, common, pass_options
from sandpost.cli.place import management

_ALL = "1000000"
"""More records than are kept of a tenant."""
_LAST = "10"
"""Records that come first where one follows and says no more."""


@click.command()
@click.argument("tenant", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, over every loss of the connection.")
@click.option(
    "--lines", "-n", type=click.IntRange(min=0), metavar="N", help="Begin with the last N records (of those --since)."
)
@click.option("--since", metavar="WHEN", help="Begin there: `10m` or `2h` ago, a date, a time in ISO 8601.")
@click.option("--level", metavar="LEVEL", help="Of at least this level: trace, debug, info, warn, error, fatal.")
@click.option("--grep", metavar="TEXT", help="Whose message has a match of this RE2 expression; `!TEXT`: has none.")
@click.option("--field", multiple=True, metavar="K=V", help="Of which the field K is exactly V.")
@click.option("--system", is_flag=True, help="The platform's own records, instead of a tenant's.")
@common
@pass_options
def logs(
    options: Options,
    tenant: str | None,
    follow: bool,
    lines: int | None,
    since: str | None,
    level: str | None,
    grep: str | None,
    field: tuple[str, ...],
    system: bool,
) -> None:
    """Show the records of a tenant: all that are kept, or the last and what comes (-f).

    In colours on a terminal, a JSON document a line elsewhere and with --json. With -n, the last N are looked through
    for those that --level, --grep and --field let pass.
    """
    if system == (tenant is not None):
        raise click.UsageError("name one tenant, or say --system")
    parameters = {f"f.{name}": value for name, value in map(_pair, field)}
    given = {"since": since and _in_local_time(since), "level": level, "f.msg": grep}
    parameters |= {name: text for name, text in given.items() if text}
    if not follow:
        parameters["follow"] = "false"
    if lines is not None or since is None:
        parameters["tail"] = str(lines) if lines is not None else _LAST if follow else _ALL
    if not sys.stdout.isatty():
        write = _write_json
    elif options.json:
        write = _show_json
    else:
        from sandpost.cli.pretty import Pretty  # noqa: PLC0415 - only for people

        write = Pretty(colours="NO_COLOR" not in os.environ).write
    with management(options) as client:
        following = client.logs(tenant, parameters)
        following.notice = _notice
        for record in following:
            if record:
                write(record)
            elif not _is_read():
                raise BrokenPipeError


def _write_json(record: bytes) -> None:
    sys.stdout.buffer.write(record + b"\n")
    sys.stdout.buffer.flush()


def _show_json(record: bytes) -> None:
    from sandpost.cli.pretty import harmless  # noqa: PLC0415 - only for people

    _write_json(harmless(record))


def _is_read() -> bool:
    """Whether anybody still reads what we print: where nothing is printed, nothing else would tell."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return not any(seen & select.POLLERR for _, seen in poll.poll(0))


def _notice(what: str) -> None:
    shown = "".join(letter if letter.isprintable() else "?" for letter in what)
    print(f"sandpost: {shown}; connecting again", file=sys.stderr)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--field {text}: write NAME=VALUE")
    return name, value


def _in_local_time(since: str) -> str:
    from sandpost.cli.live import in_local_time  # noqa: PLC0415 - only with --since

    return in_local_time(since)
