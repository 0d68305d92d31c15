"""`sandpost`: the commands, and how their failures are told: one or two lines, no traceback, an exit code."""

import contextlib
import os
import sys
from collections.abc import Sequence

import click

from sandpost import __version__
from sandpost.cli import exits, host, keys, live, logs, modules, run, selftest, tenants
from sandpost.cli.commands import Commands
from sandpost.cli.options import Options, common
from sandpost.model.errors import SandpostError


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, epilog=exits.HELP
)
@click.version_option(__version__, prog_name="sandpost")
@common
def commands() -> None:
    """Run code that you do not trust.

    On the host, root needs no key but for `run`; from elsewhere say --url and SANDPOST_KEY.
    """


for command in (
    host.serve,
    run.run,
    live.status,
    live.ps,
    live.usage,
    logs.logs,
    selftest.selftest,
    tenants.tenant,
    keys.key,
    modules.module,
    host.config,
    host.doctor,
    host.restart,
    host.stop,
    host.completion,
):
    commands.add_command(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        result = commands.main(arguments, prog_name="sandpost", standalone_mode=False, obj=Options())
    except click.exceptions.Abort:
        return exits.INTERRUPTED
    except click.ClickException as error:
        if "--json" in arguments:
            # A group without a command would show its help.
            missing = isinstance(error, click.exceptions.NoArgsIsHelpError)
            _tell_json("usage", "Missing command." if missing else error.format_message(), exits.USAGE)
        else:
            error.show()
        return exits.USAGE
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else exits.FAILED
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain once more at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.OK
    except Exception as error:
        return _tell(error, as_json="--json" in arguments)
    return result if isinstance(result, int) else exits.OK


def _tell(error: Exception, *, as_json: bool) -> int:
    """Say on stderr what went wrong, in a line or two or as JSON; return the exit code."""
    from sandpost.client.errors import ClientError, Refused  # noqa: PLC0415 - only where something failed

    code, reason, message = exits.FAILED, "internal", str(error)
    if isinstance(error, Refused):
        code, reason = exits.of_fault(error.problem.fault), error.problem.reason
    elif isinstance(error, SandpostError):
        code, reason = exits.of_error(error), error.reason
    elif isinstance(error, ClientError | OSError):
        reason = "unreachable" if isinstance(error, ClientError) else "system"
    else:
        message = f"this command failed as it never should, please report it: {type(error).__name__}: {error}"
    if as_json:
        _tell_json(reason, message, code)
    else:
        # Part of it may be a stranger's: nothing that a terminal would obey.
        shown = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in message)
        print(f"sandpost: {shown}", file=sys.stderr)
    return code


def _tell_json(reason: str, message: str, code: int) -> None:
    import json  # noqa: PLC0415 - only here

    print(json.dumps({"error": {"reason": reason, "message": message, "exit_code": code}}), file=sys.stderr)
