"""Upgraded connections at a worker's end: they go on until `drain_timeout`, then they are cut and counted."""

import asyncio

from support.proxy import Peer, Request, Rig, Sandbox, answer, at, run

CODE = "x-sandpost-code"


def test_an_upgraded_connection_lives_until_the_drains_end_and_is_cut_and_counted() -> None:
    async def check() -> None:
        async def script(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
            if b"upgrade" not in head.headers:
                await peer.write(answer())
                return
            await peer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: Upgrade\r\n\r\n")
            while data := await peer.reader.read(65536):
                await peer.write(data)

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            code = (await rig.call(at("acme"))).headers[CODE]
            connection = await rig.connect()
            target = at("acme", f"webtask_code={code}")
            await connection.send(
                f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n".encode()
            )
            assert (await connection.head()).status == 101
            began = asyncio.get_running_loop().time()
            rig.worker.retire(2.0)
            await asyncio.sleep(0.5)
            await connection.send(b"still here")
            assert await connection.reader.readexactly(10) == b"still here"
            assert await connection.ended()
            assert 1.9 < asyncio.get_running_loop().time() - began < 5
            await rig._task
            assert (rig.worker.counts.streams_cut, rig.worker.counts.tunnels) == (1, 0)

    run(check())
