"""Answers whoever reaches it, in a lab (`support.lab`): TCP and UDP, on all addresses, on the ports it is given.

`who` is answered with both ends as they are seen here, `send N` with N bytes, `take` by reading to the end, `hold` by
nothing until the other side ends. Prints a line of JSON for each who asks.
"""

import asyncio
import json
import os
import sys
from typing import Any

ANYWHERE = 81
_CHUNK = bytes(65536)


def tell(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    peer, local = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    known = {"peer": peer[0], "port": peer[1], "local": local[0], "at": local[1], "protocol": "tcp"}
    tell(known)
    try:
        word, _, amount = (await reader.readline()).decode().strip().partition(" ")
        if word == "who":
            writer.write(json.dumps(known).encode())
        elif word == "send":
            left = int(amount)
            while left > 0:
                writer.write(_CHUNK[:left])
                await writer.drain()
                left -= len(_CHUNK)
        elif word == "take":
            while await reader.read(65536):
                pass
            writer.write(b"taken")
        elif word == "hold":
            writer.write(b"held\n")
            await reader.read()
        await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, port: int) -> None:
        self.port = port

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        known = {"peer": address[0], "port": address[1], "at": self.port, "protocol": "udp"}
        tell(known)
        self.transport.sendto(json.dumps(known).encode(), address)


async def main(where: str, uid: int, ports: list[int]) -> None:
    # Sockets are of the user who makes them.
    os.setresuid(uid, uid, uid)
    loop = asyncio.get_running_loop()
    for port in ports:
        # One socket an address, so that an answer comes from where it was asked, and others can be added.
        for address in addresses() if where == "all" else [where]:
            await asyncio.start_server(serve, address, port, backlog=4096)
            await loop.create_datagram_endpoint(lambda port=port: Datagrams(port), (address, port))  # type: ignore[misc]
    if where == "all":
        await asyncio.start_server(serve, "0.0.0.0", ANYWHERE, backlog=4096)
        await loop.create_datagram_endpoint(lambda: Datagrams(ANYWHERE), ("0.0.0.0", ANYWHERE))
    print("ready", flush=True)
    await asyncio.Event().wait()


def addresses() -> list[str]:
    import subprocess

    shown = json.loads(subprocess.check_output(["ip", "-j", "-4", "addr"]))
    return [one["local"] for link in shown for one in link["addr_info"]]


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), [int(port) for port in sys.argv[3:]]))
