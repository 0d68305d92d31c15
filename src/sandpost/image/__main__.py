"""`python -m sandpost.image IMAGE_DIR DIGEST`: removes the images that nobody uses any more, but for the one named.

The supervisor runs it beside everything once all is up: it looks at every process of the machine, and removes trees.
"""

import os
import signal
import sys

from sandpost.image import use
from sandpost.kernel import calls
from sandpost.logs.setup import configure, get_logger

log = get_logger()


def main(image_dir: str, digest: str) -> None:
    """Remove them, and say which."""
    configure("image")
    # What is half removed when a stop ends this is seen as that by the next.
    calls.die_with_parent(signal.SIGTERM)
    os.nice(19)
    try:
        removed = use.prune(image_dir, {digest})
    except OSError as error:
        log.warning("images that nobody uses cannot be looked for or removed", folder=image_dir, error=str(error))
        return
    if removed:
        log.info("images that nobody used were removed", removed=removed)


if __name__ == "__main__":
    main(*sys.argv[1:])
