"""The observer behind ``--trace``: one line per driver call and per effect, with its time.

::

        mount.attach type='overlay' … 0.41 ms
      overlay storage_attach directory=/var/lib/stowage/storage/overlay/7 0.52 ms
      file.rename … 0.03 ms ! OSError: [Errno 28] No space left on device

A line is written when its call or effect ends, so what happened inside stands above it, indented
deeper. Lines go to standard error, or are appended to the file named by ``STOWAGE_TRACE_FILE``,
each with the pid in front, for many processes may share it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from ..hookspecs import hookimpl

_VALUE_LIMIT = 100  # characters of one value


class TraceObserver:
    """Writes what it sees through *write*, by default as the environment says. Thread-safe."""

    name = "trace"
    api_version = 1

    def __init__(self, write: Callable[[str], None] | None = None) -> None:
        self._write = write or _writer(os.environ)
        self._depth = threading.local()

    @hookimpl
    def observer_call(
        self, driver: str, hook: str, arguments: Mapping[str, object]
    ) -> AbstractContextManager[object]:
        return self._timed(f"{driver} {hook}", arguments)

    @hookimpl
    def observer_effect(
        self, name: str, facts: Mapping[str, object]
    ) -> AbstractContextManager[object]:
        return self._timed(name, facts)

    @contextmanager
    def _timed(self, what: str, facts: Mapping[str, object]) -> Iterator[None]:
        depth: int = getattr(self._depth, "value", 0)
        self._depth.value = depth + 1
        failure = ""
        started = time.perf_counter_ns()
        try:
            yield
        except BaseException as error:
            failure = f" ! {type(error).__name__}: {error}".splitlines()[0]
            raise
        finally:
            elapsed_ms = (time.perf_counter_ns() - started) / 1e6
            self._depth.value = depth
            self._write(f"{'  ' * depth}{what}{_shown(facts)} {elapsed_ms:.2f} ms{failure}\n")


def _shown(facts: Mapping[str, object]) -> str:
    return "".join(f" {key}={_value(value)}" for key, value in facts.items() if value is not None)


def _value(value: object) -> str:
    text = os.fsdecode(value) if isinstance(value, os.PathLike) else repr(value)
    text = text.replace("\n", "\\n")
    return text if len(text) <= _VALUE_LIMIT else text[: _VALUE_LIMIT - 1] + "…"


def _writer(environ: Mapping[str, str]) -> Callable[[str], None]:
    path = environ.get("STOWAGE_TRACE_FILE")
    if not path:
        return lambda line: print(line, end="", file=sys.stderr, flush=True)

    def append(line: str) -> None:
        # opened each time: the process may fork, and close what it does not know
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            os.write(descriptor, f"{os.getpid()} {line}".encode(errors="backslashreplace"))
        finally:
            os.close(descriptor)

    return append
