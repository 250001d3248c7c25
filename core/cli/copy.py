"""``cp``: files between a container and the host."""

from __future__ import annotations

import sys

from ..containers.copy_paths import split_arguments
from ..errors import NotFound
from .command import Command
from .context import Context
from .flags import Parsed, switch


def _copy(context: Context, parsed: Parsed) -> None:
    from_container, from_path, to_container, to_path = split_arguments(*parsed.arguments)
    follow = parsed.on("follow-link")
    containers = context.engine.containers
    container, inside = (from_container, from_path) if from_container else (to_container, to_path)
    assert container is not None
    try:
        reference = containers.get(container).id
    except NotFound as error:
        raise NotFound("container:path", f"{container}:{inside}") from error
    if to_container:
        source = sys.stdin.buffer if from_path == "-" else from_path
        containers.copy_in(reference, source, inside, follow=follow)
    elif to_path == "-":
        containers.copy_out(reference, inside, sys.stdout.buffer, follow=follow)
    else:
        keep_owner = parsed.on("archive")
        containers.copy_out(reference, inside, to_path, follow=follow, keep_owner=keep_owner)


COMMANDS = {
    "container cp": Command(
        "[OPTIONS] CONTAINER:SRC_PATH|SRC_PATH|- DEST_PATH|CONTAINER:DEST_PATH|-",
        _copy,
        (
            switch("archive", "Archive mode (copy all uid/gid information)", "a"),
            switch("follow-link", "Always follow symbol link in SRC_PATH", "L"),
        ),
        needs_root=True,
    ),
}
