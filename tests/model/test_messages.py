"""Messages between processes survive the wire, and each union tells its members apart."""

from typing import Any, get_args

import msgspec
import pytest

from sandpost.model import messages
from sandpost.model.limits import Limits, Tenant


@pytest.mark.parametrize("union", ["ToController", "FromController", "ToSupervisor", "FromSupervisor"])
def test_the_members_of_a_union_are_told_apart(union: str) -> None:
    members = get_args(getattr(messages, union))
    tags = [member.__struct_config__.tag for member in members]
    assert len(tags) == len(set(tags)) == len(members)
    msgspec.msgpack.Decoder(getattr(messages, union))


def test_a_tenant_travels_with_its_limits() -> None:
    tenant = Tenant(name="acme", limits=Limits(memory=1 << 30), registered=True)
    ask = messages.Ask(seq=7, tenant=tenant, exclusive=True)
    back: Any = msgspec.msgpack.decode(msgspec.msgpack.encode(ask), type=messages.ToController)
    assert back == ask


def test_an_unknown_field_of_a_newer_release_is_ignored() -> None:
    packet = msgspec.msgpack.encode({"type": "Ack", "seq": 3, "added_later": True})
    assert msgspec.msgpack.decode(packet, type=messages.ToController) == messages.Ack(seq=3)


def test_an_unknown_limit_of_a_newer_release_is_ignored() -> None:
    packet = msgspec.msgpack.encode(
        {"type": "Ask", "seq": 3, "tenant": {"name": "acme", "limits": {"memory": 5, "added_later": 1}}}
    )
    ask: Any = msgspec.msgpack.decode(packet, type=messages.ToController)
    assert ask.tenant.limits == Limits(memory=5)
