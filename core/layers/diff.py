"""Diffs: of a tree that holds only changes (form OCI or OVERLAY), or of two full trees."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from ..model import Change, ChangeKind, Usage
from .changes import ChangeWalk, Found
from .compare import ContentsOnly, FullTrees, names_by_directory, with_links
from .pack import Packer
from .recipe_format import RecipeWriter
from .tarwriter import Packed as Packed
from .tarwriter import TarWriter
from .tree import Tree, open_directory
from .whiteouts import NoMarks, marks_of


def tree_changes(tree: Tree) -> Iterator[Change]:
    """Yield what a tree of changes changes, sorted by path, as Docker lists it.

    Directories above a change are MODIFIED; the root is never listed. Without ``tree.lower``
    nothing can be MODIFIED, and what an opaque directory hides is not known.

    Raises:
        NotSupported: if the tree is not the whole truth (``metacopy``, ``redirect_dir``).
    """
    with _changes_of(tree) as found:
        return iter(_listed(found))


def compare_changes(
    parent: int | None,
    child: int,
    *,
    sealed_ns: int | None,
    candidates: Iterable[Change] | None = None,
) -> Iterator[Change]:
    """Yield what the full tree *child* changes of *parent* (None: an empty one), sorted by path.

    *sealed_ns* is the time of the file system's clock when *child* was made as a copy of
    *parent*; None compares the contents of all files that stat(2) shows no difference of.
    *candidates* are the only paths that may differ; those that do not are dropped.
    """
    return iter(_listed(_comparison(parent, child, sealed_ns, candidates)))


def pack_tree(tree: Tree, out: BinaryIO, *, recipe: BinaryIO | None = None) -> Packed:
    """Write the archive of a tree of changes to *out*; the same tree gives the same bytes.

    Deletions are explicit whiteouts where ``tree.lower`` tells what an opaque directory hides.
    Directories that are the same as below are written only above something else.

    Raises:
        NotSupported: if the tree is not the whole truth, or holds a name that means a deletion.
    """
    with _changes_of(tree, kinds=False) as found:
        return _pack(tree.root, found, out, recipe, tree.xattr_prefix)


def pack_comparison(
    parent: int | None,
    child: int,
    out: BinaryIO,
    *,
    sealed_ns: int | None,
    candidates: Iterable[Change] | None = None,
    recipe: BinaryIO | None = None,
) -> Packed:
    """Write the archive that turns *parent* into *child*; arguments as for compare_changes.

    Raises:
        NotSupported: if the tree holds a name that means a deletion in an archive.
    """
    found = _comparison(parent, child, sealed_ns, candidates)
    return _pack(child, found, out, recipe, "")


def differing_contents(one: int, other: int) -> Iterator[bytes]:
    """Yield where two full trees do not hold the same: names, types and contents.

    Sockets of *one* are passed over, for no archive has them.
    """
    for found in ChangeWalk(one, other, NoMarks(), comparison=ContentsOnly()):
        if found.kind is None or (found.status and stat.S_ISSOCK(found.status.st_mode)):
            continue
        if found.path and not (_is_directory(found.status) and _is_directory(found.before)):
            yield found.path


def _is_directory(status: os.stat_result | None) -> bool:
    return status is not None and stat.S_ISDIR(status.st_mode)


def tree_usage(tree: Tree) -> Usage:
    """Return what a tree occupies, hard links counted once; holes and inline data are free."""
    seen: set[tuple[int, int]] = set()
    size_bytes = sum(_account(status, seen) for status in _statuses(tree.root))
    return Usage(size_bytes, len(seen))


def files_bytes(root: int) -> int:
    """Return how long the files of a tree are together, hard links counted once; directories
    are free."""
    files = {
        (status.st_dev, status.st_ino): status.st_size
        for status in _statuses(root)
        if not stat.S_ISDIR(status.st_mode)
    }
    return sum(files.values())


def _statuses(root: int) -> Iterator[os.stat_result]:
    directories = [b""]
    for path in directories:  # grows on the way
        descriptor = open_directory(root, path)
        try:
            yield os.fstat(descriptor)
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        name = os.fsencode(entry.name)
                        directories.append(path + b"/" + name if path else name)
                    else:
                        yield entry.stat(follow_symlinks=False)
        finally:
            os.close(descriptor)


def _account(status: os.stat_result, seen: set[tuple[int, int]]) -> int:
    inode = (status.st_dev, status.st_ino)
    if inode in seen:
        return 0
    seen.add(inode)
    return status.st_blocks * 512


@contextmanager
def _changes_of(tree: Tree, *, kinds: bool = True) -> Iterator[Iterator[Found]]:
    lower = tree.lower() if tree.lower is not None else None
    try:
        marks = marks_of(tree)
        yield iter(ChangeWalk(tree.root, lower, marks, prefix=tree.xattr_prefix, kinds=kinds))
    finally:
        if lower is not None:
            os.close(lower)


def _comparison(
    parent: int | None, child: int, sealed_ns: int | None, candidates: Iterable[Change] | None
) -> Iterator[Found] | list[Found]:
    only = None if candidates is None else names_by_directory(change.path for change in candidates)
    walk = ChangeWalk(child, parent, NoMarks(), comparison=FullTrees(sealed_ns), only=only)
    return iter(walk) if parent is None else with_links(walk)


def _pack(
    root: int,
    found: Iterable[Found],
    out: BinaryIO,
    recipe: BinaryIO | None,
    prefix: str,
) -> Packed:
    kept = None if recipe is None else RecipeWriter(recipe)
    with Packer(root, TarWriter(out, kept), prefix) as packer:
        return packer.pack(found)


def _listed(found: Iterable[Found]) -> list[Change]:
    kinds: dict[bytes, ChangeKind] = {}
    for one in found:
        path = one.path
        if one.kind is None or not path:
            continue
        kinds[path] = one.kind
        parent = path.rpartition(b"/")[0]
        while parent and parent not in kinds:
            kinds[parent] = ChangeKind.MODIFIED
            parent = parent.rpartition(b"/")[0]
    return [Change(b"/" + path, kind) for path, kind in sorted(kinds.items())]
