"""The queue of modules in this process, where what happens between two of its steps can be chosen."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sandpost.api.modules.queue import Modules
from sandpost.model.host import Host
from sandpost.model.modules import ModuleRecord
from sandpost.model.names import BUILDER
from sandpost.model.specs import parse_spec
from sandpost.store import StoreBusy, TenantRecord, Writer
from sandpost.store.sqlite import SqliteWriter
from support.builder import SETTINGS, ScriptedProxy, good
from support.installation import host_in, wait_for

T = TypeVar("T")
X = parse_spec("npm:x@1.0.0")


class Service:
    """What the queue needs of the api's service, on a real store; `on_tell` happens while the builder is set up."""

    def __init__(self, host: Host, writer: SqliteWriter) -> None:
        self.host = host
        self.writer = writer
        self.controller = self
        self.on_tell: Callable[[], Awaitable[None]] | None = None
        self._thread = ThreadPoolExecutor(1)

    async def store(self, work: Callable[[Writer], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self.writer)

    async def tell(self, of: TenantRecord | str, _tenant: None = None) -> bool:
        then, self.on_tell = self.on_tell, None
        if then is not None and isinstance(of, TenantRecord):
            await then()
        return True

    def close(self) -> None:
        self._thread.shutdown()
        self.writer.close()


@pytest.fixture
def proxy() -> Iterator[ScriptedProxy]:
    made = ScriptedProxy(good)
    yield made
    made.close()


def run(folder: Path, proxy: ScriptedProxy, work: Callable[[Modules, Service], Awaitable[None]]) -> None:
    """Run `work` with a queue in `folder`."""
    host = host_in(str(folder), listen_port=proxy.port, modules=SETTINGS)
    Path(host.modules_ready).mkdir(parents=True)
    Path(host.modules_lock).touch()

    async def within() -> None:
        service = Service(host, SqliteWriter(host.store_path))
        modules = Modules(service)  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(20):
                await work(modules, service)
        finally:
            await modules.close()
            service.close()

    asyncio.run(within())


async def until(modules: Modules, state: str) -> ModuleRecord:
    while True:
        for one in await modules.listing():
            if one.state == state:
                return one
        await asyncio.sleep(0.02)


def test_what_is_asked_for_otherwise_while_the_builder_is_set_up_is_installed_as_it_was_asked_last(
    tmp_path: Path, proxy: ScriptedProxy
) -> None:
    async def work(modules: Modules, service: Service) -> None:
        async def otherwise() -> None:
            await modules.remove([X])
            await modules.add([X], scripts=True)

        service.on_tell = otherwise
        await modules.add([X], scripts=False)
        assert (await until(modules, "available")).scripts

    run(tmp_path, proxy, work)
    assert [call.order["scripts"] for call in proxy.calls] == [True]


def test_a_collection_keeps_what_was_asked_for_again_meanwhile(
    tmp_path: Path, proxy: ScriptedProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(modules: Modules, service: Service) -> None:
        failed = ModuleRecord(spec=str(X), state="failed", reason="no", asked_at=1.0)
        await service.store(lambda writer: writer.put_modules([failed]))
        real = modules.listing

        async def listing() -> list[ModuleRecord]:
            found = await real()
            monkeypatch.setattr(modules, "listing", real)
            await modules.add([X], scripts=False)
            return found

        await asyncio.sleep(0.1)
        monkeypatch.setattr(modules, "listing", listing)
        assert await modules.collect(keep=None, older_than=None) == []
        await until(modules, "available")

    run(tmp_path, proxy, work)


def test_a_builder_that_could_not_be_removed_is_removed_later(
    tmp_path: Path, proxy: ScriptedProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(modules: Modules, service: Service) -> None:
        tries: list[str] = []
        real = service.writer.remove_tenant

        def busy(name: str) -> bool:
            tries.append(name)
            if len(tries) == 1:
                raise StoreBusy("somebody else writes")
            return real(name)

        async def from_now_on() -> None:
            monkeypatch.setattr(service.writer, "remove_tenant", busy)

        service.on_tell = from_now_on
        await modules.add([X], scripts=False)
        await until(modules, "available")
        await asyncio.to_thread(wait_for, lambda: len(tries) == 2)
        assert await service.store(lambda writer: writer.keys(BUILDER)) == []

    run(tmp_path, proxy, work)


def test_what_a_collection_and_a_removal_both_take_does_not_begin_before_both_are_over(
    tmp_path: Path, proxy: ScriptedProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(modules: Modules, service: Service) -> None:
        await modules.add([X], scripts=False)
        await until(modules, "available")
        going, go_on = asyncio.Event(), asyncio.Event()
        real: Any = modules._remove

        async def slowly(choose: Any) -> Any:
            found = await real(choose)
            going.set()
            await go_on.wait()
            return found

        monkeypatch.setattr(modules, "_remove", slowly)
        removing = asyncio.create_task(modules.remove([X]))
        await going.wait()
        monkeypatch.setattr(modules, "_remove", real)
        assert await modules.remove([X]) == []
        await modules.add([X], scripts=False)
        await asyncio.sleep(0.2)
        assert not removing.done()
        assert len(proxy.calls) == 1
        go_on.set()
        await removing
        await until(modules, "available")

    run(tmp_path, proxy, work)
