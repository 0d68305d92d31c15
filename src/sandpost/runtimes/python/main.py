"""Starts the runtime: `python3 <flags> main.py`. Compiled at every boot, as every script is, so it is short."""

import sys

_here = __file__.rpartition("/")[0]
sys.path.insert(0, _here.rpartition("/")[0])
# The package's own folder is its name, here and in the image.
_boot = __import__(_here.rpartition("/")[2] + ".boot", fromlist=["run"])
# Programs look for modules elsewhere.
del sys.path[0]
_boot.run()
