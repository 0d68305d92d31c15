"""`sandpost key ..`"""

import click

from sandpost.cli import show
from sandpost.cli.commands import Commands
from sandpost.cli.options import Options, common, pass_options
from sandpost.cli.place import management


@click.group(cls=Commands)
def key() -> None:
    """Keys of the operator and of tenants."""


@key.command()
@click.option("--tenant", metavar="T", help="Make it this tenant's; without, the operator's, good for everything.")
@click.option("--label", metavar="TEXT", default="", help="What it is for.")
@common
@pass_options
def create(options: Options, tenant: str | None, label: str) -> None:
    """Make a key. It is shown this once."""
    with management(options) as client:
        made = client.make_key(tenant, label)
    if options.json:
        show.as_json(made)
        return
    print(made.key)


@key.command("ls")
@click.option("--tenant", metavar="T", help="Only this tenant's.")
@common
@pass_options
def list_keys(options: Options, tenant: str | None) -> None:
    """List keys, without their secrets."""
    with management(options) as client:
        found = sorted(client.keys(tenant), key=lambda one: one.created_at)
    if options.json:
        show.as_json(found)
        return
    show.table(
        ("ID", "FOR", "LABEL", "MADE"),
        [(one.id, one.tenant or "(operator)", one.label or "-", show.time_of(one.created_at)) for one in found],
        empty="there is no key: `sandpost key create` makes one",
    )


@key.command()
@click.argument("key_id", metavar="ID")
@common
@pass_options
def revoke(options: Options, key_id: str) -> None:
    """Revoke a key by its id; within a second it is good for nothing."""
    if key_id.startswith("sp_"):
        raise click.UsageError(
            "name the key by its id, the part between the underscores (`sandpost key ls`); the whole key was just "
            "seen by whoever sees this machine's processes: revoke it in any case"
        )
    with management(options) as client:
        client.revoke_key(key_id)
    if options.json:
        show.as_json({"revoked": key_id})
        return
    print(f"key {key_id} revoked")
