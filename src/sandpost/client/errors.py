"""What can go wrong between a client and the platform."""

from sandpost.api.views import Problem


class ClientError(Exception):
    """Base; the message says what to do."""


class Unreachable(ClientError):  # noqa: N818 - like the platform's own errors, it says what is wrong
    """Nobody answered."""


class Refused(ClientError):  # noqa: N818 - the same
    """The platform answered with an error, `problem`."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem
