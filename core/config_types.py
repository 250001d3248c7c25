"""The kinds of values that configuration keys take, read from JSON and from text.

A value comes from ``daemon.json`` (already JSON) or from a flag or an environment variable (text).
Each type reads both and says what it expects; a wrong value is a ValueError whose text continues
the sentence "mtu: …".
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Interface, ip_address, ip_network
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from .model import Address, Subnet
from .options import nearest, parse_size

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
V = TypeVar("V")


class KeyType(Protocol[T_co]):
    """How the value of one key is read; each method raises ValueError saying what is wrong."""

    @property
    def expects(self) -> str: ...

    def from_json(self, value: object) -> T_co: ...

    def from_text(self, text: str) -> T_co: ...


def shown(value: object) -> str:
    """Return how a JSON *value* is named in a message (``the text "1500"``)."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return f"the text {json.dumps(value, ensure_ascii=False)}"
    if isinstance(value, int | float):
        return f"the number {value}"
    return "a list" if isinstance(value, list) else "an object"


def _wrong(expects: str, value: object, hint: str = "") -> ValueError:
    return ValueError(f"expected {expects}, not {shown(value)}{hint}")


_BOOLEANS = {"true": True, "on": True, "yes": True, "1": True}
_BOOLEANS |= {"false": False, "off": False, "no": False, "0": False}


class Boolean:
    """``true`` or ``false``; as text also ``on``, ``off``, ``yes``, ``no``, ``1``, ``0``."""

    expects = "true or false"

    def from_json(self, value: object) -> bool:
        if isinstance(value, bool):
            return value
        quoted = isinstance(value, str) and value in ("true", "false")
        raise _wrong(self.expects, value, " (write it without quotes)" if quoted else "")

    def from_text(self, text: str) -> bool:
        try:
            return _BOOLEANS[text.strip().lower()]
        except KeyError:
            raise _wrong(self.expects, text) from None


class Integer(Struct, frozen=True):
    """A whole number from *minimum* to *maximum* of *unit*."""

    minimum: int
    maximum: int
    unit: str = ""

    @property
    def expects(self) -> str:
        unit = f" ({self.unit})" if self.unit else ""
        return f"a whole number from {self.minimum} to {self.maximum}{unit}"

    def from_json(self, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            if self.minimum <= value <= self.maximum:
                return value
            raise _wrong(self.expects, value)
        quoted = isinstance(value, str) and value.strip().isdigit()
        raise _wrong(self.expects, value, " (write it without quotes)" if quoted else "")

    def from_text(self, text: str) -> int:
        if re.fullmatch(r"\s*[+-]?\d+\s*", text) is None:
            raise _wrong(self.expects, text)
        return self.from_json(int(text))


class _FromText(Generic[T]):
    """A type whose JSON form is a string that is read like any text."""

    expects = "text"

    def from_json(self, value: object) -> T:
        if not isinstance(value, str):
            raise _wrong(self.expects, value)
        return self.from_text(value)

    def from_text(self, text: str) -> T:
        raise NotImplementedError


class Text(_FromText[str]):
    """Any text that is not empty, on one line."""

    expects = "text"

    def from_text(self, text: str) -> str:
        if not text or "\n" in text or "\0" in text:
            raise _wrong("text on one line that is not empty", text)
        return text


class Choice(Struct, _FromText[str], frozen=True):
    """One of a few words; the nearest is offered."""

    choices: tuple[str, ...]

    @property
    def expects(self) -> str:  # type: ignore[override]  # a constant in the base
        return "one of " + ", ".join(self.choices)

    def from_text(self, text: str) -> str:
        if text not in self.choices:
            raise _wrong(self.expects, text, nearest(text, self.choices))
        return text


class Size(_FromText[int]):
    """A number of bytes: a JSON number, or text such as ``64M``."""

    expects = "a size such as 64M or 1G, or a number of bytes"

    def from_json(self, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        return super().from_json(value)

    def from_text(self, text: str) -> int:
        try:
            return parse_size(text)
        except ValueError:
            raise _wrong(self.expects, text) from None


class Directory(_FromText[Path]):
    """The absolute path of a directory; from a flag or the environment also a relative one."""

    expects = "an absolute path"

    def from_json(self, value: object) -> Path:
        # A file is read from any working directory, so a relative path in it means nothing.
        if isinstance(value, str) and not value.startswith("/"):
            raise _wrong(self.expects, value)
        return super().from_json(value)

    def from_text(self, text: str) -> Path:
        if not text or "\0" in text:
            raise _wrong(self.expects, text)
        return Path(os.path.abspath(text))


class IpAddress(_FromText[Address]):
    """An IPv4 or IPv6 address (*version* restricts it)."""

    def __init__(self, version: int | None = None) -> None:
        self.version = version
        self.expects = f"an IPv{version} address" if version else "an IP address"

    def from_text(self, text: str) -> Address:
        try:
            address = ip_address(text)
        except ValueError:
            raise _wrong(self.expects, text) from None
        if self.version not in (None, address.version):
            raise _wrong(self.expects, text)
        return address


class BridgeAddress(_FromText[IPv4Interface]):
    """An IPv4 address of a host with its prefix, such as ``172.30.0.1/24``."""

    expects = "an IPv4 address and prefix such as 172.30.0.1/24"

    def from_text(self, text: str) -> IPv4Interface:
        if "/" not in text:
            raise ValueError(f"invalid CIDR address: {text}: expected {self.expects}")
        try:
            interface = IPv4Interface(text)
        except ValueError:
            raise ValueError(f"invalid CIDR address: {text}: expected {self.expects}") from None
        network = interface.network
        if network.prefixlen > 30:
            raise ValueError(f"{text} leaves no address for containers: use a prefix up to /30")
        if interface.ip in (network.network_address, network.broadcast_address):
            first = network.network_address + 1
            raise ValueError(
                f"{text} is the {'network' if interface.ip < first else 'broadcast'} address;"
                f" the bridge needs one of a host, such as {first}/{network.prefixlen}"
            )
        return interface


class Network(_FromText[Subnet]):
    """An IPv4 or IPv6 network; host bits are cleared as Docker does."""

    def __init__(self, version: int | None = None) -> None:
        self.version = version
        example = "2001:db8:1::/64" if version == 6 else "172.30.0.0/24"
        self.expects = f"an IP{f'v{version}' if version else ''} network such as {example}"

    def from_text(self, text: str) -> Subnet:
        try:
            if "/" not in text:
                raise ValueError
            network = ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"invalid CIDR address: {text}: expected {self.expects}") from None
        if self.version not in (None, network.version):
            raise _wrong(self.expects, text)
        return network


class ListOf(Struct, Generic[T], frozen=True):
    """A list; as text separated by commas."""

    item: KeyType[T]

    @property
    def expects(self) -> str:
        return f"a list, each {self.item.expects}"

    def from_json(self, value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise _wrong(self.expects, value)
        return tuple(_each(self.item.from_json, value))

    def from_text(self, text: str) -> tuple[T, ...]:
        return self.from_texts([part for part in text.split(",") if part.strip()])

    def from_texts(self, texts: Iterable[str]) -> tuple[T, ...]:
        """Read a flag that may be given several times."""
        return tuple(_each(self.item.from_text, (text.strip() for text in texts)))


def _each(read: Callable[[V], T], values: Iterable[V]) -> Iterator[T]:
    for number, value in enumerate(values, 1):
        try:
            yield read(value)
        except ValueError as error:
            raise ValueError(f"item {number}: {error}") from None


class MapOf(Struct, Generic[T], frozen=True):
    """A JSON object from names to values; as text ``name=value``, separated by commas."""

    item: KeyType[T]

    @property
    def expects(self) -> str:
        return f"an object whose values are each {self.item.expects}"

    def from_json(self, value: object) -> Mapping[str, T]:
        if not isinstance(value, dict):
            raise _wrong(self.expects, value)
        return {name: self._one(name, self.item.from_json, item) for name, item in value.items()}

    def from_text(self, text: str) -> Mapping[str, T]:
        return self.from_texts([part for part in text.split(",") if part.strip()])

    def from_texts(self, texts: Iterable[str]) -> Mapping[str, T]:
        """Read a flag that may be given several times."""
        result: dict[str, T] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals:
                raise _wrong("NAME=VALUE", text)
            result[name.strip()] = self._one(name, self.item.from_text, value)
        return result

    @staticmethod
    def _one(name: str, read: Callable[[V], T], value: V) -> T:
        try:
            return read(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


class Anything:
    """Any value: for keys whose meaning is not ours to judge."""

    expects = "any value"

    def from_json(self, value: object) -> object:
        return value

    def from_text(self, text: str) -> object:
        return text


class AddressPool(Struct, frozen=True):
    """A range from which networks of *prefix_length* are taken when none is asked for."""

    base: Subnet
    prefix_length: int

    def __str__(self) -> str:
        return f"base={self.base},size={self.prefix_length}"


class Pool:
    """``{"base": "172.30.0.0/16", "size": 24}``; as text ``base=…,size=…``."""

    expects = 'an object such as {"base": "172.30.0.0/16", "size": 24}'

    def from_json(self, value: object) -> AddressPool:
        if not isinstance(value, dict) or set(value) != {"base", "size"}:
            raise _wrong(self.expects, value)
        base = Network().from_json(value["base"])
        last = base.max_prefixlen - 1
        size = Integer(base.prefixlen, last, f"prefix length within {base}")
        return AddressPool(base, size.from_json(value["size"]))

    def from_text(self, text: str) -> AddressPool:
        fields = dict(part.strip().partition("=")[::2] for part in text.split(","))
        size = fields.get("size", "")
        return self.from_json({**fields, "size": int(size) if size.isdigit() else size})


class Pools(ListOf[AddressPool], frozen=True):
    """Pools; as text they are separated by semicolons, for each holds a comma."""

    item: KeyType[AddressPool] = Pool()

    def from_text(self, text: str) -> tuple[AddressPool, ...]:
        return self.from_texts([part for part in text.split(";") if part.strip()])


class Runtime(Struct, frozen=True):
    """An OCI runtime: its program and the arguments that precede the command."""

    path: str
    arguments: tuple[str, ...] = ()


class RuntimeType:
    """``{"path": "/usr/bin/crun", "runtimeArgs": ["--debug"]}``; as text the path."""

    expects = 'an object such as {"path": "/usr/bin/crun", "runtimeArgs": []}'

    def from_json(self, value: object) -> Runtime:
        if not isinstance(value, dict) or not set(value) <= {"path", "runtimeArgs"}:
            raise _wrong(self.expects, value)
        arguments = ListOf(Text()).from_json(value.get("runtimeArgs", []))
        return Runtime(Text().from_json(value.get("path")), arguments)

    def from_text(self, text: str) -> Runtime:
        return Runtime(Text().from_text(text))


class Ulimit(Struct, frozen=True):
    """A resource limit; -1 means no limit."""

    soft: int
    hard: int


class UlimitType:
    """``{"Name": "nofile", "Soft": 1024, "Hard": 4096}``; as text ``1024:4096``."""

    expects = 'an object such as {"Name": "nofile", "Soft": 1024, "Hard": 4096}'

    def from_json(self, value: object) -> Ulimit:
        if not isinstance(value, dict) or not set(value) <= {"Name", "Soft", "Hard"}:
            raise _wrong(self.expects, value)
        number = Integer(-1, (1 << 63) - 1)
        hard = number.from_json(value.get("Hard", -1))
        soft = number.from_json(value.get("Soft", hard))
        if hard != -1 and (soft == -1 or soft > hard):
            raise ValueError(f"the soft limit {soft} is above the hard limit {hard}")
        return Ulimit(soft, hard)

    def from_text(self, text: str) -> Ulimit:
        soft, _, hard = text.partition(":")
        number = Integer(-1, (1 << 63) - 1)
        soft_value = number.from_text(soft)
        hard_value = number.from_text(hard) if hard else soft_value
        return self.from_json({"Soft": soft_value, "Hard": hard_value})
