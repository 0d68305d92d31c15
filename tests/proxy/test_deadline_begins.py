"""When a call's deadline begins: with the first byte that its sandbox gets, not while it waits for one."""

import asyncio

from support.proxy import Peer, Request, Rig, Sandbox, answer, at, run


def test_the_deadline_runs_from_the_first_byte_that_the_sandbox_gets() -> None:
    async def check() -> None:
        async def late(_sandbox: Sandbox, peer: Peer, _request: Request) -> None:
            await asyncio.sleep(1.1)
            await peer.write(answer(b"in time"))

        async with Sandbox(late) as sandbox, Rig(limits={"deadline": 2.0}) as rig:
            rig.controller.places["*"] = sandbox.place
            gate = sandbox.load_gate = asyncio.Event()
            asyncio.get_running_loop().call_later(1.1, gate.set)
            began = asyncio.get_running_loop().time()
            assert (await rig.call(at("acme"))).body == b"in time"
            assert asyncio.get_running_loop().time() - began > 2.0

    run(check())
