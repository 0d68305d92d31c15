"""Modules of npm and PyPI: asked for, installed in a sandbox, kept, removed."""
