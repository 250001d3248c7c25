"""``cp``: files between a container and the host, as an archive on its way from one to the other.

What is in the container is resolved as if its root were ``/``; no symlink in it leads to the
host. An archive streams through a pipe: memory does not grow with what is copied.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from ..errors import FailedPrecondition, InvalidArgument, NotFound, StowageError, from_os_error
from ..layers.copying import pack_at, unpack_at
from ..layers.init import resolve
from ..linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from .context import Context
from .copy_paths import Copy, End, plan
from .model import ContainerRecord
from .whole_root import whole_root

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BENEATH = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


def copy_out(
    context: Context,
    record: ContainerRecord,
    path: str,
    target: str | BinaryIO,
    *,
    follow: bool = False,
    keep_owner: bool = False,
) -> None:
    """Copy *path* of a container to *target* of the host, or as an archive to a stream.

    The trailing ``/`` and ``/.`` mean what they do in Docker. With *follow* a symlink is copied
    as what it leads to. What is made belongs to the caller, or with *keep_owner* to whom it
    belongs in the container.

    Raises:
        NotFound: "No such container:path: …".
        FailedPrecondition: in Docker's words, if a file would take a directory's place.
    """
    inside = _absolute(path, "/")
    with whole_root(context, record) as root, _found(root, record, inside, follow) as found:
        parent, name, source = found
        if not isinstance(target, str):
            base = b"" if source.contents_only else os.fsencode(source.name)
            pack_at(parent, name, target, base=base)
            return
        copy = plan(source, _local_end(target))
        owner = None if keep_owner else (os.geteuid(), os.getegid())
        directory = os.open(copy.directory, _DIRECTORY)
        try:
            _through_pipe(
                lambda out: pack_at(parent, name, out, base=os.fsencode(copy.base)),
                lambda stream: unpack_at(stream, directory, b"", owner=owner),
            )
        finally:
            os.close(directory)


def copy_in(
    context: Context,
    record: ContainerRecord,
    source: str | BinaryIO,
    path: str,
    *,
    follow: bool = False,
) -> None:
    """Copy *source* of the host, or the archive on a stream, to *path* of a container.

    Numbers of users and groups stay as they are.

    Raises:
        NotFound: if the source is not there, or the directory that it is to go to.
        FailedPrecondition: in Docker's words, if a file would take a directory's place.
    """
    with whole_root(context, record) as root:
        destination = _inner_end(root, record, _absolute(path, "/"))
        if not isinstance(source, str):
            if not destination.is_directory:
                raise InvalidArgument(f'destination "{record.name}:{path}" must be a directory')
            _extract(root, record, source, destination.clean)
            return
        with _local(source, follow) as (parent, name, local):
            copy = plan(local, destination)
            _require_directory(root, record, copy)
            _through_pipe(
                lambda out: pack_at(parent, name, out, base=os.fsencode(copy.base)),
                lambda stream: _extract(root, record, stream, copy.directory),
            )


def _extract(root: int, record: ContainerRecord, stream: BinaryIO, directory: str) -> None:
    target = _mount_of(record, directory)
    if target is None and record.spec.security.read_only_root:
        raise FailedPrecondition("container rootfs is marked read-only")
    try:
        unpack_at(stream, root, os.fsencode(directory.strip("/")))
    except StowageError as error:
        if error.errno == errno.EROFS:
            what = "container rootfs" if target is None else "mounted volume"
            raise FailedPrecondition(f"{what} is marked read-only") from error
        raise


def _mount_of(record: ContainerRecord, directory: str) -> str | None:
    return next(
        (
            mount.target
            for mount in record.spec.mounted
            if (directory + "/").startswith(mount.target + "/")
        ),
        None,
    )


# --- paths ------------------------------------------------------------------------------------


def _absolute(path: str, here: str) -> str:
    """Return *path* from *here* in its shortest form, a trailing ``/`` or ``/.`` kept."""
    whole = "/" + posixpath.normpath(posixpath.join(here, path)).lstrip("/")
    if posixpath.basename(path) == ".":
        return whole.rstrip("/") + "/."
    return whole + "/" if path.endswith("/") and whole != "/" else whole


def _inner_end(root: int, record: ContainerRecord, path: str) -> End:
    """Return the destination in a container, symlinks followed."""
    names = resolve(root, os.fsencode(path))
    if names is None:
        raise _missing(record, path)
    place = "/" + os.fsdecode(b"/".join(names))
    trailing = "/" if path.endswith(("/", "/.")) and place != "/" else ""
    try:
        descriptor = openat2(root, b"/".join(names) or b".", os.O_PATH, 0, _BENEATH)
    except FileNotFoundError:
        return End(place + trailing, exists=False)
    try:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
    if trailing and not is_directory:
        raise FailedPrecondition(f"{record.name}:{path} is not a directory")
    return End(place + trailing, is_directory=is_directory)


def _require_directory(root: int, record: ContainerRecord, copy: Copy) -> None:
    try:
        place = os.fsencode(copy.directory.strip("/")) or b"."
        os.close(openat2(root, place, os.O_PATH | os.O_DIRECTORY, 0, _BENEATH))
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(record, copy.directory) from None


@contextmanager
def _found(
    root: int, record: ContainerRecord, path: str, follow: bool
) -> Iterator[tuple[int, bytes, End]]:
    """Give where a container's *path* lies: its directory, its name there, and what it is."""
    wants_directory = path.endswith(("/", "/."))
    names = resolve(root, os.fsencode(path), follow_last=follow or wants_directory)
    if names is None:
        raise _missing(record, path)
    try:
        parent = openat2(root, b"/".join(names[:-1]) or b".", _DIRECTORY, 0, _BENEATH)
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(record, path) from None
    try:
        name = names[-1] if names else b"."
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise _missing(record, path) from None
        is_directory = stat.S_ISDIR(status.st_mode)
        if wants_directory and not is_directory:
            raise FailedPrecondition(f"{record.name}:{path} is not a directory")
        yield parent, name, End(path, is_directory=is_directory)
    finally:
        os.close(parent)


def _missing(record: ContainerRecord, path: str) -> NotFound:
    return NotFound("container:path", f"{record.name}:{path}")


@contextmanager
def _local(path: str, follow: bool) -> Iterator[tuple[int, bytes, End]]:
    """Give where the host's *path* lies, as :func:`_found` does."""
    whole = _absolute(path, os.getcwd())
    try:
        status = os.stat(whole) if follow else os.lstat(whole)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise NotFound("file", path, brief=f"lstat {whole}: {reason}") from None
    bare = whole.removesuffix(".").rstrip("/") or "/"
    if follow or whole.endswith(("/", "/.")):
        real = os.path.realpath(bare)
    else:
        real = os.path.join(os.path.realpath(os.path.dirname(bare)), os.path.basename(bare))
    parent = os.open(os.path.dirname(real), _DIRECTORY)
    try:
        name = os.fsencode(os.path.basename(real)) or b"."
        yield parent, name, End(whole, is_directory=stat.S_ISDIR(status.st_mode))
    finally:
        os.close(parent)


def _local_end(path: str) -> End:
    """Return the destination on the host, symlinks followed; its directory must be there."""
    whole = _absolute(path, os.getcwd())
    real = os.path.realpath(whole)
    above = os.path.dirname(real)
    if not os.path.isdir(above):
        raise NotFound(
            "directory", above, brief=f'invalid output path: directory "{above}" does not exist'
        )
    trailing = "/" if whole.endswith(("/", "/.")) and real != "/" else ""
    try:
        status = os.stat(real)
    except FileNotFoundError:
        return End(real + trailing, exists=False)
    except OSError as error:
        raise from_os_error(error, f"{path} cannot be written to") from error
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        raise InvalidArgument(f'destination "{path}" must be a directory or a regular file')
    return End(real + trailing, is_directory=stat.S_ISDIR(status.st_mode))


# --- the pipe ---------------------------------------------------------------------------------


def _through_pipe(produce: Callable[[BinaryIO], None], consume: Callable[[BinaryIO], None]) -> None:
    """Let a thread write what we read. What stopped the writer is the cause if both fail."""
    reading, writing = os.pipe()
    failure: list[BaseException] = []

    def write() -> None:
        try:
            with os.fdopen(writing, "wb") as out:
                produce(out)
        except BrokenPipeError:  # the reader has given up, and says why
            pass
        except BaseException as error:  # noqa: BLE001  # raised again below
            failure.append(error)

    thread = threading.Thread(target=write, name="stowage-copy", daemon=True)
    thread.start()
    try:
        with os.fdopen(reading, "rb") as stream:
            consume(stream)
    except BaseException:
        thread.join()
        if failure:
            raise failure[0] from None
        raise
    thread.join()
    if failure:
        raise failure[0]
