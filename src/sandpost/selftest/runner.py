"""Runs cases one after another beside a neighbour, and judges each by all that must hold."""

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from sandpost.client import Client
from sandpost.client.errors import ClientError
from sandpost.model.limits import EngineName
from sandpost.model.units import parse_duration
from sandpost.selftest.attacker import Door, Log, Tenant
from sandpost.selftest.case import Answer, Broken, Language, Untried, shown
from sandpost.selftest.catalogue import Named
from sandpost.selftest.host import Look
from sandpost.selftest.neighbour import RATE, Neighbour, Quiet
from sandpost.selftest.programs import PYTHON

LIMITS: Mapping[str, Any] = {"deadline": "3s", "blocked_after": "2s", "idle": "60s"}
"""What tenants of cases have, so that a case takes seconds."""
_OF_LANGUAGE: Mapping[Language, Mapping[str, Any]] = {"csharp": {"deadline": "10s", "blocked_after": "8s"}}
"""The same of cases in a language that takes longer: C# is compiled first, by a third of a second of a core."""
HELLO = 'return function (cb) { cb(null, "Hello, world!") }'
_HELLOS: Mapping[Language, str] = {
    "javascript": HELLO,
    "python": PYTHON + 'def main(context):\n    return "Hello, world!"',
    "csharp": '// sandpost: language=csharp\nasync context => "Hello, world!"',
}
_HELLO = b'"Hello, world!"'
_KNOWN = 1.2
"""Seconds after which every worker knows a new tenant: a second is promised."""
_SLOWER = 3
"""On gVisor a child process takes its time, with a tenth of a core: so many times the deadline is given there.

So it is on a slower machine, where a program that ends by its memory is busy for longer before it does.
"""
_NEXT = 5.0
"""Seconds within which the tenant's next request must be served."""
_COMPILED = 4
"""So many times these seconds are given to C#."""
STALL = 1.0
"""No call of the neighbour takes longer."""
_BESIDE = 0.1
"""Seconds at least for which the neighbour is measured beside a case."""
_QUIET = 2.0
"""Seconds for which the neighbour is measured before the first case; once more while others disturb him."""
_QUIET_TRIES = 5
_STILL = 0.3

Outcome = Literal["held", "broken", "untried"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a case. `seen` is a few words, `engine` made its sandboxes.

    `neighbour` is what its calls saw, None if nothing was tried.
    """

    name: str
    part: str
    title: str
    outcome: Outcome
    seen: str
    engine: EngineName
    seconds: float
    neighbour: Quiet | None
    quiet: Quiet
    """What the neighbour saw before the first case."""


class Runner:
    """Everything that `cases` share: the door, the neighbour, the look at the host. Use `with`."""

    def __init__(
        self,
        door: Door,
        client: Client,
        cases: Sequence[Named],
        *,
        look: Look | None,
        log: Log,
        limits: Mapping[str, Any] | None = None,
        engine: EngineName | None = None,
        slower: float = 1,
    ) -> None:
        """`limits`: besides those of the cases. `engine`: what makes the cases' sandboxes; None: as the host says.

        `slower`: so many times as long as elsewhere everything may take, as where a processor is emulated; the
        neighbour is called so many times less often there, or its calls alone would be more than can be served.
        """
        self._cases = cases
        self._door, self._client, self._look, self._log = door, client, look, log
        self._limits = {**LIMITS, **(limits or {})}
        self._wanted = engine
        self._slower = slower
        self._name = f"selftest-{secrets.token_hex(4)}"
        self._beside = f"{self._name}-beside"
        self._neighbour = Neighbour(self._call_neighbour, RATE / slower)
        self._made: list[str] = []
        self.quiet: Quiet
        """What the neighbour saw before the first case."""
        self.engine: EngineName = engine or "runc"
        """What makes the cases' sandboxes, as seen once the first one runs."""

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        self._put(self._beside, {"idle": 0})
        # Until every worker knows them they would run with the host's defaults.
        time.sleep(_KNOWN)
        self._until_served(self._beside, "the neighbour")
        self.engine = next(one.engine for one in self._client.sandboxes(self._beside))
        for one in self._cases:
            self._put_for(one, self._tenant_of(one))
        time.sleep(_KNOWN)
        self._neighbour.__enter__()
        for _ in range(_QUIET_TRIES):
            began = time.monotonic()
            time.sleep(_QUIET)
            self.quiet = self._neighbour.since(began)
            if not harmed(self.quiet, _STILL * self._slower):
                break

    def __exit__(self, *_: object) -> None:
        self._neighbour.__exit__()
        for name in self._made:
            with suppress(ClientError):
                self._client.remove_tenant(name)

    def try_case(self, one: Named) -> Verdict:
        """Try one case, and look at all that must hold beside it.

        Where nothing but the neighbour's time was wrong it is tried once more: a machine may have been busy with
        other things by chance, while an attack that makes others wait does so again.
        """
        first, waited = self._try_once(one, self._tenant_of(one))
        if not waited:
            return first
        # A name of its own: the log of the first must not speak for the second.
        name = self._tenant_of(one, "-again")
        self._put_for(one, name)
        time.sleep(_KNOWN)
        second, _ = self._try_once(one, name)
        seen = f"{second.seen}; tried twice, as {waited} at first"
        return replace(second, seen=seen, seconds=first.seconds + second.seconds)

    def _try_once(self, one: Named, name: str) -> tuple[Verdict, str]:
        """Return the verdict too with what made the neighbour wait, empty if that was not all that was wrong."""
        began = time.monotonic()
        waited = ""
        neighbour: Quiet | None = None
        try:
            seen = self._attempt(one, name)
            outcome: Outcome = "held"
        except Untried as why:
            seen, outcome = str(why), "untried"
        except Broken as why:
            seen, outcome = str(why), "broken"
        except OSError as error:
            seen, outcome = f"the connection: {type(error).__name__} {shown(error)}", "broken"
        except ClientError as error:
            seen, outcome = f"the platform failed: {shown(error)}", "broken"
        except Exception as error:
            # Where a wall is gone a case sees what it did not think of; the other verdicts must not be lost by it.
            seen, outcome = f"what came was none of the expected: {type(error).__name__} {shown(error)}", "broken"
        if outcome != "untried":
            # A case of some milliseconds too has calls beside it.
            time.sleep(max(0.0, began + _BESIDE * self._slower - time.monotonic()))
            neighbour = self._neighbour.since(began)
            if outcome == "held" and (harm := harmed(neighbour, STALL * self._slower)):
                seen, outcome = harm, "broken"
                waited = "" if neighbour.failed else harm
        verdict = Verdict(
            name=one.name, part=one.case.part, title=one.case.title, outcome=outcome, seen=seen, engine=self.engine,
            seconds=time.monotonic() - began, neighbour=neighbour, quiet=self.quiet,
        )  # fmt: skip
        return verdict, waited

    def _attempt(self, one: Named, name: str) -> str:
        me = Tenant(
            self._door, self._client, self._look, self._log,
            tenant=name, neighbour=self._beside, engine=self.engine, language=one.case.language,
        )  # fmt: skip
        try:
            self._until_served(name, "a first request", one.case.language)
            seen = one.case.attack(me)
            self._until_served(name, "his next request", one.case.language)
            if one.case.log and self.engine in one.case.logged_on:
                seen += me.told(one.case.log)
        finally:
            self._client.remove_tenant(name)
        if self._look is None:
            return f"{seen}; host unseen"
        if left := self._look.strays():
            raise Broken(f"left behind: {shown(', '.join(left[:5]))}")
        return seen

    def _put_for(self, one: Named, name: str) -> None:
        self._put(name, {**_OF_LANGUAGE.get(one.case.language, {}), **one.case.limits})

    def _put(self, name: str, own: Mapping[str, Any]) -> None:
        self._made.append(name)
        limits = {**self._limits, **own}
        if self.engine == "runsc" or self._slower > 1:
            limits["deadline"] = f"{parse_duration(limits['deadline']) * _SLOWER:g}s"
        if self._slower > 1:
            limits["blocked_after"] = f"{parse_duration(limits['blocked_after']) * _SLOWER:g}s"
        self._client.put_tenant(name, {"limits": limits, "engine": self._wanted})

    def _tenant_of(self, one: Named, which: str = "") -> str:
        return f"{self._name}{which}-{one.name.replace('_', '-')}"[:63]

    def _until_served(self, tenant: str, what: str, language: Language = "javascript") -> None:
        """A tenant just made may be unknown to a worker for a moment, and one whose sandbox has ended gets another."""
        within = _NEXT * self._slower * (_COMPILED if language == "csharp" else 1)
        patience = time.monotonic() + within
        while True:
            try:
                answer = self._door.call(tenant, _HELLOS[language], timeout=within)
                if (answer.status, answer.body) == (200, _HELLO):
                    return
                seen = f"{answer.status} {shown(answer.body)}"
            except OSError as error:
                seen = f"{type(error).__name__} {shown(error)}"
            if time.monotonic() > patience:
                raise Broken(f"{what} is not served within {within:g} s: {seen}")
            time.sleep(0.1)

    def _call_neighbour(self) -> str:
        try:
            answer = self._door.call(self._beside, HELLO, timeout=10)
        except Exception as error:
            # Whatever it is, the neighbour was not served.
            return f"{type(error).__name__} {shown(error)}"
        return "" if _is_hello(answer) else f"{answer.status} {shown(answer.body)}"


def harmed(seen: Quiet, stall: float = STALL) -> str:
    """Say how the neighbour was harmed, of whom no call may take longer than `stall`; empty if he was not. Pure."""
    if seen.failed:
        return f"the neighbour lost {seen.failed} of {seen.calls} calls: {seen.why}"
    if seen.slowest > stall:
        return f"a call of the neighbour took {seen.slowest:.2f} s"
    return ""


def _is_hello(answer: Answer) -> bool:
    return (answer.status, answer.body) == (200, _HELLO)
