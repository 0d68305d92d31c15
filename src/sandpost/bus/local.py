"""The local driver: files below one folder, no server."""

from sandpost.bus.local_reader import LocalReader
from sandpost.bus.local_writer import LocalWriter
from sandpost.bus.retention import Limits

__all__ = ["Limits", "LocalReader", "LocalWriter"]
