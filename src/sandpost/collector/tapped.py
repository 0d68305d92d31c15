"""A writer of the bus that shows what it is given to somebody else too."""

from collections.abc import Callable, Mapping, Sequence

from sandpost.bus.contract import Batch, Writer


class Tapped:
    """Implements `contract.Writer` by another one. `show` is called with what that one has taken, and never waits."""

    def __init__(self, writer: Writer, show: Callable[[Sequence[Batch]], None]) -> None:
        self._writer = writer
        self._show = show

    @property
    def problem(self) -> str:
        return self._writer.problem

    async def open(self) -> None:
        await self._writer.open()

    def append(self, batches: Sequence[Batch]) -> None:
        self._writer.append(batches)
        self._show(batches)

    def room(self, stream: str) -> int:
        return self._writer.room(stream)

    async def kept(self) -> Mapping[str, int]:
        return await self._writer.kept()

    def reached(self) -> Mapping[str, int]:
        return self._writer.reached()

    async def positions(self, sources: Mapping[str, str], since: Mapping[str, int]) -> Mapping[str, int]:
        return await self._writer.positions(sources, since)

    async def close(self) -> None:
        await self._writer.close()
