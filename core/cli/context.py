"""What a command works with: configuration, the engine (opened when first used), output."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..config import DEFAULT_CONFIG_FILE, Config, FlagValue
from ..effects import effect
from ..errors import PermissionDenied, StowageError
from .errors import FAILED, report

if TYPE_CHECKING:
    from ..engine import Engine

T = TypeVar("T")

#: How many containers a command works on at a time; Docker's client does 50.
_AT_ONCE = 16


class Context:
    """One invocation. *flags* are the global ones; with *bare*, neither a file nor ``STOWAGE_…``
    has a say. Close it (it is a context manager) to close the engine."""

    def __init__(
        self,
        flags: Mapping[str, FlagValue],
        environ: Mapping[str, str] = os.environ,
        *,
        bare: bool = False,
        default_path: Path = DEFAULT_CONFIG_FILE,
    ) -> None:
        self._flags = flags
        self._environ = {} if bare else environ
        self._default_path = None if bare else default_path
        self._stack = ExitStack()
        #: Whether what the user asked for is still being read, and nothing is made yet.
        self.asking = True

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def debug(self) -> bool:
        """Whether tracebacks are wanted, even while the configuration cannot be read."""
        if "config" in self.__dict__:
            return self.config.debug
        return self._flags.get("debug") is True

    @cached_property
    def config(self) -> Config:
        """The configuration, read and checked; what is odd about it is said once."""
        config = Config.load(self._flags, self._environ, self._default_path)
        if config.log_level not in ("error", "fatal"):
            for warning in config.warnings:
                self.warn(warning)
        return config

    @cached_property
    def engine(self) -> Engine:
        """The engine on the configured root; recovery has run.

        Raises:
            PermissionDenied: if the root is not ours to open, with what to do.
        """
        config = self.config
        self._log_to_stderr(config)
        from ..engine import Engine

        try:
            return self._stack.enter_context(Engine(config=config))
        except PermissionError as error:
            raise PermissionDenied(
                f"the root {config.data_root} cannot be opened",
                details=f"{os.strerror(error.errno or 0)}: {error.filename}",
                resolution="run as root, or keep a root of your own with --root DIR",
            ) from error

    @cached_property
    def probing_engine(self) -> Engine:
        """The engine; on a root of its own for this command where the default one is not ours to
        open, for what works here can be told without it.

        Raises:
            PermissionDenied: if a root was named and is not ours to open.
        """
        try:
            return self.engine
        except PermissionDenied as error:
            if self.config.origin("data-root").source != "default":
                raise
            self.say(f"{error.brief}; what follows is about an empty one made for this command")
        from tempfile import TemporaryDirectory

        from ..engine import Engine

        with effect("root.scratch"):
            place = Path(self._stack.enter_context(TemporaryDirectory(prefix="stowage-")))
        return self._stack.enter_context(Engine(place))

    def _log_to_stderr(self, config: Config) -> None:
        import logging

        levels = {"warn": logging.WARNING, "fatal": logging.CRITICAL}
        level = levels.get(config.log_level) or getattr(logging, config.log_level.upper())
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger = logging.getLogger("stowage")
        logger.setLevel(logging.DEBUG if config.debug else level)
        logger.addHandler(handler)
        self._stack.callback(logger.removeHandler, handler)

    def require_root(self) -> None:
        """Refuse early what only root can do.

        Raises:
            PermissionDenied: if this process is not root.
        """
        if os.geteuid() != 0:
            raise PermissionDenied(
                "containers can be run by root only",
                details=f"this process runs as uid {os.geteuid()} and lacks CAP_SYS_ADMIN",
                resolution="run the command with sudo; 'stowage driver ls' shows what works"
                " without",
            )

    # --- output ------------------------------------------------------------------------------

    def print(self, text: str) -> None:
        """Write *text* and a newline to stdout; nothing for an empty text."""
        if text:
            sys.stdout.write(text + "\n")

    def say(self, text: str) -> None:
        """Write what goes on to stderr, so that stdout holds results only."""
        sys.stdout.flush()
        print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Write a warning to stderr, as Docker words them."""
        sys.stdout.flush()
        print(f"WARNING: {text}", file=sys.stderr)

    def each(self, names: Iterable[str], action: Callable[[str], object]) -> int:
        """Do *action* for each name, going on after a failure, and print the name (or the text
        that the action returned). Return the exit code."""
        return self._told((name, partial(action, name)) for name in names)

    def each_at_once(self, names: Sequence[str], action: Callable[[str], object]) -> int:
        """Do *action* for several names at a time, as :meth:`each` otherwise; what they came to
        is told in the order of *names*."""
        if len(names) < 2:
            return self.each(names, action)
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            futures = [pool.submit(action, name) for name in names]
            return self._told((name, f.result) for name, f in zip(names, futures, strict=True))

    def _told(self, results: Iterable[tuple[str, Callable[[], object]]]) -> int:
        code = 0
        for name, result in results:
            try:
                told = result()
            except StowageError as error:
                sys.stdout.flush()
                report(error, debug=self.debug)
                code = FAILED
            else:
                self.print(name if told is None else str(told))
        return code
