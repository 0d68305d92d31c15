"""The runtimes that programs run on: what each is started by inside the image, and whether it has a pool. Pure.

A further runtime is a row of `RUNTIMES`; `flags.json` in its folder of the image holds its interpreter's own flags.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sandpost.model import inside
from sandpost.model.modules import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """One runtime. `folder` is that of its files below `inside.RUNTIMES`, `main` the file there that is run."""

    folder: str
    interpreter: str
    main: str
    registry: Registry
    """Where modules of its programs come from."""
    one_set: bool = False
    """Whether all programs of a process have the same modules: then a tenant has a sandbox for each set of them."""
    pooled: bool = True
    """Whether it has a pool from the start; else one as large as it was asked for lately."""
    farewell: float = 0.0
    """Seconds that its programs have at most for their own end, from a SIGTERM; 0: it makes nothing of one."""

    def command(self, flags: tuple[str, ...]) -> list[str]:
        """Return the command line inside the image; `flags` are the interpreter's own."""
        return [self.interpreter, *flags, f"{inside.RUNTIMES}/{self.folder}/{self.main}"]


Runtimes = Mapping[str, Runtime]
"""By name."""

DEFAULT = "node"
"""Of programs that say nothing of their language, and of what an older release wrote down."""

RUNTIMES: Runtimes = {
    "node": Runtime(folder="node", interpreter=inside.NODE, main="main.js", registry="npm"),
    "python": Runtime(
        folder="python",
        interpreter=inside.PYTHON,
        main="main.py",
        registry="pypi",
        one_set=True,
        pooled=False,
        # It takes two seconds for that itself at most.
        farewell=2.5,
    ),
}
