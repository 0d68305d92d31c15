"""A call's seat in the table of all workers, as another worker sees it."""

import pytest

from sandpost.proxy.client import Client
from sandpost.proxy.http1.body import Piece
from support.proxy import HELLO, Peer, Request, Rig, Sandbox, Script, answer, at, run, says

CHUNKED = b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ntransfer-encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\nconnection: close\r\n\r\n"


async def in_chunks(_sandbox: Sandbox, peer: Peer, _head: Request) -> None:
    await peer.write(CHUNKED)
    await peer.write(b"1\r\na\r\n")
    await peer.write(b"1\r\nb\r\n0\r\n\r\n")


async def until_close(_sandbox: Sandbox, peer: Peer, _head: Request) -> None:
    await peer.write(UNTIL_CLOSE + b"ab")
    peer.writer.close()


@pytest.mark.parametrize(
    "script", [says(answer(b"ab")), in_chunks, until_close], ids=["length", "chunks", "until close"]
)
def test_a_seat_is_given_back_before_the_last_byte_goes_out(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has read the answer may call again at once: with one call allowed he would be refused by another worker."""

    async def check() -> None:
        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            seen: list[tuple[bytes, int]] = []
            write = Client.write

            def noted(self: Client, data: Piece) -> None:
                seen.append((bytes(data), rig.worker.quota.in_flight("acme")))
                write(self, data)

            monkeypatch.setattr(Client, "write", noted)
            connection = await rig.connect()
            # The second answer of a kind goes the short way.
            for _ in range(2):
                if script is until_close:
                    connection = await rig.connect()
                assert (await connection.call(at("acme"), HELLO, "POST")).body == b"ab"
                assert seen[-1][1] == 0, seen
                assert rig.worker.counts.in_flight == 0

    run(check())
