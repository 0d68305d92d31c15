"""Connections from Python to the host, the metadata service and every neighbour near by, and sockets below TCP.

Weaker: a wall that stands in the runtime of one language.
Must: no connection, no such socket, and the log says that they were refused.
"""

from contextlib import suppress

from sandpost.selftest.case import Attacker, Case, Untried, expect

BODY = """
import select, socket, time
listens = %d
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    # Sends nothing: the kernel chooses the address that it would send from.
    one.connect(("198.18.0.1", 9))
    own = one.getsockname()[0]
near, last = own.rsplit(".", 1)
places = [(f"{near}.{int(last) ^ 1}", port) for port in (22, 53, 80, 2379, 8000, 8721, 9092, listens)]
places += [("169.254.169.254", 80), ("127.0.0.1", listens)]
places += [(f"{near}.{n}", 8000) for n in range(256) if n != int(last)]
waiting, reached = {}, []
for place in places:
    one = socket.socket()
    one.setblocking(False)
    one.connect_ex(place)
    waiting[one] = place
end = time.monotonic() + 1.5
while waiting and time.monotonic() < end:
    for one in select.select([], list(waiting), [], 0.1)[1]:
        place = waiting.pop(one)
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            reached.append(f"{place[0]}:{place[1]}")
        one.close()
for one in waiting:
    one.close()
made = []
for what in ((socket.AF_PACKET, socket.SOCK_RAW), (socket.AF_INET, socket.SOCK_RAW), (40, socket.SOCK_STREAM)):
    try:
        socket.socket(*what).close()
        made.append(what)
    except OSError:
        pass
return [reached, made, len(places)]
"""


def attack(me: Attacker) -> str:
    # Where nobody listens a missing wall would not be seen.
    with suppress(Untried), me.host().listener() as port:
        return _attempt(me, port)
    return _attempt(me, 1)


def _attempt(me: Attacker, port: int) -> str:
    reached, made, count = me.inside(BODY % port)
    expect(not reached, f"connected: {reached}")
    # gVisor's own network stack may have them: what they send passes the same walls.
    expect(not made or me.engine == "runsc", f"made: {made}")
    return f"no connection to {count} places"


CASE = Case(
    part="network",
    title="Python: who is near",
    attack=attack,
    limits={"deadline": "10s"},
    log="refused",
    language="python",
)
