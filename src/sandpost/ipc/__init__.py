"""Typed messages, and descriptors beside them, over unix sockets of one host."""

from sandpost.ipc.channel import Channel, Connector, Listener, Peer

__all__ = ["Channel", "Connector", "Listener", "Peer"]
