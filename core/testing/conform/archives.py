"""Archives made by Python's own tarfile, which shares nothing with the code under test."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence

from msgspec import Struct

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"


class Member(Struct, frozen=True):
    """One member of an archive; *kind* is tarfile's (``tarfile.REGTYPE``, …)."""

    name: str
    kind: bytes = tarfile.REGTYPE
    content: bytes = b""
    mode: int = 0o644
    target: str = ""
    mtime: int = 0
    uid: int = 0

    def info(self) -> tarfile.TarInfo:
        info = tarfile.TarInfo(self.name)
        info.type, info.mode, info.uid = self.kind, self.mode, self.uid
        info.mtime, info.linkname, info.size = self.mtime, self.target, len(self.content)
        return info


def directory(name: str, mode: int = 0o755, mtime: int = 0) -> Member:
    """A directory."""
    return Member(name, tarfile.DIRTYPE, mode=mode, mtime=mtime)


def file(name: str, content: bytes = b"x") -> Member:
    """A regular file 0644."""
    return Member(name, content=content)


def symlink(name: str, target: str) -> Member:
    """A symbolic link."""
    return Member(name, tarfile.SYMTYPE, mode=0o777, target=target)


def hardlink(name: str, target: str) -> Member:
    """A further name of a file."""
    return Member(name, tarfile.LNKTYPE, target=target)


def whiteout(name: str) -> Member:
    """The mark that *name* is gone."""
    above, slash, base = name.rpartition("/")
    return Member(f"{above}{slash}{WHITEOUT}{base}", mode=0)


def opaque(name: str) -> Member:
    """The mark that a directory hides what the layers below have in it."""
    return Member(f"{name}/{OPAQUE}" if name else OPAQUE, mode=0)


def archive(members: Iterable[Member], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return an archive of *members*, in their order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for member in members:
            content = io.BytesIO(member.content) if member.kind == tarfile.REGTYPE else None
            tar.addfile(member.info(), content)
    return out.getvalue()


def names_in(data: bytes) -> list[str]:
    """Return the names of the members of an archive, without a slash at either end."""
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        return [member.name.strip("/").removeprefix("./") for member in tar.getmembers()]


def rearranged(data: bytes, order: Sequence[int]) -> bytes:
    """Return the archive with its members, byte for byte, in another order: *order* sorts them.

    Hard links stay behind all others, for a link must come after what it links to.
    """
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        members = tar.getmembers()
        ends = [*(member.offset for member in members[1:]), tar.offset]
    if not members:
        return data
    ranked = sorted(
        zip(members, ends, order, strict=True), key=lambda each: (each[0].islnk(), each[2])
    )
    pieces = [data[member.offset : end] for member, end, _ in ranked]
    return b"".join([*pieces, bytes(1024)])


__all__ = [
    "Member",
    "OPAQUE",
    "WHITEOUT",
    "archive",
    "directory",
    "file",
    "hardlink",
    "names_in",
    "opaque",
    "rearranged",
    "symlink",
    "whiteout",
]
