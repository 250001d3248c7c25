"""Making what the members of an archive describe, by the rules of OCI layers.

Rules (image-spec, layer.md): a whiteout deletes names of lower layers only and an opaque marker
hides only those, whatever the order; a directory over a directory changes attributes, all else
is removed and made anew; a hard link leads to a path of this layer or below. Everything is made
by one name beneath a descriptor of :class:`~.directories.Directories`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from ..effects import effectful
from ..errors import InvalidArchive
from ..linux.files import copy_contents
from ..model import WhiteoutForm
from .attributes import Attributes, add_xattrs, attributes_of, set_attributes
from .directories import PATH_LIMIT, Directories
from .names import OPAQUE_NAME, RESERVED_PREFIX, WHITEOUT_PREFIX, cleaned, is_mark
from .places import Walk, resolve
from .reading import Archive
from .recipe_format import Extents
from .recipe_trailer import RecipeTrailer
from .tarheader import BLOCK
from .tarreader import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, FILE, LINK, SYMLINK, Member
from .tree import (
    Tree,
    join,
    list_names,
    lstat,
    open_file,
    proc_path,
    read_range,
    read_xattrs,
    shown,
    split,
    stored_name,
)

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: The number of a payload in the recipe, and how its bytes lie in the file.
_Payload = tuple[int, Extents]


class Extractor(AbstractContextManager["Extractor"]):
    """Makes members in *tree*, their payloads taken from *archive*.

    What its recipe cannot know, for it depends on the tree, goes into *trailer*. Without *marks*
    no name means a deletion.
    """

    def __init__(
        self, tree: Tree, archive: Archive, trailer: RecipeTrailer | None, *, marks: bool = True
    ) -> None:
        self._marks = marks
        self._archive = archive
        self._trailer = trailer
        self._prefix = tree.xattr_prefix
        self._named_marks = tree.form is WhiteoutForm.OCI
        self._made: dict[bytes, _Payload | None] = {}
        self._directories = Directories(tree, self._forget)
        self._make_by_type: dict[bytes, Callable[[int, bytes, Member], None]] = {
            FILE: self._file,
            SYMLINK: self._symlink,
            CHARACTER: self._node,
            BLOCK_DEVICE: self._node,
            FIFO: self._node,
        }

    def __exit__(self, *exc: object) -> None:
        self._directories.close()

    def finish(self) -> None:
        """Give the directories their attributes; nothing more may be made."""
        self._directories.finish()

    def apply(self, member: Member) -> None:
        """Make one member and use up its payload.

        Raises:
            InvalidArchive: if it cannot be made inside the tree.
            OSError: what the kernel said.
        """
        path = member.name
        if self._marks and is_mark(path):
            self._mark(path)
            self._archive.skip(member.size + -member.size % BLOCK)
        elif member.type == DIRECTORY:
            self._directories.make(path, _attributes(member))
        elif not path:
            raise InvalidArchive("The archive has something else than a directory as its root")
        elif member.type == LINK:
            self._link(path, member)
        else:
            self._make(path, member)

    def _make(self, path: bytes, member: Member) -> None:
        parent, _, name = path.rpartition(b"/")
        directory, above = self._directories.enter(parent)
        place = above + b"/" + name if above else name
        if len(place) > PATH_LIMIT:
            raise InvalidArchive(f"A path is longer than {PATH_LIMIT} bytes")
        if self._named_marks and self._directories.marks.is_whiteout(directory, name):
            self._directories.marks.drop_whiteout(directory, name)
        make = self._make_by_type[member.type]
        try:
            make(directory, name, member)
        except FileExistsError:
            self._directories.remove(directory, name, place)
            make(directory, name, member)
        self._made[place] = None
        if member.payload is not None and self._trailer is not None:
            self._made[place] = (member.payload, member.extents or ((0, member.size),))
            if place != path:
                self._trailer.moved(member.payload, place)

    # --- kinds of files ----------------------------------------------------------------------

    @effectful("tree.file")
    def _file(self, directory: int, name: bytes, member: Member) -> None:
        mode = member.mode & 0o7777
        descriptor = os.open(name, _NEW, mode & 0o777, dir_fd=directory)
        try:
            size = member.size
            if member.extents is not None:
                self._write_extents(descriptor, member)
            elif size:
                self._write(descriptor, size)
            padding = -size % BLOCK
            if padding:
                self._archive.skip(padding)
            # looking is cheaper than setting what the umask and the owner have got right
            status = os.fstat(descriptor)
            owned = status.st_uid == member.uid and status.st_gid == member.gid
            if not owned:
                os.fchown(descriptor, member.uid, member.gid)
            for key, value in member.xattrs:
                os.setxattr(descriptor, stored_name(key, self._prefix), value)
            if not owned or member.xattrs or status.st_mode != stat.S_IFREG | mode:
                os.fchmod(descriptor, mode)
            os.utime(descriptor, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(descriptor)

    def _write(self, descriptor: int, size: int) -> None:
        archive = self._archive
        while size:
            at = archive.at
            if at == archive.end:
                archive.fill()
                at = 0
            written = os.write(descriptor, archive.view[at : min(at + size, archive.end)])
            archive.at = at + written
            size -= written

    @effectful("tree.file")
    def _write_extents(self, descriptor: int, member: Member) -> None:
        assert member.extents is not None
        os.ftruncate(descriptor, member.file_size)
        for offset, length in member.extents:
            os.lseek(descriptor, offset, os.SEEK_SET)
            self._write(descriptor, length)

    @effectful("tree.symlink")
    def _symlink(self, directory: int, name: bytes, member: Member) -> None:
        os.symlink(member.link, name, dir_fd=directory)
        os.chown(name, member.uid, member.gid, dir_fd=directory, follow_symlinks=False)
        if member.xattrs:
            add_xattrs(directory, name, member.xattrs, self._prefix)
        times = (member.mtime_ns, member.mtime_ns)
        os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)

    @effectful("tree.node")
    def _node(self, directory: int, name: bytes, member: Member) -> None:
        kind = {FIFO: stat.S_IFIFO, CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}
        device = 0
        if member.type != FIFO:
            device = os.makedev(*member.device)
            if member.type == CHARACTER and not device:
                raise InvalidArchive(
                    f"{shown(member.name)} is a character device 0:0",
                    details="the kernel takes such a device for a deleted file",
                )
        os.mknod(name, kind[member.type] | 0o600, device, dir_fd=directory)
        os.chown(name, member.uid, member.gid, dir_fd=directory, follow_symlinks=False)
        if member.xattrs:
            add_xattrs(directory, name, member.xattrs, self._prefix)
        os.chmod(name, member.mode & 0o7777, dir_fd=directory)
        times = (member.mtime_ns, member.mtime_ns)
        os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)

    # --- hard links --------------------------------------------------------------------------

    def _link(self, path: bytes, member: Member) -> None:
        target = cleaned(member.link)
        above, base = split(target)
        with self._directories.walk() as walk:
            source = join(resolve(walk, above), base)
            seen = walk.see(base) if base else None
            if seen is None or stat.S_ISDIR(seen[1].st_mode):
                raise InvalidArchive(
                    f"{shown(path)} is a hard link to {shown(target)}, which is no file"
                )
            if seen[0] != walk.upper:
                self._copy_up(walk, base, seen[1])
        parent, name = split(path)
        lies_in = parent if parent in self._directories.known else self._directories.resolve(parent)
        if (lies_in + b"/").startswith(source + b"/"):
            raise InvalidArchive(f"{shown(path)} is a hard link to what it lies in, a file")
        with self._directories.walk() as walk:
            walk.go(split(source)[0])
            directory, above = self._directories.enter(parent)
            place = join(above, name)
            if place == source:
                return
            if self._named_marks and self._directories.marks.is_whiteout(directory, name):
                self._directories.marks.drop_whiteout(directory, name)
            try:
                _make_link(walk, base, directory, name)
            except FileExistsError:
                self._directories.remove(directory, name, place)
                _make_link(walk, base, directory, name)
        self._made[place] = None

    def _copy_up(self, walk: Walk, name: bytes, status: os.stat_result) -> None:
        """Copy a file that exists only in the lower layers into the tree, to link to it."""
        assert walk.lower is not None
        place = join(walk.place, name)
        member = Member(
            place, _TYPE_BY_FORMAT[stat.S_IFMT(status.st_mode)], stat.S_IMODE(status.st_mode),
            status.st_uid, status.st_gid, status.st_mtime_ns,
            device=(os.major(status.st_rdev), os.minor(status.st_rdev)),
        )  # fmt: skip
        directory, _ = self._directories.enter(walk.place)
        if member.type == FILE:
            descriptor = open_file(walk.lower, name)
            try:
                _copy_file(descriptor, directory, name, self._prefix)
            finally:
                os.close(descriptor)
        else:
            member.xattrs = tuple(read_xattrs(proc_path(walk.lower, name)))
            if member.type == SYMLINK:
                member.link = os.readlink(name, dir_fd=walk.lower)
            self._make_by_type[member.type](directory, name, member)
        self._made[place] = None

    # --- marks -------------------------------------------------------------------------------

    def _mark(self, path: bytes) -> None:
        """Obey a whiteout or opaque marker.

        Raises:
            InvalidArchive: for a name that nothing can have (``.wh.`` alone, or as a directory).
        """
        parent, name = split(path)
        for component in parent.split(b"/"):
            if component.startswith(RESERVED_PREFIX):
                return  # aufs's own bookkeeping, in old images
            if component.startswith(WHITEOUT_PREFIX):
                raise InvalidArchive(f"{shown(path)} lies in a whiteout")
        if name == OPAQUE_NAME:
            self._opaque(parent)
        elif not name.startswith(RESERVED_PREFIX):
            gone = name[len(WHITEOUT_PREFIX) :]
            if gone in (b"", b".", b".."):
                raise InvalidArchive(f"{shown(path)} is a whiteout of nothing")
            self._whiteout(parent, gone)

    def _whiteout(self, parent: bytes, name: bytes) -> None:
        directories = self._directories
        with directories.walk() as walk:
            child = join(resolve(walk, parent), name)
            walk.see(name)
            lower = walk.lower
            if not directories.layered:
                lower = walk.upper
            if directories.sees_lower and (lower is None or lstat(lower, name) is None):
                return
        if directories.hides_lower(split(child)[0]):
            return
        directory, _ = directories.enter(parent)
        if not directories.layered:
            if child not in self._made:
                self._delete(directory, name, child)
        elif child in directories.known:
            if directories.replace_lower(child):
                directory, _ = directories.enter(parent)
                directories.marks.add_whiteout(directory, name)
        elif child not in self._made and not directories.marks.is_whiteout(directory, name):
            if lstat(directory, name) is not None:
                directories.remove(directory, name, child)
            directories.marks.add_whiteout(directory, name)

    def _delete(self, directory: int, name: bytes, place: bytes) -> None:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            self._directories.delete_lower(place, self._made, top=True)
        else:
            self._directories.remove(directory, name, place)

    def _opaque(self, parent: bytes) -> None:
        directories = self._directories
        with directories.walk() as walk:
            place = resolve(walk, parent)
            walk.see(b".")
            lower = walk.lower if directories.layered else walk.upper
            if directories.sees_lower and lower is None:
                return
            names = [] if place or lower is None else list_names(lower)
        if directories.hides_lower(place):
            return
        if not directories.layered:
            directories.enter(parent)
            directories.delete_lower(place, self._made, top=False)
        elif names:  # the kernel merges the roots of all layers, opaque or not
            for name in names:
                self._whiteout(b"", name)
        else:
            _, place = directories.enter(parent)
            directories.make_opaque(place)

    # --- payloads ----------------------------------------------------------------------------

    def _forget(self, directory: int, name: bytes, place: bytes) -> None:
        """Keep the payload of a file that a later member replaces; the recipe needs it."""
        payload = self._made.pop(place, None)
        if payload is not None and self._trailer is not None:
            number, extents = payload
            descriptor = open_file(directory, name)
            try:
                self._trailer.replaced(number, _contents(descriptor, extents))
            finally:
                os.close(descriptor)


_TYPE_BY_FORMAT = {
    stat.S_IFREG: FILE,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}


def _attributes(member: Member) -> Attributes:
    return Attributes(member.mode & 0o7777, member.uid, member.gid, member.mtime_ns, member.xattrs)


def _contents(descriptor: int, extents: Extents) -> Iterator[bytes]:
    for offset, length in extents:
        yield from read_range(descriptor, offset, length)


@effectful("tree.link")
def _make_link(walk: Walk, name: bytes, directory: int, new: bytes) -> None:
    if walk.upper is None:
        raise FileNotFoundError(2, "the target of a hard link is gone", name)
    os.link(name, new, src_dir_fd=walk.upper, dst_dir_fd=directory, follow_symlinks=False)


@effectful("tree.copy_up")
def _copy_file(source: int, directory: int, name: bytes, prefix: str) -> None:
    target = os.open(name, _NEW, 0o600, dir_fd=directory)
    try:
        copy_contents(source, target, os.fstat(source).st_size)
        set_attributes(target, attributes_of(source), prefix, fresh=True)
    finally:
        os.close(target)
