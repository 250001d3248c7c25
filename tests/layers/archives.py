"""Archives made by hand, entry by entry, with Python's tarfile as the writer."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stowage.layers.tree import Tree
from stowage.layers.unpack import Unpacked, UnpackLimits, unpack

MTIME = 1_500_000_000


@dataclass
class Entry:
    """One member: *type* is tarfile's."""

    name: bytes
    type: bytes = tarfile.REGTYPE
    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: float = MTIME
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    pax: dict[str, str] = field(default_factory=dict)


def folder(name: bytes, mode: int = 0o755, **facts: object) -> Entry:
    return Entry(name, tarfile.DIRTYPE, mode=mode, **facts)  # type: ignore[arg-type]


def sym(name: bytes, target: bytes) -> Entry:
    return Entry(name, tarfile.SYMTYPE, link=target, mode=0o777)


def hard(name: bytes, target: bytes) -> Entry:
    return Entry(name, tarfile.LNKTYPE, link=target)


def archive(entries: Iterable[Entry], format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=format, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for entry in entries:
            tar.addfile(_info(entry), io.BytesIO(entry.data))
    return out.getvalue()


def _info(entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(entry.name.decode(errors="surrogateescape"))
    info.type = entry.type
    info.size = len(entry.data)
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    info.mtime = entry.mtime
    info.linkname = entry.link.decode(errors="surrogateescape")
    info.devmajor, info.devminor = entry.device
    info.pax_headers = dict(entry.pax)
    return info


@contextmanager
def root_of(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def unpack_into(
    path: Path, raw: bytes | Iterable[Entry], limits: UnpackLimits | None = None
) -> Unpacked:
    """Unpack into *path* as a full tree."""
    data = raw if isinstance(raw, bytes) else archive(raw)
    with root_of(path) as root:
        return unpack(io.BytesIO(data), Tree(root), limits=limits or UnpackLimits())
