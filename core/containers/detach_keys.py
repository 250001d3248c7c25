"""The keys that leave a container running: reading them as Docker does, and watching for them."""

from __future__ import annotations

from ..errors import InvalidArgument

#: Docker's default.
DETACH_KEYS = "ctrl-p,ctrl-q"
_LETTERS = "@abcdefghijklmnopqrstuvwxyz[\\]^_"  # ctrl-@ is 0, ctrl-_ is 31


def parse_detach_keys(text: str) -> bytes:
    """Return the bytes that ``a,ctrl-x,DEL`` stand for; the default's for an empty text.

    Raises:
        InvalidArgument: in Docker's words, if one of them is no key.
    """
    try:
        return bytes(_key(name) for name in (text or DETACH_KEYS).split(","))
    except ValueError as error:
        raise InvalidArgument(
            f"Invalid detach keys ({text}) provided",
            details=str(error),
            resolution="keys are joined by commas: a single character, DEL, or ctrl- and one of"
            f" {_LETTERS}",
        ) from None


def _key(name: str) -> int:
    if len(name) == 1 and name.isascii():
        return ord(name)
    if name == "DEL":
        return 127
    letter = name.removeprefix("ctrl-")
    if name != letter and len(letter) == 1 and letter in _LETTERS:
        return _LETTERS.index(letter)
    raise ValueError(f"Unknown character: '{name}'")


class KeyWatch:
    """Watches what is typed for *keys*, which never reach the container."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._pending = b""
        self.seen = False

    def filter(self, chunk: bytes) -> bytes:
        """Return what of *chunk* is to be sent; the beginning of the keys waits for the rest."""
        passed = bytearray()
        for number in chunk:
            key = bytes([number])
            if self._keys.startswith(self._pending + key):
                self._pending += key
                if self._pending == self._keys:
                    self.seen = True
                    break
                continue
            passed += self._pending + key
            self._pending = b""
        return bytes(passed)
