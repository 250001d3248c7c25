"""Netlink: messages as bytes, many of them in one send, and their answers (netlink(7)).

A message costs what the kernel does for it and about 10 µs more; nothing is forked or executed,
and no library is imported (pyroute2's import alone takes longer than starting a container). What
the messages say is in :mod:`stowage.linux.rtnetlink` and :mod:`stowage.linux.nfnetlink`.

A socket belongs for ever to the network namespace of the thread that opened it.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence

from msgspec import Struct

from ..closing import Closing
from ..effects import effect

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_ROOT, NLM_F_MATCH = 0x1, 0x4, 0x100, 0x200
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_DUMP = NLM_F_ROOT | NLM_F_MATCH
NLA_F_NESTED = 0x8000
_NLA_TYPE = 0x3FFF
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_DUMP_INTR, _NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x10, 0x100, 0x200
_NLMSGERR_ATTR_MSG = 1
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _GET_STRICT_CHK = 270, 10, 11, 12
_HEADER = struct.Struct("=IHHII")
_RECEIVE_BYTES = 1 << 16
_DUMP_ATTEMPTS = 20


class NetlinkError(OSError):
    """The kernel refused message number *index* of a batch; *reason* is its own word, if any."""

    def __init__(self, number: int, what: str, reason: str, index: int) -> None:
        text = os.strerror(number)
        super().__init__(number, f"{what}: {text}" + (f" ({reason})" if reason else ""))
        self.reason = reason
        self.index = index


class Message(Struct, frozen=True):
    """One request or answer: its type (RTM_…), flags, and what follows the netlink header."""

    type: int
    body: bytes
    flags: int = 0


# --- attributes (struct nlattr) -----------------------------------------------------------------


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded to four bytes."""
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=B", value))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def attributes(raw: bytes, offset: int = 0) -> dict[int, bytes]:
    """Return the attributes in *raw* from *offset* on, by kind; of doubles the last."""
    return dict(attribute_list(raw, offset))


def attribute_list(raw: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    while offset + 4 <= len(raw):
        length, kind = struct.unpack_from("=HH", raw, offset)
        if length < 4:
            return
        yield kind & _NLA_TYPE, raw[offset + 4 : offset + length]
        offset += (length + 3) & ~3


# --- the socket ---------------------------------------------------------------------------------


class Netlink(Closing):
    """A netlink socket of the calling thread's network namespace. For one thread at a time."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, flags, protocol)
        self._sequence = 0
        try:
            self._socket.bind((0, 0))
            for option in (_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def change(self, name: str, messages: Sequence[Message], **facts: object) -> None:
        """Send all *messages* at once, as one effect called *name*, and wait for each answer.

        The kernel goes on after a message that fails; with one send a kill comes before all or
        after all of them.

        Raises:
            NetlinkError: for the first message that was refused.
        """
        with effect(name, **facts):
            failures = self._exchange(messages)
        if failures:
            index, number, reason = failures[0]
            raise NetlinkError(number, name, reason, index)

    def try_each(
        self, name: str, messages: Sequence[Message], **facts: object
    ) -> Sequence[tuple[int, int]]:
        """As :meth:`change`, but return (index, errno) of every message that was refused."""
        with effect(name, **facts):
            return [(index, number) for index, number, _ in self._exchange(messages)]

    def _exchange(self, messages: Sequence[Message]) -> list[tuple[int, int, str]]:
        first = self._sequence + 1
        flags = NLM_F_REQUEST | NLM_F_ACK
        self._socket.send(b"".join(self._encode(message, flags) for message in messages))
        failures, waiting = [], len(messages)
        while waiting:
            for message, sequence in self._receive():
                if message.type != _NLMSG_ERROR or not first <= sequence <= self._sequence:
                    continue
                waiting -= 1
                number, reason = _refusal(message)
                if number:
                    failures.append((sequence - first, number, reason))
        return sorted(failures)

    def get(self, message: Message) -> Message:
        """Send one request and return its one answer.

        Raises:
            NetlinkError: if it was refused (ENODEV: no such link).
        """
        self._socket.send(self._encode(message, NLM_F_REQUEST))
        while True:
            for answer, sequence in self._receive():
                if sequence != self._sequence:
                    continue
                if answer.type == _NLMSG_ERROR:
                    number, reason = _refusal(answer)
                    raise NetlinkError(number, "netlink get", reason, 0)
                return answer

    def dump(self, message: Message) -> list[Message]:
        """Return all answers to a dump request, taken at one instant: repeated when it changed.

        Raises:
            NetlinkError: if it was refused, or changed each time (EINTR).
        """
        for _ in range(_DUMP_ATTEMPTS):
            answers, interrupted = self._dump_once(message)
            if not interrupted:
                return answers
        raise NetlinkError(4, "netlink dump", "it changed while it was read", 0)

    def _dump_once(self, message: Message) -> tuple[list[Message], bool]:
        self._socket.send(self._encode(message, NLM_F_REQUEST | NLM_F_DUMP))
        answers: list[Message] = []
        interrupted = False
        while True:
            for answer, sequence in self._receive():
                if sequence != self._sequence:
                    continue
                interrupted |= bool(answer.flags & _NLM_F_DUMP_INTR)
                if answer.type in (_NLMSG_DONE, _NLMSG_ERROR):
                    number, reason = _refusal(answer)
                    if number:
                        raise NetlinkError(number, "netlink dump", reason, 0)
                    return answers, interrupted
                answers.append(answer)

    def _encode(self, message: Message, flags: int) -> bytes:
        self._sequence += 1
        length = _HEADER.size + len(message.body)
        header = _HEADER.pack(length, message.type, message.flags | flags, self._sequence, 0)
        return header + message.body + bytes(-length % 4)

    def _receive(self) -> Iterator[tuple[Message, int]]:
        raw = self._socket.recv(_RECEIVE_BYTES)
        offset = 0
        while offset + _HEADER.size <= len(raw):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(raw, offset)
            yield Message(kind, raw[offset + _HEADER.size : offset + length], flags), sequence
            offset += (length + 3) & ~3


def _refusal(message: Message) -> tuple[int, str]:
    """Return the errno (0: none) of an NLMSG_ERROR or NLMSG_DONE, and the kernel's reason."""
    if len(message.body) < 4:
        return 0, ""
    (number,) = struct.unpack_from("=i", message.body)
    reason = b""
    if message.flags & _NLM_F_ACK_TLVS:
        skip = 4
        if message.type == _NLMSG_ERROR:
            (echoed,) = struct.unpack_from("=I", message.body, 4)
            skip += _HEADER.size if message.flags & _NLM_F_CAPPED else (echoed + 3) & ~3
        reason = attributes(message.body, skip).get(_NLMSGERR_ATTR_MSG, b"")
    return -number, reason.rstrip(b"\0").decode(errors="replace")
