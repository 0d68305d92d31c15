"""What a case is: one or a few requests of an ordinary tenant that means harm, and what must be seen.

A case is withstood when its own expectation holds, the tenant's next request is served, his log says what happened,
the neighbour was answered all the while, and nothing is left on the host.
"""

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from sandpost.model.engines import ENGINES
from sandpost.model.limits import EngineName

Part = Literal["resources", "escape", "network", "exchange", "identity"]
Language = Literal["javascript", "python", "csharp"]
PARTS: tuple[Part, ...] = ("resources", "escape", "network", "exchange", "identity")


class Broken(Exception):  # noqa: N818 - it names the wall's state
    """A wall did not hold; the message says what was seen instead of what must be."""


class Untried(Exception):  # noqa: N818 - the same
    """A case could not be tried here; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole. `headers` in lower case, the last of a name."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON; `Broken` if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise Broken(f"{self.status} with a body that is not JSON: {shown(self.body)}") from None

    @property
    def reason(self) -> str:
        """The word of an error, empty where the answer has none."""
        found = self.json
        return str(found.get("reason", "")) if isinstance(found, dict) else ""


class Attacker(Protocol):
    """One tenant, made for one case; every wait has a deadline, after which it is `Broken`.

    Programs are of the case's language.
    """

    @property
    def tenant(self) -> str:
        """Its name."""

    @property
    def neighbour(self) -> str:
        """The name of another tenant, which is called all the while."""

    @property
    def engine(self) -> EngineName:
        """What makes its sandboxes. On runsc a program sees and calls gVisor's kernel, which is the sandbox's own."""

    @property
    def memory(self) -> int:
        """Its `limits.memory`, bytes."""

    @property
    def cpu(self) -> float:
        """Its `limits.cpu`, cores."""

    def call(
        self,
        program: str | bytes,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Answer:
        """POST a program and read the answer whole, up to 16 MiB."""

    def start(self, program: str | bytes) -> Callable[[float], Answer]:
        """Begin a call; what is returned waits for its answer, for so many seconds at most."""

    def inside(self, body: str, *, timeout: float = 60) -> Any:
        """Run `body` as a function (`async` in JavaScript) in the sandbox, and return the JSON value that it gives."""

    def send(self, data: bytes, *, timeout: float = 10) -> bytes:
        """Send raw bytes to the listener and return what comes until it closes, up to 1 MiB.

        `{target}` in them stands for the tenant's path with its key.
        """

    def connect(self) -> "Wire":
        """Open a raw connection to the listener."""

    def sandbox(self) -> str:
        """Return the id of its sandbox, empty if it has none."""

    def cpu_seconds(self) -> float:
        """Return the CPU time that its sandboxes have used, as measured from outside."""

    def log(self) -> list[dict[str, Any]]:
        """Return the records of its log, oldest first; `Untried` where it cannot be read."""

    def told(self, *words: str) -> str:
        """Check that its log comes to say each of these words; return ` (log unseen)` where it cannot be read."""

    def key(self, tenant: str) -> str:
        """Make a key of a tenant; it goes with the tenant."""

    def request(self, method: str, path: str, key: str, body: bytes = b"") -> Answer:
        """Make a request as whoever has `key`."""

    def host(self) -> "HostLook":
        """Return a look at the host from outside; `Untried` where this is not root on it."""


class Wire(Protocol):
    """A raw connection. `target` is the tenant's path with its key."""

    target: str

    def write(self, data: bytes) -> None:
        """Send; `OSError` if the other side has gone."""

    def read(self, size: int, timeout: float = 10) -> bytes:
        """Return what is there, empty at the end; `TimeoutError` if nothing comes."""

    def close(self) -> None:
        """Close it at once."""


class HostLook(Protocol):
    """What root on the host can do that a tenant's case needs."""

    def listener(self) -> AbstractContextManager[int]:
        """Listen on all of the host's addresses, at the port given."""

    def addresses(self) -> list[str]:
        """Return the host's own IPv4 addresses, loopback's left out."""

    def file(self, path: str) -> bytes:
        """Return a file of the host's, empty if there is none."""

    def mentions(self, text: str) -> list[str]:
        """Return the streams of the log bus in which `text` stands."""

    def users(self, sandbox_id: str) -> tuple[set[int], list[str]]:
        """Return the host users that a sandbox's processes run as, and which other sandboxes run as one of them."""

    def kernel_memory(self) -> int:
        """Return the bytes that the host's kernel has in use for objects of its own and for sockets' buffers."""

    def strangers(self, namespaces: Mapping[str, str], sandbox_id: str) -> list[str]:
        """Return the processes, but those of this sandbox, that are in one of these namespaces (kind to `kind:[n]`)."""


Attack = Callable[[Attacker], str]
"""Tries it; returns in a few words what was seen. Raises `Broken` or `Untried`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case. `name` is its module's."""

    part: Part
    title: str
    attack: Attack
    limits: Mapping[str, Any] = field(default_factory=dict)
    """The tenant's own limits, as the api takes them, besides those of `runner` for all and for its language."""
    log: str = ""
    """What a record of the tenant's log must contain afterwards."""
    logged_on: Collection[EngineName] = ENGINES
    """Engines on which `log` is asked for: processes that gVisor's kernel refuses are told to the program alone."""
    language: Language = "javascript"
    """What its programs are written in, and the request that must be served after it."""
    quick: bool = True
    """Done within two seconds or so."""


def expect(condition: object, seen: object) -> None:
    """Raise `Broken` with what was seen unless `condition` holds."""
    if not condition:
        raise Broken(shown(seen))


def typed(answer: Answer, status: int, reason: str, setting: str = "") -> str:
    """Check that an answer is the typed error it must be; return how it reads."""
    found = answer.json
    got = (answer.status, answer.reason)
    if got != (status, reason) or (setting and found.get("setting") != setting):
        wanted = f"{status} {reason}" + (f" of {setting}" if setting else "")
        raise Broken(f"{wanted} must come, {answer.status} came: {shown(answer.body)}")
    # What a program threw may have no message.
    if not (found.get("message") or found.get("error")) or not found.get("req_id"):
        raise Broken(f"the error says nothing, or has no req_id: {shown(answer.body)}")
    return f"{status} {reason}"


def answered(answer: Answer, value: object) -> str:
    """Check that a program was served with `value`."""
    if answer.status != 200 or answer.json != value:
        raise Broken(f"200 with {value!r} must come, {answer.status} came: {shown(answer.body)}")
    return "served"


def ends(program: str, word: str, setting: str = "") -> Attack:
    """Return the attack of a program that ends its sandbox with `word`."""

    def attack(me: Attacker) -> str:
        return typed(me.call(program), 500, word, setting)

    return attack


def shown(what: object) -> str:
    """Return it as a short line."""
    text = what.decode(errors="replace") if isinstance(what, bytes) else str(what)
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:300] + ".."
