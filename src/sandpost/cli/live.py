"""`sandpost status`, `ps`, `usage`: what runs and what was used."""

import datetime as dt
import time
from typing import TYPE_CHECKING

import click

from sandpost.cli import exits, show
from sandpost.cli.options import Options, common, pass_options
from sandpost.cli.place import management
from sandpost.model.units import show_size

if TYPE_CHECKING:
    from sandpost.api.views import UsageHour, UsageTotal


@click.command()
@common
@pass_options
def status(options: Options) -> None:
    """Show how the installation is.

    Exit code 1 if something is wrong.
    """
    with management(options) as client:
        seen = client.status()
    if options.json:
        show.as_json(seen)
    else:
        lines = [
            ("version", seen.version),
            ("instance", f"{seen.instance:x}"),
            ("state", seen.state_dir),
            ("listens on", seen.listen),
            ("tenants", str(seen.tenants)),
            ("keys", str(seen.keys)),
        ]
        if seen.controller is not None:
            one = seen.controller
            lines += [
                ("sandboxes", f"{one.assigned} assigned, {one.draining} draining, {one.starting} starting"),
                ("pool", f"{one.pool} of {one.pool_target} ready, {one.waiting} waiting"),
                *(
                    (f"on {name}", f"{its.assigned} assigned, {its.pool} of {its.pool_target} ready")
                    for name, its in one.runtimes.items()
                ),
                ("memory", f"{show_size(one.memory_used)} of {show_size(one.memory_limit)}"),
                ("started", f"{one.starts} in {show.span(one.uptime)}"),
                ("ended", show.words(one.ends)),
                ("proxies", str(one.proxies)),
            ]
        lines += [("problem", problem) for problem in seen.problems] or [("problems", "none")]
        show.pairs(lines)
    if seen.problems:
        raise SystemExit(exits.FAILED)


@click.command()
@click.option("--tenant", metavar="T", help="Only this tenant's.")
@common
@pass_options
def ps(options: Options, tenant: str | None) -> None:
    """List sandboxes: whose they are and what they use."""
    with management(options) as client:
        found = client.sandboxes(tenant)
    if options.json:
        show.as_json(found)
        return
    now = time.time()
    show.table(
        (
            "SANDBOX",
            "PHASE",
            "TENANT",
            "ENGINE",
            "RUNTIME",
            "AGE",
            "LAST CALL",
            "CALLS",
            "NOW",
            "MEMORY",
            "CPU",
            "PIDS",
        ),
        [
            (
                one.sandbox_id,
                one.phase,
                one.tenant or "-",
                one.engine,
                f"{one.runtime} {one.modules}".rstrip(),
                show.ago(one.started_at, now),
                show.ago(one.last_call_at, now),
                str(one.calls),
                str(one.in_flight),
                show_size(one.memory),
                f"{one.cpu_seconds:.2f}s",
                str(one.pids),
            )
            for one in found
        ],
        empty="no sandbox is running",
        right=("AGE", "LAST CALL", "CALLS", "NOW", "MEMORY", "CPU", "PIDS"),
    )


@click.command()
@click.argument("tenant")
@click.option(
    "--since",
    metavar="WHEN",
    default="24h",
    show_default=True,
    help="`24h`, `7d`, a date or a time in ISO 8601; local time where no zone is named.",
)
@common
@pass_options
def usage(options: Options, tenant: str, since: str) -> None:
    """Show what a tenant used, by hour, in local time."""
    with management(options) as client:
        seen = client.usage(tenant, in_local_time(since))
    if options.json:
        show.as_json(seen)
        return
    show.table(
        ("HOUR", "CALLS", "CPU", "MEMORY", "IN", "OUT", "ENDS"),
        [_used(show.time_of(hour.hour)[:16], hour) for hour in seen.hours]
        + ([_used("total", seen.total)] if seen.hours else []),
        empty=f"tenant {tenant} used nothing since {show.time_of(seen.since)} (the last seconds are counted later)",
        right=("CALLS", "CPU", "MEMORY", "IN", "OUT"),
    )


def in_local_time(since: str) -> str:
    """Return `since` with this machine's zone if it is a date or time without one: the api would take it as UTC."""
    if since.isdecimal():
        # Seconds since the epoch, not a date in its short form.
        return since
    try:
        moment = dt.datetime.fromisoformat(since)
        return since if moment.tzinfo is not None else moment.astimezone().isoformat()
    except (ValueError, OverflowError):
        return since


def _used(title: str, one: "UsageHour | UsageTotal") -> tuple[str, ...]:
    return (
        title,
        str(one.calls),
        f"{one.cpu_seconds:.2f}s",
        f"{one.memory_seconds / (1 << 30) / 3600:.4f} GiB h",
        show_size(one.bytes_in),
        show_size(one.bytes_out),
        show.words(one.ends),
    )
