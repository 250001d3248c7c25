"""The flags that say what of a container is put on our stdio: streams, signals, detach keys."""

from __future__ import annotations

from msgspec import Struct

from ..containers.detach_keys import parse_detach_keys
from ..errors import InvalidArgument
from .flags import Flag, Parsed, many, switch

_STREAMS = ("stdin", "stdout", "stderr")

DETACH_KEYS_FLAG = Flag(
    "detach-keys", "Override the key sequence for detaching a container (a-Z, ctrl-<value>, ...)"
)
SIG_PROXY_FLAG = switch("sig-proxy", "Proxy received signals to the process", default=True)


def _stream(text: str) -> str:
    if text.lower() not in _STREAMS:
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


RUN_FLAGS = (
    many("attach", "Attach to STDIN, STDOUT or STDERR", "a", parse=_stream),
    DETACH_KEYS_FLAG,
    SIG_PROXY_FLAG,
)


class Attachment(Struct, frozen=True):
    """What of a container is put on our stdio; *keys* typed on a terminal end that."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    proxy: bool = True
    keys: bytes = b""

    @property
    def shows(self) -> bool:
        """Whether anything that the container writes is shown."""
        return self.stdout or self.stderr

    @property
    def descriptors(self) -> tuple[int | None, int | None, int | None]:
        """Our descriptors for it, None where there is to be none."""
        return (0 if self.stdin else None, 1 if self.stdout else None, 2 if self.stderr else None)


def detach_keys(parsed: Parsed) -> bytes:
    """Return the keys that are asked for; raises as :func:`parse_detach_keys`."""
    return parse_detach_keys(parsed.text("detach-keys") or "")


def run_attachment(parsed: Parsed, *, detach: bool) -> Attachment:
    """Return what ``run`` asks for; nothing is attached to a detached container.

    Raises:
        InvalidArgument: in Docker's words.
    """
    asked = parsed.texts("attach")
    keys = detach_keys(parsed)
    if detach:
        if asked:
            raise InvalidArgument("Conflicting options: -a and -d")
        return Attachment(stdout=False, stderr=False, keys=keys)
    return Attachment(
        stdin=parsed.on("interactive") or "stdin" in asked,
        stdout=not asked or "stdout" in asked,
        stderr=not asked or "stderr" in asked,
        proxy=parsed.on("sig-proxy"),
        keys=keys,
    )
