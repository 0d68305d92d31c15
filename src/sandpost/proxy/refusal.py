"""A controller's refusal as the error that the caller reads. Pure."""

from sandpost.model.errors import SandpostError
from sandpost.model.messages import Refusal


class ControllerRefusalError(SandpostError):
    """Reason, status and fault are the controller's."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message, retry_after=refusal.retry_after)
        self._refusal = refusal
        # Of the instance, since they differ from one refusal to the next.
        self.__dict__["status"] = refusal.status

    def to_dict(self, req_id: str | None = None) -> dict[str, object]:
        """Return the body with what the controller said."""
        return {
            **super().to_dict(req_id),
            "code": self._refusal.status,
            "reason": self._refusal.reason,
            "fault": self._refusal.fault,
            "retryable": self._refusal.retryable,
        }


def from_refusal(refusal: Refusal) -> SandpostError:
    """Return `refusal` as an error."""
    return ControllerRefusalError(refusal)
