"""The kinds of values that settings have: how each is read from text or TOML, and how it is shown."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network
from typing import Any

from sandpost.auth.keys import MIN_CHOSEN
from sandpost.model.errors import ConfigError
from sandpost.model.units import format_duration, format_size, parse_duration, parse_size

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*", re.ASCII)
_MOST_BROKERS = 32
_COUNT = re.compile(r"\d{1,12}", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,6})?", re.ASCII)
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,240}", re.ASCII)
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>\d{1,5}))?(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?",
    re.ASCII,
)
_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value. `parse` takes text, or what TOML made of it, and raises `ConfigError`; `show` is its inverse."""

    name: str
    parse: Callable[[Any], Any]
    show: Callable[[Any], str] = str


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of `127.0.0.1:8721` or `[::1]:8721`; anything else is a `ConfigError`."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        good = _is_ip(host, IPv6Address)
    else:
        good = _is_ip(host, IPv4Address) or (host == "localhost") or _looks_like_name(host)
    if not colon or not good or _COUNT.fullmatch(port) is None or not 0 < int(port) < 65536:
        raise ConfigError(f"`{text}` is not an address: write host and port, such as 127.0.0.1:8721 or [::1]:8721")
    return host, int(port)


def _looks_like_name(host: str) -> bool:
    return _HOST_NAME.fullmatch(host) is not None and not host.replace(".", "").isdigit()


def _is_ip(host: str, version: type[IPv4Address] | type[IPv6Address]) -> bool:
    try:
        return isinstance(ip_address(host), version)
    except ValueError:
        return False


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise ConfigError(f"`{raw}` is not a text: write it in quotes")
    if "\0" in raw or "\n" in raw:
        raise ConfigError("a text has no line breaks and no zeros")
    return raw


def _key(raw: Any) -> str:
    # Never in the message, whatever is wrong with it.
    if not isinstance(raw, str) or (
        raw and (len(raw) < MIN_CHOSEN or not raw.isascii() or not raw.isprintable() or " " in raw)
    ):
        raise ConfigError(
            f"a key must have at least {MIN_CHOSEN} printable ASCII characters and no space: choose a longer one, or "
            "leave it out and use the key that is printed"
        )
    return raw


def _path(raw: Any) -> str:
    text = _text(raw)
    if text and not text.startswith("/"):
        raise ConfigError(f"`{text}` is not an absolute path: begin it with `/`")
    return text.rstrip("/") or text


def _address(raw: Any) -> str:
    text = _text(raw)
    if text:
        split_address(text)
    return text


def split_url(text: str) -> tuple[str, int]:
    """Return host and port of a URL of HTTP; `ConfigError` if it is none, or says more than where."""
    found = _URL.fullmatch(text)
    port = int(found["port"] or (443 if found["scheme"] == "https" else 80)) if found is not None else 0
    if found is None or not 0 < port < 65536:
        # It is not shown: what does not belong there may be a secret.
        raise ConfigError(
            "it is not a URL without user, query and fragment: write one such as "
            "https://collector.example:4318/v1/logs; what is secret goes into a file of headers"
        )
    return found["host"].strip("[]"), port


def entry_of(url: str) -> str:
    """Return the entry of an allow-list (`model.egress`) that lets a sandbox reach `url`."""
    host, port = split_url(url)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _url(raw: Any) -> str:
    text = _text(raw).strip()
    if text:
        split_url(text)
    return text


def _count(raw: Any) -> int:
    if isinstance(raw, str) and _COUNT.fullmatch(raw.strip()):
        return int(raw)
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return raw
    raise ConfigError(f"`{raw}` is not a count: write a whole number without a unit, such as 10")


def _number(raw: Any) -> float:
    if isinstance(raw, str) and _NUMBER.fullmatch(raw.strip()):
        return float(raw)
    if isinstance(raw, int | float) and not isinstance(raw, bool) and 0 <= raw < 1e9:
        return float(raw)
    raise ConfigError(f"`{raw}` is not a number: write one without a unit, such as 0.5")


def _share(raw: Any) -> float:
    text = str(raw).strip()
    if not isinstance(raw, bool):
        if text.endswith("%") and _NUMBER.fullmatch(text[:-1].strip()):
            return float(text[:-1]) / 100
        if _NUMBER.fullmatch(text):
            return float(text)
    raise ConfigError(f"`{raw}` is not a share: write 10% or 0.1")


def _size(raw: Any) -> int:
    if isinstance(raw, bool) or not isinstance(raw, str | int):
        raise ConfigError(f"`{raw}` is not a size: write a number with B, KiB, MiB, GiB or TiB, such as 128MiB")
    return parse_size(str(raw))


def _duration(raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise ConfigError(f"`{raw}` is not a duration: write a number with ms, s, m, h or d, such as 30s")
    # Zero is zero in every unit.
    return 0.0 if str(raw).strip() == "0" else parse_duration(str(raw))


def _switch(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.strip().lower() in _SWITCH:
        return _SWITCH[raw.strip().lower()]
    raise ConfigError(f"`{raw}` is neither true nor false")


def _networks(raw: Any) -> list[str]:
    parts = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(parts, list):
        raise ConfigError(f"`{raw}` is not a list of networks: write 10.0.0.0/8,192.168.1.7")
    return [_network(part) for part in parts if not (isinstance(part, str) and not part.strip())]


def _network(raw: Any) -> str:
    try:
        # An int would be taken for an address.
        return str(ip_network(raw.strip() if isinstance(raw, str) else ""))
    except ValueError:
        raise ConfigError(f"`{raw}` is not a network: write its first address and length, such as 10.0.0.0/8") from None


def _block(raw: Any) -> str:
    text = _network(raw)
    if not isinstance(ip_network(text), IPv4Network):
        raise ConfigError(f"`{text}` is not an IPv4 network: write one such as 198.18.0.0/15")
    return text


def _instance(raw: Any) -> int | None:
    text = str(raw).strip()
    if text == "auto":
        return None
    if isinstance(raw, bool) or _COUNT.fullmatch(text) is None or not 0 <= int(text) <= 15:
        raise ConfigError(f"`{raw}` is not an instance: write auto, or a number from 0 to 15")
    return int(text)


def _resolvers(raw: Any) -> list[str]:
    parts = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ConfigError(f"`{raw}` is not a list of resolvers: write 192.0.2.53,192.0.2.54:5353")
    found = [_resolver(part.strip()) for part in parts if part.strip()]
    if len(found) > 8:
        raise ConfigError(f"{len(found)} resolvers are too many: 8 at most, the first ones are asked first")
    return found


def _resolver(text: str) -> str:
    """Return `host:port` of an address with or without a port; names would need a resolver themselves."""
    if _is_ip(text, IPv4Address):
        return f"{text}:53"
    if _is_ip(text, IPv6Address):
        return f"[{text}]:53"
    try:
        host, port = split_address(text)
    except ConfigError:
        host, port = "", 0
    if not (_is_ip(host, IPv4Address) or _is_ip(host, IPv6Address)):
        raise ConfigError(f"`{text}` is not the address of a resolver: write 192.0.2.53, 192.0.2.53:5353 or [::1]:53")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _brokers(raw: Any) -> list[str]:
    found = _parts(raw, "brokers", "kafka1:9092,kafka2:9092")
    for text in found:
        split_address(text)
    return found


def _hosts(raw: Any) -> list[str]:
    found = _parts(raw, "hosts", "files.example.com,files.example.org:8443")
    for text in found:
        split_address(text if ":" in text else f"{text}:443")
    return [text if ":" in text else f"{text}:443" for text in found]


def _ports(raw: Any) -> list[int]:
    if isinstance(raw, list):
        raw = ",".join(map(str, raw))
    found = _parts(raw, "ports", "9093,9094")
    if bad := [text for text in found if _COUNT.fullmatch(text) is None or not 0 < int(text) < 65536]:
        raise ConfigError(f"`{bad[0]}` is not a port: write numbers from 1 to 65535, such as 9093,9094")
    return [int(text) for text in found]


def _parts(raw: Any, what: str, example: str) -> list[str]:
    parts = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ConfigError(f"`{raw}` is not a list of {what}: write {example}")
    found = [part.strip() for part in parts if part.strip()]
    if len(found) > _MOST_BROKERS:
        raise ConfigError(f"{len(found)} {what} are too many: {_MOST_BROKERS} at most")
    return found


def _topic(raw: Any) -> str:
    text = _text(raw)
    if _TOPIC.fullmatch(text) is None or not text.strip("."):
        raise ConfigError(f"`{text}` is not the name of a topic: letters, digits, `.`, `_` and `-`, 240 at most")
    return text


def choice(*words: str) -> Kind:
    """Return the kind of a setting that is one of a few words."""

    def parse(raw: Any) -> str:
        text = _text(raw).strip()
        if text not in words:
            raise ConfigError(f"`{text}` is not one of {', '.join(words)}")
        return text

    return Kind("choice", parse)


TEXT = Kind("text", _text)
KEY = Kind("key", _key)
PATH = Kind("path", _path)
ADDRESS = Kind("address", _address)
COUNT = Kind("count", _count)
NUMBER = Kind("number", _number, lambda value: f"{value:g}")
SHARE = Kind("share", _share, lambda value: f"{value * 100:g}%")
SIZE = Kind("size", _size, format_size)
DURATION = Kind("duration", _duration, lambda value: format_duration(value) if value else "0s")
SWITCH = Kind("switch", _switch, lambda value: "true" if value else "false")
NETWORKS = Kind("networks", _networks, ",".join)
RESOLVERS = Kind("resolvers", _resolvers, ",".join)
BROKERS = Kind("brokers", _brokers, ",".join)
HOSTS = Kind("hosts", _hosts, ",".join)
PORTS = Kind("ports", _ports, lambda value: ",".join(map(str, value)))
TOPIC = Kind("topic", _topic)
URL = Kind("url", _url)
BLOCK = Kind("network", _block)
INSTANCE = Kind("instance", _instance, lambda value: "auto" if value is None else str(value))
