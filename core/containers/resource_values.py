"""Limits as Docker's users write them: ``/dev/sda:1mb``, ``nofile=1024:4096``, ``0-3,7``."""

from __future__ import annotations

import os
import re

from ..config_types import Ulimit
from ..errors import InvalidArgument
from ..numbers import parse_whole
from .resources import DeviceValue
from .units import parse_memory

#: setrlimit(2), as Docker's names.
ULIMITS = frozenset(
    {
        "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile",
        "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
    }
)  # fmt: skip


def parse_memory_swap(text: str) -> int:
    """Return the bytes that *text* means, -1 meaning no limit.

    Raises:
        ValueError: "invalid size: 'x'".
    """
    return -1 if text == "-1" else parse_memory(text)


def parse_weight_device(text: str) -> DeviceValue:
    """Parse ``/dev/DEVICE:WEIGHT``.

    Raises:
        ValueError: in the words of Docker's client.
    """
    path, value = _device(text)
    weight = _whole(value)
    if weight and not 10 <= weight <= 1000:
        raise ValueError(f"invalid weight for device: {text}")
    return DeviceValue(path, weight)


def parse_device_bps(text: str) -> DeviceValue:
    """Parse ``/dev/DEVICE:BYTES[UNIT]``.

    Raises:
        ValueError: in the words of Docker's client.
    """
    path, value = _device(text)
    try:
        return DeviceValue(path, parse_memory(value))
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is "
            "<device-path>:<number>[<unit>]. Number must be a positive integer. Unit is "
            "optional and can be kb, mb, or gb"
        ) from None


def parse_device_iops(text: str) -> DeviceValue:
    """Parse ``/dev/DEVICE:NUMBER``.

    Raises:
        ValueError: in the words of Docker's client.
    """
    path, value = _device(text)
    rate = _whole(value)
    if rate < 0:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        )
    return DeviceValue(path, rate)


def _whole(text: str) -> int:
    """Return the number that *text* is, -1 if it is none or too large."""
    try:
        return parse_whole(text, least=0)
    except ValueError:
        return -1


def _device(text: str) -> tuple[str, str]:
    path, colon, value = text.partition(":")
    if not colon:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return path, value


def parse_ulimit(text: str) -> tuple[str, Ulimit]:
    """Parse ``NAME=SOFT[:HARD]``, -1 meaning no limit.

    Raises:
        ValueError: in the words of Docker's client.
    """
    name, equals, limits = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    values = limits.split(":")
    if len(values) > 2:
        raise ValueError(
            f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
        )
    try:
        soft, hard = parse_whole(values[0], least=-1), parse_whole(values[-1], least=-1)
    except ValueError:
        raise ValueError(
            f"invalid ulimit argument: {text}: limits are whole numbers from -1 on"
        ) from None
    if hard != -1 and (soft > hard or soft == -1):
        raise ValueError(
            f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )
    return name, Ulimit(soft, hard)


_LIST_PART = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


def parse_list(text: str) -> frozenset[int]:
    """Return the numbers of a list such as ``0-3,7`` (cpuset(7), List format).

    Raises:
        ValueError: if it is none.
    """
    numbers: set[int] = set()
    for part in filter(None, text.split(",")):
        match = _LIST_PART.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"invalid format: {text}")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last > 8192:
            raise ValueError(f"invalid format: {text}")
        numbers.update(range(first, last + 1))
    return frozenset(numbers)


def device_number(path: str) -> tuple[int, int]:
    """Return major and minor number of the device at *path*.

    Raises:
        InvalidArgument: if there is none.
    """
    try:
        number = os.stat(path).st_rdev
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise InvalidArgument(f"stat {path}: {reason}") from error
    if not number:
        raise InvalidArgument(f"{path} is not a device")
    return os.major(number), os.minor(number)
