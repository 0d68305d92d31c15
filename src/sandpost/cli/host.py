"""Commands about this machine's own installation: `config`, `doctor`, `restart`, `stop`, `completion`, `serve`."""

import os

import click

from sandpost.cli import exits, place, show
from sandpost.cli.commands import Commands
from sandpost.cli.options import Options, common, pass_options


@click.group(cls=Commands)
def config() -> None:
    """Settings."""


@config.command("show")
@common
@pass_options
def show_config(options: Options) -> None:
    """Show every setting, its value and where it comes from."""
    from sandpost.config import describe  # noqa: PLC0415 - only this command needs it

    options.here_alone("config show")
    rows = describe(place.settings(options), lambda path: os.access(path, os.R_OK))
    if options.json:
        show.as_json(
            [
                {"name": row.name, "value": row.value, "origin": row.origin, "live": row.live, "help": row.help}
                for row in rows
            ]
        )
        return
    show.table(
        ("SETTING", "VALUE", "FROM", "SIGHUP", "WHAT"),
        [(row.name, row.value or "-", row.origin, "yes" if row.live else "no", row.help) for row in rows],
        empty="",
    )


@click.command()
@common
@pass_options
def doctor(options: Options) -> None:
    """Say what this machine lacks, and how to get it.

    Exit code 1 if something must be mended.
    """
    from sandpost.config import machine, preflight  # noqa: PLC0415 - only this command needs it
    from sandpost.config.kinds import split_address  # noqa: PLC0415 - the same

    options.here_alone("doctor")
    found = place.settings(options)
    running = _runs(options)
    # Its own port is in use while it runs, and that is well.
    port_error = "" if running else machine.port_error(split_address(found["listen"]))
    findings = preflight.judge(machine.read(found, port_error=port_error))
    if running:
        own = preflight.Finding("port", "ok", f"{found['listen']} is this installation's")
        findings = [own if one.name == "port" else one for one in findings]
    if options.json:
        show.as_json([{"name": one.name, "level": one.level, "message": one.message} for one in findings])
    else:
        show.table(("CHECK", "", "WHAT"), [(one.name, one.level, one.message) for one in findings], empty="")
        print(f"the installation of {found['state_dir']} is {'running' if running else 'not running'}")
    if any(one.level == "fatal" for one in findings):
        raise SystemExit(exits.FAILED)


@click.command()
@common
@pass_options
def restart(options: Options) -> None:
    """Renew every process; no call fails, sandboxes are kept."""
    from sandpost.cli import supervisor  # noqa: PLC0415 - only on this way

    options.here_alone("restart")
    answer = supervisor.restart(place.installation(options))
    if options.json:
        show.as_json({"pids": answer.pids, "error": answer.error})
    elif not answer.error:
        print("restarted: " + ", ".join(f"{part} {pid}" for part, pid in sorted(answer.pids.items())))
    if answer.error:
        raise exits.CannotReach(f"not restarted: {answer.error}")


@click.command()
@common
@pass_options
def stop(options: Options) -> None:
    """Stop everything; calls under way finish, nothing is left."""
    from sandpost.cli import supervisor  # noqa: PLC0415 - only on this way

    options.here_alone("stop")
    host = place.installation(options)
    supervisor.stop(host)
    if options.json:
        show.as_json({"stopped": host.state_dir})
        return
    print(f"stopped the installation of {host.state_dir}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands.

    `source <(sandpost completion bash)`
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - only this command needs it

    made = get_completion_class(shell)
    assert made is not None
    print(made(context.find_root().command, {}, "sandpost", "_SANDPOST_COMPLETE").source())


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
@pass_options
def serve(options: Options, flags: tuple[str, ...]) -> None:
    """Start this host's installation.

    `serve --help` lists the settings.
    """
    # Its own module reads the flags; this entry stands here for the list of commands.
    from sandpost.supervisor.main import main  # noqa: PLC0415 - a whole process of its own

    for option, given in (
        ("--url", options.url),
        ("--key-file", options.key_file),
        ("--cacert", options.cacert),
        ("--json", options.json),
    ):
        if given:
            raise click.UsageError(f"`serve` starts this host's installation and knows no {option}: leave it out")
    before = ["--config", options.config] if options.config else []
    before += ["--state-dir", options.state_dir] if options.state_dir else []
    raise SystemExit(main([*before, *flags]))


def _runs(options: Options) -> bool:
    try:
        host = place.installation(options)
    except exits.NotRunning:
        return False
    return place.answers(host)
