"""What the root of every sandbox holds, as those who build it and those who start programs in it agree."""

USER = 1000
"""The user (and group) that everything in a sandbox runs as."""
RUNTIMES = "/opt/sandpost"
"""Folder of the runtimes: `<name>/main.js` and, if Node needs arguments of its own, `<name>/flags.json`."""
NODE = "/usr/local/bin/node"
INIT = "/usr/bin/tini-static"
DEVICES = ("full", "null", "random", "urandom", "zero")
"""The device nodes of a sandbox; the root's /dev holds an empty file for each, over which the host's node is bound."""
