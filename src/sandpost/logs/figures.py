"""Leaves a process's figures where the metrics listener finds them."""

import os

import msgspec

from sandpost.model.figures import Figures

_encode = msgspec.json.Encoder().encode


def write(folder: str, figures: Figures) -> None:
    """Replace `<folder>/<part>-<index>.json` atomically; `OSError` if the folder is missing or not ours.

    The folder is in tmpfs and its content says nothing after a reboot, so nothing is synced.
    """
    path = os.path.join(folder, f"{figures.part}-{figures.index}.json")
    fresh = f"{path}.{os.getpid()}"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, _encode(figures))
    finally:
        os.close(fd)
    os.replace(fresh, path)
