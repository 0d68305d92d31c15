"""Makes the network namespace of a slot, complete before any process enters it.

A namespace has no name: it lives by the descriptor returned, then by the processes in it. When the last of
them is gone the kernel removes it together with both interfaces, some milliseconds later.
"""

import contextlib
import ctypes
import os
import socket
import time

from sandpost.model.errors import EngineError
from sandpost.network import netlink
from sandpost.network.addresses import Link

_CLONE_NEWNET = 0x40000000
_LOOPBACK = 1
_INSIDE = "eth0"
_NO_IPV6 = ("/proc/sys/net/ipv6/conf/all/disable_ipv6", "/proc/sys/net/ipv6/conf/default/disable_ipv6")

_libc = ctypes.CDLL(None, use_errno=True)


def make(link: Link) -> int:
    """Make a namespace with loopback and `eth0` up, addressed, its own /31 and the host as its way to all else.

    What goes that way the firewall decides: of a sandbox that nobody has been given, nothing.

    Blocks for about a millisecond; runs in any thread, which is in its own namespace again afterwards. Returns
    the namespace's descriptor; what failed half-way is gone by itself. Raises `EngineError`.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    inside = -1
    try:
        with netlink.Netlink() as outer:
            try:
                _call("unshare", _CLONE_NEWNET)
                inside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
                for path in _NO_IPV6:
                    # A kernel without IPv6 has no such file.
                    with contextlib.suppress(FileNotFoundError), open(path, "w", encoding="ascii") as file:
                        file.write("1")
                with netlink.Netlink() as inner:
                    outer.run(netlink.veth(link.interface, link.host_mac, _INSIDE, link.sandbox_mac, inside))
                    index = socket.if_nametoindex(_INSIDE)
                    inner.run(
                        netlink.up(_LOOPBACK),
                        netlink.up(index),
                        netlink.address(index, link.sandbox_address),
                        netlink.neighbour(index, link.host_address, link.host_mac),
                        netlink.default_route(index, link.host_address),
                    )
            finally:
                _call("setns", home, _CLONE_NEWNET)
            index = socket.if_nametoindex(link.interface)
            outer.run(
                netlink.no_ipv6_addresses(index),
                netlink.forwarding(index),
                netlink.up(index),
                netlink.address(index, link.host_address),
                netlink.neighbour(index, link.sandbox_address, link.sandbox_mac),
            )
    except OSError as error:
        if inside >= 0:
            os.close(inside)
        raise EngineError(f"cannot make the network of {link.interface}: {error}") from error
    finally:
        os.close(home)
    return inside


def make_empty() -> int:
    """Make a namespace with nothing but a loopback that is down; return its descriptor. Raises `EngineError`."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("unshare", _CLONE_NEWNET)
        try:
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            _call("setns", home, _CLONE_NEWNET)
    except OSError as error:
        raise EngineError(f"cannot make a network namespace: {error}") from error
    finally:
        os.close(home)


def exists(interface: str) -> bool:
    """Whether the host has this interface."""
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True


def interfaces() -> list[str]:
    """List the host's interfaces: those of the network namespace that we are in, which /sys need not show."""
    return [name for _, name in socket.if_nameindex()]


def wait_gone(interface: str, patience: float) -> bool:
    """Wait until the kernel has removed the interface of an ended sandbox; say whether it has. Blocks."""
    end = time.monotonic() + patience
    pause = 0.005
    while exists(interface):
        if time.monotonic() > end:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return True


def delete(interface: str) -> None:
    """Delete an interface that does not go by itself; takes tens of milliseconds of the kernel's one rtnl lock."""
    try:
        with netlink.Netlink() as outer:
            outer.remove(interface)
    except OSError as error:
        raise EngineError(
            f"cannot delete the interface {interface}: {error}: try `ip link delete {interface}`"
        ) from error


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
