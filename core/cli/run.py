"""``run`` and ``create``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..effects import effect
from ..errors import AlreadyExists, InvalidArgument
from .attach import follow
from .attach_flags import RUN_FLAGS, run_attachment
from .command import Command
from .context import Context
from .flags import Parsed, switch
from .pull import check_pull, images_named_in_full
from .run_options import CREATE_FLAGS, requested
from .streams import is_terminal

if TYPE_CHECKING:
    from ..containers.model import ContainerRecord, ContainerSpec
    from ..containers.service import Containers


def _run(context: Context, parsed: Parsed) -> int:
    detach = parsed.on("detach")
    attachment = run_attachment(parsed, detach=detach)
    spec = requested(parsed, attached=attachment.stdin)
    check_pull(parsed)
    require_terminal(tty=spec.tty, interactive=attachment.stdin)
    containers = context.engine.containers
    with _CidFile(parsed.text("cidfile")) as cid_file:
        record = _made(containers, spec)
        cid_file.write(record.id)
    context.asking = False
    if detach:
        context.print(record.id)  # also of one that cannot be started, which stays
        sys.stdout.flush()
        containers.start(record.id)
        return 0
    if not attachment.shows:
        context.print(record.id)
    return follow(context, record, attachment)


def _create(context: Context, parsed: Parsed) -> None:
    spec = requested(parsed, attached=False)
    check_pull(parsed)
    containers = context.engine.containers
    with _CidFile(parsed.text("cidfile")) as cid_file:
        record = _made(containers, spec)
        cid_file.write(record.id)
    context.print(record.id)


def _made(containers: Containers, spec: ContainerSpec) -> ContainerRecord:
    with images_named_in_full():
        return containers.create(spec)


def require_terminal(*, tty: bool, interactive: bool) -> None:
    """Refuse ``-it`` where standard input is no terminal.

    Raises:
        InvalidArgument: in Docker's words.
    """
    if tty and interactive and not is_terminal(0):
        raise InvalidArgument("the input device is not a TTY")


class _CidFile:
    """Where the id goes; taken before the container is made, so that two cannot share it."""

    def __init__(self, name: str | None) -> None:
        self._path = Path(name) if name else None
        self._written = False

    def __enter__(self) -> _CidFile:
        if self._path is not None:
            try:
                with effect("file.make", path=self._path):
                    self._path.touch(0o644, exist_ok=False)
            except FileExistsError:
                raise AlreadyExists(
                    "file",
                    str(self._path),
                    brief="container ID file found, make sure the other container isn't running"
                    f" or delete {self._path}",
                ) from None
        return self

    def write(self, container_id: str) -> None:
        """Write the id, without a newline as Docker does."""
        self._written = True
        if self._path is not None:
            with effect("file.write", path=self._path):
                self._path.write_text(container_id)

    def __exit__(self, *exc: object) -> None:
        if self._path is not None and not self._written:
            with effect("file.remove", path=self._path):
                self._path.unlink(missing_ok=True)


COMMANDS = {
    "container run": Command(
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        _run,
        (
            *CREATE_FLAGS,
            *RUN_FLAGS,
            switch("detach", "Run container in background and print container ID", "d"),
        ),
        interspersed=False,
        needs_root=True,
    ),
    "container create": Command(
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        _create,
        CREATE_FLAGS,
        interspersed=False,
        needs_root=True,
    ),
}
