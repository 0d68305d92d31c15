"""What tenants read in their own streams of their sandboxes' lives: given, met limits, ended."""

from sandpost.controller.lifecycle import Sandbox
from sandpost.controller.waiting import Wait
from sandpost.logs import bunyan
from sandpost.logs.journal import Journal
from sandpost.logs.text import safe_text
from sandpost.model.ends import is_fatal


class Telling:
    """Writes to the process's journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def assigned(self, sandbox: Sandbox, wait: Wait) -> None:
        """A sandbox is its tenant's from now on; the call that needed it is told too, where one did."""
        tenant = sandbox.record.tenant
        if tenant is not None:
            self._journal.tell(
                tenant,
                "webtask container assigned",
                sandbox_id=sandbox.sandbox_id,
                req_id=wait.req_id,
                trace_id=wait.trace_id,
                runtime=sandbox.record.runtime,
            )

    def noted(self, sandbox: Sandbox, text: str) -> None:
        """Something of a sandbox that its tenant should know. `text` may hold what a stranger wrote."""
        tenant = sandbox.record.tenant
        if tenant is not None:
            self._journal.tell(tenant, safe_text(text.encode()), level=bunyan.WARN, sandbox_id=sandbox.sandbox_id)

    def ended(self, sandbox: Sandbox) -> None:
        """A sandbox has ended: why, where its code is the cause, and the word."""
        record = sandbox.record
        if record.tenant is None:
            return
        word = record.word or "platform"
        if is_fatal(word):
            self._journal.tell(
                record.tenant, safe_text(record.message.encode()), level=bunyan.ERROR, sandbox_id=record.sandbox_id
            )
        self._journal.tell(
            record.tenant, "webtask container recycled", sandbox_id=record.sandbox_id, end=word, calls=sandbox.calls,
            runtime=record.runtime,
        )  # fmt: skip
