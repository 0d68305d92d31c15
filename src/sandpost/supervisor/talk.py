"""What children and the operator's command line say to the supervisor.

Typed messages of peers whose uid and pid the kernel tells, and nothing else: a child is known by its pid, the
command line by being root's. Whoever is neither is sent away.
"""

from typing import TYPE_CHECKING

from sandpost.ipc import Channel, Listener, Peer
from sandpost.kernel.descriptors import close_all
from sandpost.logs.setup import get_logger
from sandpost.model.messages import (
    VERSION,
    GiveListeners,
    Hello,
    Hold,
    Listeners,
    Ready,
    RecordsSocket,
    Release,
    Reload,
    Restart,
    Stop,
    Stopped,
    Streams,
    ToSupervisor,
)
from sandpost.supervisor import spawn
from sandpost.supervisor.family import Child

if TYPE_CHECKING:
    from sandpost.supervisor.supervisor import Supervisor

log = get_logger()

WITH_RECORDS = 2
"""The version from which on a collector knows `RecordsSocket`."""


class Talk:
    """The supervisor's socket."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self._supervisor = supervisor
        self._members: dict[Channel[ToSupervisor], Child] = {}
        self._operators: set[Channel[ToSupervisor]] = set()
        self._listener: Listener[ToSupervisor] | None = None

    def open(self) -> None:
        """Listen; in place of a supervisor that is gone, whose children then come here."""
        path = self._supervisor.host.supervisor_socket
        self._listener = Listener(path, ToSupervisor, self._on_message, self._on_close, admit=self._admit)

    def close(self, last: Stopped) -> None:
        """End every connection; `last` is the last word to operators, also when the socket's folder is gone."""
        for channel in list(self._operators):
            channel.send(last)
        if self._listener is not None:
            self._listener.close()

    def _admit(self, peer: Peer) -> bool:
        users = self._supervisor.host.users
        return peer.uid in {0, users.proxy, users.api, users.collector, users.egress}

    def _on_close(self, channel: Channel[ToSupervisor]) -> None:
        self._operators.discard(channel)
        child = self._members.pop(channel, None)
        if child is not None and child.channel is channel:
            child.channel = None

    def _on_message(self, channel: Channel[ToSupervisor], message: ToSupervisor, fds: list[int]) -> None:
        child = self._members.get(channel)
        if isinstance(message, Hold) and child is not None and child.role[0] == "controller":
            self._supervisor.hold(child, message.sandbox_id, fds)
        elif isinstance(message, Listeners) and child is not None and child.role[0] == "proxy":
            self._supervisor.take_sockets(message.indices, fds)
        elif isinstance(message, Listeners) and child is not None and child.role[0] == "egress":
            self._supervisor.take_platform(fds)
        else:
            close_all(fds)
            if isinstance(message, Hello):
                self._greet(channel, message)
            elif child is not None:
                self._on_child(child, message)
            elif channel in self._operators:
                self._on_operator(channel, message)
            else:
                channel.close()

    def _greet(self, channel: Channel[ToSupervisor], hello: Hello) -> None:
        if hello.part == "cli" and channel.peer.uid == 0:
            self._operators.add(channel)
            return
        supervisor = self._supervisor
        child = supervisor.family.children.get(channel.peer.pid)
        known = child is not None and child.role == (hello.part, hello.index)
        if child is None or not known or channel.peer.uid != spawn.user_of(hello.part, supervisor.host)[0]:
            log.warning("a stranger was sent away", part=hello.part, index=hello.index, pid_=channel.peer.pid)
            channel.close()
            return
        if hello.version != VERSION:
            log.warning("a part speaks another version", part=hello.part, index=hello.index, version=hello.version)
        if child.channel is not None:
            child.channel.close()
        child.channel = channel
        self._members[channel] = child
        if not child.ours:
            # It was up before we were.
            child.ready.set()
            if hello.part in {"proxy", "egress"}:
                channel.send(GiveListeners())
        if supervisor.reloaded:
            # It may have read the host file before, and said hello after the others were told.
            channel.send(Reload())
        if hello.part == "collector":
            if hello.version >= WITH_RECORDS:
                channel.send(RecordsSocket(), (supervisor.records.fileno(),))
            for sandbox_id, fds in supervisor.fifos:
                channel.send(Streams(sandbox_id=sandbox_id), fds)
        elif hello.part == "controller":
            supervisor.tell_foreign_ends()
        supervisor.changed.set()

    def _on_child(self, child: Child, message: ToSupervisor) -> None:
        if isinstance(message, Ready):
            child.ready.set()
            self._supervisor.changed.set()
            if child.role[0] == "proxy" and self._supervisor.current.get(child.role) is child:
                self._supervisor.uncover(child.role[1])
        elif isinstance(message, Release) and child.role[0] == "controller":
            self._supervisor.release(message)

    def _on_operator(self, channel: Channel[ToSupervisor], message: ToSupervisor) -> None:
        if isinstance(message, Stop):
            self._supervisor.stop()
        elif isinstance(message, Restart):
            self._supervisor.renew(self._supervisor.roles, channel)
