"""Whether the gate lets a connection pass, and what is missing if not. Pure."""

from dataclasses import dataclass
from ipaddress import IPv4Address

from sandpost.model.egress import Egress
from sandpost.model.forbidden import why


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a connection does not pass: `kind` for figures and notes, `text` for its tenant."""

    kind: str
    text: str


def of_destination(policy: Egress, address: IPv4Address, port: int) -> Refusal | None:
    """Judge where a connection goes, before anything of it is read."""
    if policy.kind != "allow":
        return Refusal("no_allow_list", f"{address}:{port}: egress is `{policy.kind}`, and the gate is for allow-lists")
    if (reason := why(address)) is not None:
        return Refusal("address_refused", f"{address}:{port}: no sandbox may reach this address ({reason})")
    return None


def own(address: IPv4Address) -> Refusal:
    """Return the refusal of an address of the machine itself."""
    return Refusal("address_refused", f"{address}: no sandbox may reach this address (of the machine itself)")


def in_block(policy: Egress, address: IPv4Address, port: int) -> bool:
    """Whether an address of the allow-list covers it: such a connection needs no name."""
    return any(
        address in block.network and any(first <= port <= last for first, last in block.ports)
        for block in policy.blocks
    )


def of_name(policy: Egress, name: str, port: int) -> Refusal | None:
    """Judge the name that a connection asks for."""
    for domain in policy.domains:
        if domain.covers(name) and any(first <= port <= last for first, last in domain.ports):
            return None
    text = f"{name}:{port} is not in the allow-list: add `{name}:{port}` to this tenant's egress"
    return Refusal("host_refused", text)


def elsewhere(name: str, address: IPv4Address) -> Refusal:
    """Return the refusal of an allowed name at an address that it does not have."""
    text = f"{name} does not lead to {address}: connect to an address that its look-up gives"
    return Refusal("address_not_of_name", text)
