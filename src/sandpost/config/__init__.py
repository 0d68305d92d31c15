"""Settings of an installation, its claim on the machine, and what the machine must have."""

from sandpost.config.resolve import Row, Settings, describe, frozen_differences
from sandpost.config.sources import load
from sandpost.config.table import DEFAULTS, SETTINGS, Setting

__all__ = ["DEFAULTS", "SETTINGS", "Row", "Setting", "Settings", "describe", "frozen_differences", "load"]
