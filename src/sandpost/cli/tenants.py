"""`sandpost tenant ..`"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from sandpost.cli import show
from sandpost.cli.commands import Commands
from sandpost.cli.options import Options, common, pass_options
from sandpost.cli.place import management
from sandpost.config.table import BY_NAME
from sandpost.model.bounds import BOUNDS, format_limit
from sandpost.model.engines import ENGINES

if TYPE_CHECKING:
    from sandpost.api.views import TenantPut

_EXAMPLES = {"size": "SIZE", "duration": "TIME", "count": "N", "share": "N"}


@click.group(cls=Commands)
def tenant() -> None:
    """Tenants: their limits, isolation, egress and state."""


@tenant.command("ls")
@common
@pass_options
def list_tenants(options: Options) -> None:
    """List the registered tenants."""
    with management(options) as client:
        found = list(client.tenants())
    if options.json:
        show.as_json(found)
        return
    show.table(
        ("NAME", "STATE", "ISOLATION", "OWN LIMITS", "REGISTERED"),
        [
            (
                one.name,
                one.state,
                one.isolation,
                " ".join(f"{name}={format_limit(name, getattr(one.limits, name))}" for name in one.own) or "-",
                show.time_of(one.created_at),
            )
            for one in found
        ],
        empty="no tenant is registered: `sandpost tenant set NAME` registers one",
    )


@tenant.command("show")
@click.argument("name")
@common
@pass_options
def show_tenant(options: Options, name: str) -> None:
    """Show a tenant with all its limits."""
    with management(options) as client:
        _show(options, client.tenant(name))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _limits(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, bound in reversed(list(BOUNDS.items())):
        command = click.option(
            "--" + name.replace("_", "-"),
            name,
            metavar=_EXAMPLES[bound.kind],
            help=f"{_sentence(BY_NAME[f'limits.{name}'].help)} ({format_limit(name, bound.least)} to"
            f" {format_limit(name, bound.greatest)}).",
        )(command)
    return command


@tenant.command("set")
@click.argument("name")
@click.option(
    "--isolation",
    type=click.Choice(["per_tenant", "per_request"]),
    help="per_request: each call has a sandbox of its own.",
)
@click.option(
    "--egress",
    metavar="POLICY",
    help="What its code reaches outside: public, none, or allow: with domains and addresses, such as "
    "allow:api.example.com:443,*.example.org,203.0.113.0/24.",
)
@click.option(
    "--engine",
    type=click.Choice([*ENGINES, "default"]),
    help="What makes its sandboxes: runc, or runsc (gVisor, the stronger wall).",
)
@_limits
@common
@pass_options
def set_tenant(
    options: Options, /, name: str, isolation: str | None, egress: str | None, engine: str | None, **limits: str | None
) -> None:
    """Register a tenant or change it. What is not named stays; `default` puts a limit back."""
    change: dict[str, Any] = {}
    if isolation is not None:
        change["isolation"] = isolation
    if egress is not None:
        change["egress"] = egress
    if engine is not None:
        change["engine"] = None if engine == "default" else engine
    given = {limit: None if value == "default" else value for limit, value in limits.items() if value is not None}
    if given:
        change["limits"] = given
    with management(options) as client:
        made, is_new = client.put_tenant(name, change)
    if options.json:
        _as_json(made, is_new)
        return
    print(f"tenant {name} {'registered' if is_new else 'changed'}{_later(made.applied)}")


@tenant.command()
@click.argument("name")
@common
@pass_options
def suspend(options: Options, name: str) -> None:
    """Answer a tenant's calls with 403 and end its sandboxes."""
    _set_state(options, name, "suspended")


@tenant.command()
@click.argument("name")
@common
@pass_options
def resume(options: Options, name: str) -> None:
    """Let a suspended tenant run again."""
    _set_state(options, name, "active")


@tenant.command("rm")
@click.argument("name")
@common
@pass_options
def remove(options: Options, name: str) -> None:
    """Remove a tenant with its keys, sandboxes and usage."""
    with management(options) as client:
        client.remove_tenant(name)
    if options.json:
        show.as_json({"removed": name})
        return
    print(f"tenant {name} removed")


def _set_state(options: Options, name: str, state: str) -> None:
    with management(options) as client:
        made, is_new = client.put_tenant(name, {"state": state})
    if options.json:
        _as_json(made, is_new)
        return
    if is_new:
        # Whoever calls is a tenant without being registered, so a name that was mistyped is as good as any.
        print(f"tenant {name} was not registered and now is: `sandpost tenant rm {name}` if another was meant")
    print(f"tenant {name} is {state}{_later(made.applied)}")


def _as_json(made: "TenantPut", is_new: bool) -> None:
    import msgspec  # noqa: PLC0415 - not every command prints JSON

    show.as_json({**msgspec.to_builtins(made), "registered_now": is_new})


def _later(applied: bool) -> str:
    return "" if applied else " (the controller is away; it takes it up when it is back)"


def _show(options: Options, one: Any) -> None:
    if options.json:
        show.as_json(one)
        return
    show.pairs(
        [
            ("name", one.name),
            ("state", one.state),
            ("isolation", one.isolation),
            ("egress", one.egress),
            ("engine", one.engine or "the host's"),
            ("registered", show.time_of(one.created_at)),
        ]
    )
    show.table(
        ("LIMIT", "VALUE", "FROM"),
        [
            (name, format_limit(name, getattr(one.limits, name)), "tenant" if name in one.own else "host")
            for name in BOUNDS
        ],
        empty="",
    )
