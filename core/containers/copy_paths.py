"""Docker's rules of ``cp``: what a copy is called and where it goes (docker cp, "Extended
description"; moby, pkg/archive/copy.go)."""

from __future__ import annotations

import posixpath

from msgspec import Struct

from ..errors import FailedPrecondition, InvalidArgument, NotFound


class End(Struct, frozen=True):
    """The source or the destination of a copy: an absolute path as given, and what is there.

    *path* keeps its trailing ``/`` or ``/.``, which say that it is a directory (or its contents).
    """

    path: str
    exists: bool = True
    is_directory: bool = False

    @property
    def contents_only(self) -> bool:
        """Whether what is in the directory is meant, and not the directory."""
        return self.path.endswith("/.") or self.path == "/"

    @property
    def asserts_directory(self) -> bool:
        return self.path.endswith(("/", "/."))

    @property
    def clean(self) -> str:
        """The path in its shortest form."""
        return "/" + posixpath.normpath(self.path).lstrip("/")

    @property
    def name(self) -> str:
        return posixpath.basename(self.clean)

    @property
    def parent(self) -> str:
        return posixpath.dirname(self.clean)


class Copy(Struct, frozen=True):
    """How a copy is made: its entries called *base* (empty: by names of their own) are unpacked
    in *directory* of the destination."""

    base: str
    directory: str


def plan(source: End, destination: End) -> Copy:
    """Return how *source*, which exists, is copied to *destination*.

    Raises:
        FailedPrecondition: "cannot copy directory", in Docker's words.
        NotFound: "no such directory".
    """
    if destination.exists and destination.is_directory:
        return Copy("" if source.contents_only else source.name, destination.clean)
    if destination.exists and source.is_directory:
        raise FailedPrecondition("cannot copy directory")
    if not destination.exists and not source.is_directory and destination.asserts_directory:
        raise NotFound("directory", destination.path, brief="no such directory")
    return Copy(destination.name, destination.parent)


def split_argument(text: str) -> tuple[str | None, str]:
    """Return the container (None: the local machine) and the path that an argument means.

    A path that has a colon is local when it begins with ``/`` or ``.``.
    """
    container, colon, path = text.partition(":")
    if text.startswith("/") or not colon or container.startswith("."):
        return None, text
    return container, path


def split_arguments(source: str, destination: str) -> tuple[str | None, str, str | None, str]:
    """Return container and path of both ends, one of which is a container's.

    Raises:
        InvalidArgument: in Docker's words.
    """
    if not source:
        raise InvalidArgument("source can not be empty")
    if not destination:
        raise InvalidArgument("destination can not be empty")
    from_container, from_path = split_argument(source)
    to_container, to_path = split_argument(destination)
    if from_container and to_container:
        raise InvalidArgument("copying between containers is not supported")
    if not from_container and not to_container:
        raise InvalidArgument("must specify at least one container source")
    return from_container, from_path, to_container, to_path
