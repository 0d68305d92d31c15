"""What the root of every sandbox holds, as those who build it and those who start programs in it agree."""

USER = 1000
"""The user (and group) that everything in a sandbox runs as."""
RUNTIMES = "/opt/sandpost"
"""Folder of the runtimes (`model.runtimes`); beside each one's files is `flags.json`, what its interpreter is given."""
NODE = "/usr/local/bin/node"
PYTHON = "/usr/bin/python3"
INIT = "/usr/bin/tini-static"
MODULES = "/modules"
"""Where programs see the installation's store of modules (`Host.modules_ready`)."""
DEVICES = ("full", "null", "random", "urandom", "zero")
"""The device nodes of a sandbox; the root's /dev holds an empty file for each, over which the host's node is bound."""
