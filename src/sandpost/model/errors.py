"""One hierarchy for everything that can be refused or fail.

An error knows its one-word `reason`, the HTTP `status` it deserves, whose `fault` it is and whether trying
again can help; its message says what to do. Bodies, log records and metric labels are made from these.
"""

from typing import Any, ClassVar, Literal

Fault = Literal["caller", "code", "platform"]
SEE_OUTPUT = "`sandpost logs --system` shows what it printed"
"""What to do about a sandbox that did not start."""


def shown(text: str, most: int = 80) -> str:
    """Return somebody's text as it stands in an error: the beginning of it, what is not ASCII escaped."""
    return ascii(text[:most])[1:-1]


class SandpostError(Exception):
    """Base of all errors of the platform."""

    reason: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    fault: ClassVar[Fault] = "platform"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after: int | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.details = details

    def to_dict(self, req_id: str | None = None) -> dict[str, Any]:
        """Return the JSON body of this error; `code` is the status number and `reason` the word."""
        body: dict[str, Any] = {
            "code": self.status,
            "reason": self.reason,
            "fault": self.fault,
            "retryable": self.retryable,
            "message": self.message,
        }
        if req_id is not None:
            body["req_id"] = req_id
        body.update(self.details)
        return body


class CallerError(SandpostError):
    """The request cannot be served as it is; the caller can mend it."""

    reason = "bad_request"
    status = 400
    fault: ClassVar[Fault] = "caller"


class InvalidName(CallerError):
    """A name is outside its alphabet."""

    reason = "invalid_name"


class InvalidValue(CallerError):
    """A field of a request is unknown, of the wrong kind or out of its bounds; the message names it."""

    reason = "invalid_value"


class MalformedRequest(CallerError):
    """The HTTP request breaks the grammar or is ambiguous; the connection ends with the answer."""

    reason = "malformed_request"


class HeadTooLarge(MalformedRequest):
    """The request's head is longer than the platform reads."""

    reason = "head_too_large"
    status = 431


class BodyTooLarge(CallerError):
    """A body or a program is longer than the tenant's limit."""

    reason = "body_too_large"
    status = 413


class RequestTimeout(CallerError):
    """The client did not send its head or body in time."""

    reason = "request_timeout"
    status = 408
    retryable = True


class InvalidCode(CallerError):
    """The body cannot be a program: empty, not UTF-8, or with a byte order mark."""

    reason = "invalid_code"


class UnsupportedLanguage(CallerError):
    """The content type or pragma names a language that no runtime here runs."""

    reason = "unsupported_language"
    status = 415


class NoCredentials(CallerError):
    """No key was sent."""

    reason = "no_credentials"
    status = 403


class WrongKey(CallerError):
    """The key is unknown or revoked."""

    reason = "wrong_key"
    status = 403


class NotAuthorized(CallerError):
    """The key is good, but not for this."""

    reason = "not_authorized"
    status = 403


class Suspended(CallerError):
    """The tenant is suspended by the operator."""

    reason = "suspended"
    status = 403


class EgressRefused(CallerError):
    """A program's connection to the outside is not in its tenant's allow-list."""

    reason = "egress_refused"
    status = 403
    fault: ClassVar[Fault] = "code"


class UnknownTenant(CallerError):
    """The tenant is not registered where it must be."""

    reason = "unknown_tenant"
    status = 404


class UnknownCode(CallerError):
    """No program of this tenant has that hash (any more)."""

    reason = "unknown_code"
    status = 404


class NotFound(CallerError):
    """There is nothing at this path."""

    reason = "not_found"
    status = 404


class MethodNotAllowed(CallerError):
    """The path exists, but not with this method."""

    reason = "method_not_allowed"
    status = 405


class Conflict(CallerError):
    """What the request wants contradicts what is there."""

    reason = "conflict"
    status = 409


class TooManyCalls(CallerError):
    """A tenant's limit on calls at once or calls a second is reached."""

    reason = "too_many_calls"
    status = 429
    retryable = True


class TooManySets(CallerError):
    """A tenant's programs choose more different sets of modules at once than it has sandboxes for."""

    reason = "too_many_sets"
    status = 429
    fault: ClassVar[Fault] = "code"
    retryable = True


class HeldBack(CallerError):
    """The tenant's sandboxes ended fatally too often in a row."""

    reason = "held_back"
    status = 429
    fault: ClassVar[Fault] = "code"
    retryable = True


class NoRoom(SandpostError):
    """The host cannot take another sandbox now."""

    reason = "no_room"
    status = 503
    retryable = True


class Unavailable(SandpostError):
    """A component failed before the call was sent; the message names it."""

    reason = "unavailable"
    status = 503
    retryable = True


class ModulesFull(SandpostError):
    """There are as many modules as the settings allow."""

    reason = "modules_full"
    status = 503
    fault: ClassVar[Fault] = "caller"


class BusError(Unavailable):
    """The bus of logs cannot be written or read now; the message says why and what to do."""

    reason = "bus"


class BadGateway(SandpostError):
    """Host, proxy or platform failed after the call was sent, or the sandbox broke the framing."""

    reason = "bad_gateway"
    status = 502


class NeighbourCall(BadGateway):
    """Another call ended the sandbox that this one shared with it."""

    reason = "neighbour_call"


class SandboxLost(BadGateway):
    """The sandbox ended during the call for a reason of the platform's; `reason` is the end's word."""

    def __init__(self, message: str, *, word: str) -> None:
        super().__init__(message)
        self.word = word

    def to_dict(self, req_id: str | None = None) -> dict[str, Any]:
        """Return the body with the end's word as its reason."""
        return {**super().to_dict(req_id), "reason": self.word}


class DeadlinePassed(SandpostError):
    """The call had no complete answer when its deadline came."""

    reason = "deadline"
    status = 504
    fault: ClassVar[Fault] = "code"


class SandboxEnded(SandpostError):
    """The sandbox ended during the call; `reason` is the end's word, `setting` the limit that it met, if it has one."""

    status = 500
    fault: ClassVar[Fault] = "code"

    def __init__(
        self, message: str, *, word: str, shared: bool = False, limit: float | None = None, setting: str = ""
    ) -> None:
        details: dict[str, Any] = {"shared": True} if shared else {}
        if setting:
            details |= {"limit": limit, "setting": setting}
        super().__init__(message, **details)
        self.word = word

    def to_dict(self, req_id: str | None = None) -> dict[str, Any]:
        """Return the body with the end's word as its reason."""
        return {**super().to_dict(req_id), "reason": self.word}


class ConfigError(SandpostError):
    """A setting is unknown, malformed or contradicts another; nothing was started."""

    reason = "config"
    fault: ClassVar[Fault] = "caller"


class HostUnfit(SandpostError):
    """The machine lacks something that a sandbox host needs; the message says how to get it."""

    reason = "host_unfit"


class EngineError(SandpostError):
    """A sandbox could not be made, started or removed."""

    reason = "engine"


class MemoryInUse(EngineError):
    """A group uses more memory than it was to be limited to; all else that was to be set of it is set."""


class AlreadyRunning(SandpostError):
    """Another supervisor holds the state folder."""

    reason = "running"
