"""How the block of user ids is dealt to installations. Pure."""

from ipaddress import IPv4Network

from sandpost.model.host import IDS_PER_SANDBOX, INSTANCES

OWN_IDS = 64
"""Ids at the beginning of an instance's sixteenth that its processes use themselves."""
END = 1 << 31
"""Programs that keep an id in a signed word do not go further."""


def ids_each(block: IPv4Network) -> int:
    """Return how many user ids each instance has: its own and its sandboxes', rounded up to a power of two."""
    needed = OWN_IDS + block.num_addresses // INSTANCES // 2 * IDS_PER_SANDBOX
    return 1 << (needed - 1).bit_length()
