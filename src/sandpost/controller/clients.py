"""Who is connected to the controller's socket: proxies, api, collector, egress; each known by its uid and process."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from sandpost.controller import processes
from sandpost.controller.record import EGRESS, ProxyKey
from sandpost.ipc import Channel, Listener, Peer
from sandpost.kernel.descriptors import close_all
from sandpost.kernel.processes import runs, start_time
from sandpost.logs.setup import get_logger
from sandpost.model.host import Host
from sandpost.model.messages import VERSION, Gone, Hello, Part, ToController

log = get_logger()


@dataclass(slots=True, eq=False)
class Client:
    """A connection that has said who it is. `proxy` is set for those who acknowledge ends: proxies and egress."""

    channel: Channel[ToController]
    part: Part
    proxy: ProxyKey | None = None


class Clients:
    """The controller's socket. `joined`, `message`, `left` and `proxy_dead` tell what happens on it."""

    def __init__(
        self,
        host: Host,
        *,
        joined: Callable[[Client], None],
        message: Callable[[Client, ToController], None],
        left: Callable[[Client], None],
        proxy_dead: Callable[[ProxyKey], None],
    ) -> None:
        self._host = host
        self._joined = joined
        self._message = message
        self._left = left
        self._proxy_dead = proxy_dead
        self._known: dict[Channel[ToController], Client] = {}
        self._proxies: dict[ProxyKey, Client] = {}
        self._processes: dict[ProxyKey, processes.Watch] = {}
        self._listener: Listener[ToController] | None = None

    @property
    def proxies(self) -> int:
        """How many proxies are connected."""
        return sum(1 for proxy in self._proxies if proxy.index != EGRESS)

    def open(self) -> None:
        """Listen."""
        self._listener = Listener(
            self._host.controller_socket, ToController, self._take, self._closed, admit=self._admit
        )  # fmt: skip

    def close(self) -> None:
        """Close every connection, and stop listening."""
        if self._listener is not None:
            self._listener.close()
        for watch in self._processes.values():
            watch.close()
        self._processes.clear()

    def expect(self, roster: list[ProxyKey]) -> list[ProxyKey]:
        """Watch the proxies of an earlier controller; return those whose processes live."""
        return [proxy for proxy in roster if runs(proxy.pid, proxy.start_time) and self._watch(proxy)]

    def tell(self, proxy: ProxyKey | None, message: msgspec.Struct) -> None:
        """Send to one proxy or egress; with None to all proxies and the collector, and `Gone` to egress as well."""
        if proxy is not None:
            client = self._proxies.get(proxy)
            if client is not None:
                client.channel.send(message)
            return
        for client in list(self._known.values()):
            if client.part in {"proxy", "collector"} or (client.part == "egress" and isinstance(message, Gone)):
                client.channel.send(message)

    def tell_part(self, part: Part, message: msgspec.Struct) -> None:
        """Send to every client that is `part`."""
        for client in list(self._known.values()):
            if client.part == part:
                client.channel.send(message)

    def tell_api(self, message: msgspec.Struct) -> bool:
        """Send to the api; whether there is one."""
        api = next((client for client in self._known.values() if client.part == "api"), None)
        if api is None:
            return False
        api.channel.send(message)
        return True

    # --- inside -------------------------------------------------------------------------------------------

    def _admit(self, peer: Peer) -> bool:
        users = self._host.users
        return peer.uid in {0, users.proxy, users.api, users.collector, users.egress}

    def _may_be(self, part: Part, uid: int) -> bool:
        users = self._host.users
        own = {"proxy": users.proxy, "api": users.api, "collector": users.collector, "egress": users.egress}
        return uid == 0 or own.get(part) == uid

    def _take(self, channel: Channel[ToController], message: ToController, fds: list[int]) -> None:
        close_all(fds)
        client = self._known.get(channel)
        if client is not None and not isinstance(message, Hello):
            self._message(client, message)
        elif client is None and isinstance(message, Hello) and self._may_be(message.part, channel.peer.uid):
            self._greet(channel, message)
        else:
            log.warning("a stranger was sent away", uid=channel.peer.uid, peer=channel.peer.pid)
            channel.close()

    def _greet(self, channel: Channel[ToController], hello: Hello) -> None:
        if hello.version != VERSION:
            log.warning("a part speaks another version", part=hello.part, version=hello.version, ours=VERSION)
        client = Client(channel, hello.part)
        if hello.part in {"proxy", "egress"}:
            pid = channel.peer.pid
            proxy = ProxyKey(pid, EGRESS if hello.part == "egress" else max(0, hello.index), start_time(pid))
            if not self._watch(proxy):
                channel.close()
                return
            earlier = self._proxies.get(proxy)
            if earlier is not None:
                earlier.channel.close()
            client.proxy = proxy
            self._proxies[proxy] = client
        self._known[channel] = client
        self._joined(client)

    def _closed(self, channel: Channel[ToController]) -> None:
        client = self._known.pop(channel, None)
        if client is None:
            return
        if client.proxy is not None and self._proxies.get(client.proxy) is client:
            del self._proxies[client.proxy]
        self._left(client)

    def _watch(self, proxy: ProxyKey) -> bool:
        """Watch a proxy's process; False if it has ended."""
        if proxy in self._processes:
            return True
        try:
            self._processes[proxy] = processes.Watch(proxy.pid, lambda: self._died(proxy))
        except ProcessLookupError:
            return False
        return True

    def _died(self, proxy: ProxyKey) -> None:
        watch = self._processes.pop(proxy, None)
        if watch is not None:
            watch.close()
        client = self._proxies.get(proxy)
        if client is not None:
            client.channel.close()
        self._proxy_dead(proxy)
