"""The host's resolvers and own names, as they are read."""

import pytest

from sandpost.config import names
from sandpost.config.kinds import RESOLVERS
from sandpost.model.errors import ConfigError


def test_resolvers_of_the_host() -> None:
    text = "# c\nsearch corp.example\nnameserver 192.0.2.53\nnameserver  2001:db8::53 \nnameserver fe80::1%eth0\n"
    text += "nameserver name.example\nnameserver\noptions ndots:2\nnameserver 192.0.2.53\nnameserver 192.0.2.54\n"
    assert names.resolvers(text + "nameserver 192.0.2.55") == ("192.0.2.53:53", "[2001:db8::53]:53", "192.0.2.54:53")


def test_own_names_of_the_host() -> None:
    hosts = (
        "127.0.0.1 localhost Host.Example. # me\n10.0.0.7\tdb.internal.example db\n0.0.0.0 ads.example\n\n# x\n::1\n"
    )
    assert names.own_names(hosts, "vm") == ("vm", "localhost", "host.example", "db.internal.example", "db")
    assert len(names.own_names("".join(f"10.0.0.1 n{n}\n" for n in range(5000)), "vm")) == names.MOST_NAMES


def test_what_cannot_be_read_is_empty() -> None:
    assert names.read("/nowhere", "/nowhere").resolvers == ()


def test_resolvers_as_a_setting() -> None:
    assert RESOLVERS.parse("192.0.2.53, 192.0.2.54:5353,2001:db8::53,[::1]:54") == [
        "192.0.2.53:53", "192.0.2.54:5353", "[2001:db8::53]:53", "[::1]:54",
    ]  # fmt: skip
    assert RESOLVERS.parse(["192.0.2.53"]) == ["192.0.2.53:53"]
    assert RESOLVERS.parse("") == []
    for wrong in ("resolver.example", "192.0.2.53:0", "192.0.2", 7, [7], ",".join(["192.0.2.53"] * 9)):
        with pytest.raises(ConfigError):
            RESOLVERS.parse(wrong)
