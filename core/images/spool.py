"""Files without a name, for what is too large to hold in memory; gone with the process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import BinaryIO, cast

from ..effects import effect
from ..errors import from_os_error

_COPY_BYTES = 1 << 20


def new_spool(directory: Path) -> BinaryIO:
    """Make an empty file in *directory* (O_TMPFILE where it can); the caller closes it.

    Raises:
        StowageError: what the OSError means.
    """
    try:
        with effect("image.spool", path=directory):
            return cast(BinaryIO, tempfile.TemporaryFile(dir=directory, prefix="spool-"))
    except OSError as error:
        raise from_os_error(error, f"cannot make a temporary file in {directory}") from error


def fill(spool: BinaryIO, stream: BinaryIO) -> None:
    """Write all of *stream* to *spool*, and go back to its beginning.

    Raises:
        NoSpace: if the file system is full.
    """
    while block := stream.read(_COPY_BYTES):
        try:
            with effect("image.spool_write", size=len(block)):
                spool.write(block)
        except OSError as error:
            raise from_os_error(error, "cannot write a temporary file") from error
    spool.seek(0)
