"""What the table of modules must say: after a start, whatever happened before it, and after a collection. Pure."""

from collections.abc import Iterable, Mapping

import msgspec

from sandpost.model.modules import Facts, ModuleRecord, Registry
from sandpost.model.specs import ordered, parse_spec


def recovered(records: Iterable[ModuleRecord], there: Mapping[str, Facts], now: float) -> list[ModuleRecord]:
    """Return the records that must change at `now`, so that exactly what is there is available.

    What is there was whole when it appeared, so a record that does not know of it is behind; a record of something that
    is not there any more (part of the state folder was lost) is asked for again.
    """
    known = {one.spec: one for one in records}
    changed = [
        available(known.get(spec, ModuleRecord(spec=spec, asked_at=facts.done_at)), facts)
        for spec, facts in there.items()
        if spec not in known or known[spec].state != "available"
    ]
    changed += [
        msgspec.structs.replace(
            one, state="queued", reason="its folder was gone", asked_at=now, done_at=None, size=0, files=0
        )
        for spec, one in known.items()
        if one.state == "available" and spec not in there
    ]
    return changed


def available(record: ModuleRecord, facts: Facts) -> ModuleRecord:
    """Return `record` of what is there now."""
    return msgspec.structs.replace(
        record,
        state="available",
        reason="",
        scripts=facts.scripts,
        done_at=facts.done_at,
        size=facts.size,
        files=facts.files,
        digest=facts.digest,
        integrity=facts.integrity,
    )


def collectable(
    records: Iterable[ModuleRecord], *, keep: int | None, older_than: float | None, now: float
) -> list[ModuleRecord]:
    """Return what a collection removes: what failed, and of each package what is neither new nor young enough.

    `keep`: that many of its newest versions stay; `older_than`: so does what is available for fewer seconds. With
    neither of the two every version stays; with `older_than` alone the newest of each package does.
    """
    records = list(records)
    found = [one for one in records if one.state == "failed"]
    if keep is None and older_than is None:
        return found
    versions: dict[tuple[Registry, str], dict[str, ModuleRecord]] = {}
    for one in records:
        if one.state == "available":
            spec = parse_spec(one.spec)
            versions.setdefault((spec.registry, spec.name), {})[spec.version] = one
    for (registry, _), of_one in versions.items():
        oldest_first = ordered(registry, of_one)
        older = [
            of_one[version] for version in oldest_first[: max(0, len(oldest_first) - (1 if keep is None else keep))]
        ]
        found += [one for one in older if older_than is None or now - (one.done_at or 0.0) >= older_than]
    return found
