"""``import``, ``load``, ``save``, ``bootstrap``: images from archives and into them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..effects import effect
from ..errors import InvalidArgument, NotFound
from ..options import nearest, parse_size
from .command import Command
from .context import Context
from .flags import Flag, Parsed, integer, many, switch
from .streams import is_terminal

if TYPE_CHECKING:
    from ..images.saving import ArchiveFormat
    from ..layers.unpack import UnpackLimits

_FORMATS: dict[str, ArchiveFormat] = {
    "docker-archive": "docker-archive",
    "oci-archive": "oci-archive",
}


@contextmanager
def reading(source: str | None) -> Iterator[BinaryIO]:
    """Open the file *source*, or standard input for ``-`` and None.

    Raises:
        InvalidArgument: if standard input is a terminal, for no archive is typed by hand.
        NotFound: if there is no such file.
    """
    if source not in (None, "-"):
        try:
            stream = open(source, "rb")  # noqa: SIM115  # closed below
        except FileNotFoundError:
            raise NotFound(
                "file", source or "", brief=f"open {source}: no such file or directory"
            ) from None
        with stream:
            yield stream
        return
    if is_terminal(0):
        raise InvalidArgument(
            "requested load from stdin, but stdin is a terminal",
            resolution="name a file, or redirect one: stowage … < archive.tar",
        )
    yield sys.stdin.buffer


def write_archive(target: str | None, write: Callable[[BinaryIO], object], failed: str) -> None:
    """Let *write* fill the file *target*, whole or not at all, or standard output for None.

    Raises:
        InvalidArgument: if standard output is a terminal.
        NotFound: if the file's directory is not there; *failed* says what is not done for it.
    """
    if target is None:
        if is_terminal(1):
            raise InvalidArgument(
                "cowardly refusing to save to a terminal",
                resolution="use the -o flag or redirect",
            )
        write(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    path = Path(target)
    if not path.parent.is_dir():
        directory = str(path.parent)
        raise NotFound(
            "directory",
            directory,
            brief=f'{failed}: invalid output path: directory "{directory}" does not exist',
        )
    if path.exists() and not path.is_file():  # a pipe or a device is written to as it is
        with effect("file.write", path=path), open(path, "wb") as stream:
            write(stream)
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with effect("file.write", path=path), open(draft, "xb") as stream:
            write(stream)
        with effect("file.rename", path=path):
            os.replace(draft, path)
    except BaseException as error:
        with effect("file.remove", path=draft):
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == os.fspath(draft):
            error.filename = target  # what the user asked for, not what we call it meanwhile
        raise


def _limits(parsed: Parsed) -> UnpackLimits:
    from ..layers.unpack import UnpackLimits

    size_bytes, entries = parsed.number("max-size"), parsed.number("max-entries")
    return UnpackLimits(
        size_bytes if isinstance(size_bytes, int) else None,
        entries if isinstance(entries, int) else None,
    )


def _import(context: Context, parsed: Parsed) -> None:
    source = parsed.arguments[0]
    if "://" in source:
        raise InvalidArgument(
            f"cannot import from {source}: only files and standard input are read",
            resolution="download it first, and give the file or pipe it to 'import -'",
        )
    reference = parsed.arguments[1] if len(parsed.arguments) > 1 else None
    with reading(source) as stream:
        image = context.engine.images.import_tree(
            stream,
            reference,
            changes=parsed.texts("change"),
            comment=parsed.text("message") or f"Imported from {source}",
            limits=_limits(parsed),
        )
    context.print(image.id)


def _load(context: Context, parsed: Parsed) -> None:
    def tell(message: str) -> None:
        if not parsed.on("quiet") or message.startswith("Loaded"):
            context.print(message)

    with reading(parsed.text("input")) as stream:
        context.engine.images.load(stream, tell=tell, limits=_limits(parsed))


def _save(context: Context, parsed: Parsed) -> None:
    images = context.engine.images
    form = _FORMATS[parsed.text("format") or "docker-archive"]
    write_archive(
        parsed.text("output"),
        lambda out: images.save(parsed.arguments, out, format=form),
        "failed to save image",
    )


def archive_format(text: str) -> str:
    """Read ``--format`` of save.

    Raises:
        ValueError: if it is no format that can be written.
    """
    if text not in _FORMATS:
        raise ValueError(f"expected {' or '.join(_FORMATS)}{nearest(text, _FORMATS)}")
    return text


def _bootstrap(context: Context, parsed: Parsed) -> None:
    what = parsed.arguments[0]
    reference = parsed.arguments[1] if len(parsed.arguments) > 1 else None
    if what not in ("busybox", "debian"):
        raise InvalidArgument(
            f"there is no recipe for {what!r}{nearest(what, ('busybox', 'debian'))}",
            resolution="'stowage bootstrap busybox' and 'stowage bootstrap debian' are known",
        )
    if parsed.text("suite") and what == "busybox":
        raise InvalidArgument("--suite is for debian only")
    from ..images.bootstrap import busybox, debian

    images = context.engine.images
    told = (lambda message: None) if parsed.on("quiet") else context.say
    if what == "busybox":
        image = busybox(images, reference or "busybox", tell=told)
    else:
        suite = parsed.text("suite") or "bookworm"
        image = debian(images, reference, suite=suite, tell=told)
    context.print(image.id)


_LIMITS = (
    Flag(
        "max-size",
        "Refuse a layer whose files hold more bytes than this (512M, 10G)",
        parse=parse_size,
    ),
    Flag("max-entries", "Refuse a layer with more entries than this", parse=integer),
)

COMMANDS = {
    "image import": Command(
        "[OPTIONS] file|- [REPOSITORY[:TAG]]",
        _import,
        (
            many("change", "Apply Dockerfile instruction to the created image", "c"),
            Flag("message", "Set commit message for imported image", "m"),
            *_LIMITS,
        ),
    ),
    "image load": Command(
        "[OPTIONS]",
        _load,
        (
            Flag("input", "Read from tar archive file, instead of STDIN", "i"),
            switch("quiet", "Suppress the load output", "q"),
            *_LIMITS,
        ),
    ),
    "image save": Command(
        "[OPTIONS] IMAGE [IMAGE...]",
        _save,
        (
            Flag("output", "Write to a file, instead of STDOUT", "o"),
            Flag(
                "format",
                "Form of the archive: docker-archive or oci-archive",
                default="docker-archive",
                parse=archive_format,
            ),
        ),
    ),
    "image bootstrap": Command(
        "[OPTIONS] busybox|debian [REPOSITORY[:TAG]]",
        _bootstrap,
        (
            Flag("suite", "Debian release (default bookworm)"),
            switch("quiet", "Only print the image's id", "q"),
        ),
    ),
}
