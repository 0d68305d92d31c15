"""When to try again what could not be installed. Pure; times are those of the loop's clock."""

from collections import Counter
from dataclasses import dataclass, field

from sandpost.model.modules import Registry
from sandpost.model.specs import Spec

FIRST, MOST = 5.0, 600.0
"""Seconds until the second try, doubled each time, and the most that they become."""


@dataclass(slots=True)
class Backoff:
    """One thing that failed `tries` times in a row, and is due again."""

    tries: int = 0
    due: float = 0.0
    since: float = 0.0
    """When it failed first."""

    def again(self, now: float) -> float:
        """Note a failure; return the seconds until the next try."""
        if not self.tries:
            self.since = now
        wait = min(MOST, FIRST * 2.0 ** min(self.tries, 16))
        self.tries += 1
        self.due = now + wait
        return wait


@dataclass(slots=True)
class Waits:
    """What waits: a module alone, or for a registry that is away, with all others that come from there.

    Whether it is the registry that is away, or one package that it cannot give, nobody says. So a module that met it
    waits by itself as well, and stands behind those that failed less often: they get the next try, and what comes
    tells that the registry is there.
    """

    registries: dict[Registry, Backoff] = field(default_factory=dict)
    modules: dict[Spec, Backoff] = field(default_factory=dict)
    cuts: Counter[Spec] = field(default_factory=Counter)
    """How often a module's installation was cut off in a row."""

    def due(self, spec: Spec) -> float:
        """Return when `spec` may be tried."""
        found = (self.registries.get(spec.registry), self.modules.get(spec))
        return max((one.due for one in found if one is not None), default=0.0)

    def tries(self, spec: Spec) -> int:
        """Return how often in a row `spec` could not be installed."""
        found = self.modules.get(spec)
        return 0 if found is None else found.tries

    def again(self, spec: Spec, now: float, *, registry: bool) -> tuple[float, float]:
        """Note that `spec` could not be installed, for the registry's sake (too) or its own.

        Return the seconds that it is to wait, and those that its registry's others are: 0 if they are not.
        """
        own = self.modules.setdefault(spec, Backoff()).again(now)
        others = self.registries.setdefault(spec.registry, Backoff()).again(now) if registry else 0.0
        return max(own, others), others

    def waited(self, spec: Spec, now: float) -> float:
        """Return for how many seconds `spec` could not be installed, for whatever reason."""
        found = (self.registries.get(spec.registry), self.modules.get(spec))
        return max((now - one.since for one in found if one is not None), default=0.0)

    def forget(self, spec: Spec) -> None:
        """Let `spec` wait for nothing any more, nor others for its registry: it answered, or somebody wants a try."""
        self.registries.pop(spec.registry, None)
        self.drop(spec)

    def drop(self, spec: Spec) -> None:
        """Forget what is known of `spec` alone: it waits no more."""
        self.modules.pop(spec, None)
        del self.cuts[spec]
