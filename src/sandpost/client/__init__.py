"""A client of the management routes and of runs."""

from sandpost.client.client import Client, problem_of
from sandpost.client.errors import ClientError, Refused, Unreachable

__all__ = ["Client", "ClientError", "Refused", "Unreachable", "problem_of"]
