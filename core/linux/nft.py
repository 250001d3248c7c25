"""nftables transactions through libnftables, in process (0.2 ms each; no ``nft`` is executed).

A transaction is nft's own language, as ``nft -f`` reads it: all of it takes effect, or none.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import threading
from functools import lru_cache
from typing import Any

from ..effects import effect
from ..errors import NotSupported
from .namespaces import network_cookie

_LIBRARY = "libnftables.so.1"
_OUTPUT_JSON = 1 << 4
#: libnftables keeps state for the whole process; one transaction at a time.
_LOCK = threading.Lock()


class NftError(OSError):
    """A transaction was refused as a whole; *messages* is what libnftables said.

    *errno* is the kernel's number, or EINVAL where the text itself was not understood.
    """

    def __init__(self, messages: str) -> None:
        first = next((line for line in messages.splitlines() if "rror" in line), "refused")
        super().__init__(_number(messages), f"nft: {first.strip()}")
        self.messages = messages


def _number(messages: str) -> int:
    """libnftables gives no errno; its text ends in strerror's words."""
    for number in (errno.ENOENT, errno.EEXIST, errno.EBUSY, errno.EPERM, errno.EOPNOTSUPP,
                   errno.ENOSPC, errno.ENOBUFS, errno.EINTR, errno.EAGAIN):  # fmt: skip
        if os.strerror(number) in messages:
            return number
    return errno.EINVAL


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise NotSupported(
            f"{_LIBRARY} is not installed",
            details=str(error),
            resolution="apt-get install libnftables1",
        ) from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    for name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


def available() -> bool:
    """Whether libnftables can be loaded."""
    try:
        _library()
    except NotSupported:
        return False
    return True


class NftSession:
    """Transactions in the calling thread's network namespace, one after the other.

    It is worth keeping: when its socket is closed the kernel waits until what was deleted
    through it is gone (a grace period of RCU, 8 to 20 ms), and no transaction does. A call from
    another namespace than the last one opens a new socket there. Safe to use from many threads.
    """

    def __init__(self) -> None:
        self._context: int | None = None
        self._place = (0, 0)  # of the socket: process and namespace

    def transact(self, script: str, **facts: object) -> None:
        """Run *script* as one transaction, as one effect.

        Raises:
            NftError: if the kernel or the parser refused it; then nothing has changed.
            NotSupported: if libnftables is not installed.
        """
        with effect("nft.transact", **facts):
            self._run(script, 0)

    def query(self, command: str) -> list[dict[str, Any]]:
        """Return what a ``list`` command shows, as libnftables-json(5) describes it.

        Raises: as :meth:`transact`; ENOENT if the object does not exist.
        """
        raw = self._run(command, _OUTPUT_JSON)
        objects: list[dict[str, Any]] = json.loads(raw)["nftables"] if raw.strip() else []
        return [shown for shown in objects if "metainfo" not in shown]

    def close(self) -> None:
        """Close the socket. Idempotent; the next call opens another."""
        with _LOCK:
            self._free()

    def _run(self, script: str, output_flags: int) -> str:
        library = _library()
        with _LOCK:
            context = self._opened(library)
            library.nft_ctx_output_set_flags(context, output_flags)
            failed = library.nft_run_cmd_from_buffer(context, script.encode())
            said = library.nft_ctx_get_error_buffer(context) or b""
            shown = library.nft_ctx_get_output_buffer(context) or b""
        if failed:
            raise NftError(said.decode(errors="replace"))
        return bytes(shown).decode()

    def _opened(self, library: ctypes.CDLL) -> int:
        place = (os.getpid(), network_cookie())
        if place[0] != self._place[0]:
            self._context = None  # the parent's, who goes on using its socket
        elif place != self._place:
            self._free()
        if not self._context:
            context = library.nft_ctx_new(0)
            if not context:
                raise NftError("Error: Cannot allocate memory")
            library.nft_ctx_buffer_output(context)
            library.nft_ctx_buffer_error(context)
            self._context, self._place = context, place
        return self._context

    def _free(self) -> None:
        if self._context:
            _library().nft_ctx_free(self._context)
            self._context = None
