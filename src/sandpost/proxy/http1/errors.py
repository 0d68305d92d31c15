"""What parsing can find wrong. Who wrote the bytes decides which error it becomes."""

from typing import ClassVar

from sandpost.model.errors import BadGateway, Fault, MalformedRequest


class RuleError(ValueError):
    """Bytes break a rule of the grammar; the text names the rule. Never leaves this package."""


class BrokenResponse(BadGateway):
    """A sandbox's answer breaks HTTP or is ambiguous: its connection ends and the caller gets a 502.

    `rule` says what was broken. The fault is the code's: what comes out of a sandbox is the tenant's.
    """

    fault: ClassVar[Fault] = "code"

    def __init__(self, rule: str) -> None:
        super().__init__(f"the program's answer is not valid HTTP: {rule}")
        self.rule = rule


def malformed(rule: str) -> MalformedRequest:
    """Make the error for a request that breaks `rule`."""
    return MalformedRequest(f"malformed HTTP request: {rule}")
