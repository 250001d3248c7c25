"""Opening an image archive of any format, told by what is in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct
from msgspec.structs import replace

from ..errors import InvalidArchive
from .config import Platform, this_platform
from .docker_archive import is_docker_archive, read_docker_archive
from .docker_v1 import is_docker_v1_archive, read_docker_v1_archive
from .oci_layout import is_oci_layout, read_oci_layout
from .packed import Blob, PackedImage
from .sources import DirectorySource, Source, tar_source


class ImageArchive(Struct, frozen=True):
    """An open archive: its images, and the source that their layers are read from."""

    source: Source
    images: tuple[PackedImage, ...]


@contextmanager
def open_archive(
    stream: BinaryIO, spool_directory: Path, platform: Platform | None = None
) -> Iterator[ImageArchive]:
    """Open a docker-archive or oci-archive of any compression while the context lasts.

    All documents are read and verified before this returns; no layer is. An archive that is
    both (Docker 25 and later) is read as Docker's.

    Raises:
        InvalidArchive: if it is neither, or damaged; naming what is missing or wrong.
        NotSupported: if it has no image for *platform* (default: this machine's).
        NoSpace: if there is no room below *spool_directory* for one that must be spooled.
    """
    with tar_source(stream, spool_directory) as source:
        images = _images(source, platform or this_platform())
        yield ImageArchive(source, _merged(images))


@contextmanager
def open_layout(path: Path, platform: Platform | None = None) -> Iterator[ImageArchive]:
    """Open an OCI image layout in a directory; as :func:`open_archive`."""
    source = DirectorySource(path)
    try:
        images = read_oci_layout(source, platform or this_platform())
        yield ImageArchive(source, _merged(images))
    finally:
        source.close()


def _merged(images: Iterable[PackedImage]) -> tuple[PackedImage, ...]:
    """Put together what is the same image under several names."""
    merged: dict[tuple[str, tuple[Blob, ...]], PackedImage] = {}
    for image in images:
        key = (image.id, image.layers)
        before = merged.get(key)
        if before is not None:
            names = dict.fromkeys((*before.references, *image.references))
            image = replace(before, references=tuple(names))
        merged[key] = image
    return tuple(merged.values())


def _images(source: Source, platform: Platform) -> list[PackedImage]:
    if is_docker_archive(source):
        return read_docker_archive(source)
    if is_oci_layout(source):
        return read_oci_layout(source, platform)
    if is_docker_v1_archive(source):
        return read_docker_v1_archive(source)
    raise InvalidArchive(
        "not an image archive: it has neither manifest.json nor index.json",
        resolution="an archive of a root file system is read by 'import'",
    )
