"""`sandpost run`: a program in a file, run for a tenant."""

import sys
from typing import BinaryIO

import click

from sandpost.cli import exits
from sandpost.cli.options import Options, common, pass_options
from sandpost.cli.place import front

MAX_PROGRAM = 64 << 20
"""Bytes that are read of a file: no tenant's limit is above it."""


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--tenant", "-t", required=True, metavar="T", help="For whom it runs.")
@click.option("--data", "-d", multiple=True, metavar="K=V", help="A query parameter, in the program's context.data.")
@click.option(
    "--content-type",
    default="",
    metavar="TYPE",
    help="The program's language, such as text/x-python; without it its first line says it, else it is JavaScript.",
)
@common
@pass_options
def run(options: Options, file: BinaryIO, tenant: str, data: tuple[str, ...], content_type: str) -> None:
    """Run a program for a tenant and print its answer; errors of the platform go to stderr.

    FILE may be - for stdin. With --json the answer is printed as {"status", "headers", "body"}.
    """
    pairs = [pair.partition("=") for pair in data]
    for name, equals, _ in pairs:
        if not equals or not name or name == "key" or name.startswith("webtask_"):
            raise click.UsageError(f"--data {name}: write NAME=VALUE; `key` and `webtask_..` are the platform's")
    program = file.read(MAX_PROGRAM + 1)
    parameters = {name: value for name, _, value in pairs}
    with front(options) as client, client.run(tenant, program, parameters, content_type) as answer:
        if options.json:
            from sandpost.cli.show import as_json  # noqa: PLC0415 - only here

            body = answer.read()
            headers = dict(answer.headers)
            as_json({"status": answer.status_code, "headers": headers, "body": body.decode("utf-8", "replace")})
        else:
            # It may be endless: it is printed as it comes.
            for part in answer.iter_bytes():
                sys.stdout.buffer.write(part)
                sys.stdout.buffer.flush()
        if answer.status_code >= 400:
            raise SystemExit(exits.PROGRAM)
