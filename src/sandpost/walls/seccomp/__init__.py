"""The system calls that a sandbox may make: an allow-list with its reasons, and its rendering for an OCI runtime."""

from sandpost.walls.seccomp.profile import ARCHITECTURES, render

__all__ = ["ARCHITECTURES", "render"]
