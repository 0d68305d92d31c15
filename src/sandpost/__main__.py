"""`sandpost COMMAND`: a process of a host, which imports only its own part, or the operator's command line."""

import importlib
import sys

from sandpost.supervisor.wish import WISH

_PARTS = {
    "serve": "sandpost.supervisor.main",
    "controller": "sandpost.controller.main",
    "proxy": "sandpost.proxy.main",
    "api": "sandpost.api.main",
    "collector": "sandpost.collector.main",
    "egress": "sandpost.egress.main",
}


def main() -> int:
    """Run what the command line names; return the exit status."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command == "serve":
        # Before the imports, which take longer than an operator may take to change his mind.
        WISH.listen()
    module = importlib.import_module(_PARTS.get(command, "sandpost.cli.main"))
    arguments = sys.argv[2:] if command in _PARTS else sys.argv[1:]
    status: int | None = module.main(arguments)
    return status or 0


if __name__ == "__main__":
    sys.exit(main())
