"""Sandpost: a self-hosted sandbox for code that you do not trust."""

__version__ = "0.1.0"
