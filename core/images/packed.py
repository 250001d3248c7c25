"""Images as archives hold them: a config, names, and where each layer's blob is.

The readers of both formats give these; the image service unpacks them.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Protocol

from msgspec import Struct

from ..errors import InvalidArchive, InvalidArgument
from .config import CONFIG_LIMIT_BYTES, ImageConfig, image_id, parse_config
from .documents import Json, Reader, load_json_object
from .reference import Reference, parse_reference
from .sources import Source, read_file

DOCUMENT_LIMIT_BYTES = 4 << 20
"""Manifests and indexes longer than this are refused (the limit of registries)."""

_DIGEST = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})")


class Hasher(Protocol):
    """What hashlib gives."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class Blob(Struct, frozen=True):
    """A file of an archive; *digest* and *size_bytes* are of its stored bytes, where known."""

    name: str
    digest: str | None = None
    size_bytes: int | None = None


class PackedImage(Struct, frozen=True):
    """One image of an archive; *layers* pair with the config's diffIDs, base first."""

    raw_config: bytes
    config: ImageConfig
    layers: tuple[Blob, ...]
    references: tuple[Reference, ...] = ()

    @property
    def id(self) -> str:
        return image_id(self.raw_config)


def packed_image(
    raw_config: bytes, layers: Sequence[Blob], references: Sequence[Reference]
) -> PackedImage:
    """Put an image together.

    Raises:
        InvalidArchive: if the config is not one, or does not have as many layers.
    """
    config = parse_config(raw_config)
    if len(config.diff_ids) != len(layers):
        raise InvalidArchive(
            "invalid manifest, layers length mismatch: "
            f"expected {len(config.diff_ids)}, got {len(layers)}"
        )
    return PackedImage(raw_config, config, tuple(layers), tuple(references))


def archived_reference(text: str) -> Reference:
    """Parse a name that an archive gives an image. Raises InvalidArchive."""
    try:
        return parse_reference(text)
    except InvalidArgument as error:
        raise InvalidArchive(f"invalid image name {text[:300]!r}", details=error.brief) from error


class Descriptor(Struct, frozen=True):
    """OCI's ``descriptor.md``: what a manifest or index says about a blob."""

    media_type: str
    digest: str
    size_bytes: int
    platform: Json
    annotations: Mapping[str, str]

    @property
    def blob(self) -> Blob:
        algorithm, _, value = self.digest.partition(":")
        return Blob(f"blobs/{algorithm}/{value}", self.digest, self.size_bytes)


def parse_descriptor(document: Json) -> Descriptor:
    """Read a descriptor.

    Raises:
        InvalidArchive: if a field has a wrong type or the digest is not sha256 or sha512.
    """
    reader = Reader(document, "descriptor")
    descriptor = Descriptor(
        reader.text("mediaType"),
        reader.text("digest"),
        reader.integer("size"),
        reader.mapping("platform"),
        reader.text_mapping("annotations"),
    )
    if not _DIGEST.fullmatch(descriptor.digest):
        raise InvalidArchive(
            f"invalid descriptor: {descriptor.digest[:160]!r} is no sha256 or sha512 digest"
        )
    return descriptor


def read_document(source: Source, descriptor: Descriptor, what: str) -> dict[str, object]:
    """Read a JSON blob whose size and digest are as *descriptor* says.

    Raises:
        InvalidArchive: if it is missing, is not what it should be, or is not a JSON object.
    """
    return load_json_object(read_blob(source, descriptor.blob), what, DOCUMENT_LIMIT_BYTES)


def read_blob(source: Source, blob: Blob) -> bytes:
    """Read a small blob whole; its digest and size are verified. Raises InvalidArchive."""
    limit = max(DOCUMENT_LIMIT_BYTES, CONFIG_LIMIT_BYTES)
    raw = read_file(source, blob.name, limit)
    check = _Check(blob)
    check.update(raw)
    check.finish()
    return raw


def read_named_document(source: Source, name: str) -> dict[str, object]:
    """Read a JSON object that has a name instead of a digest. Raises InvalidArchive."""
    raw = read_file(source, name, DOCUMENT_LIMIT_BYTES)
    return load_json_object(raw, name, DOCUMENT_LIMIT_BYTES)


class _Check:
    """Compares what was read of a blob with what is said of it."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        algorithm = (blob.digest or "sha256:").partition(":")[0]
        self._hasher: Hasher | None = hashlib.new(algorithm) if blob.digest else None
        self._algorithm = algorithm
        self._size = 0

    def update(self, block: bytes) -> None:
        self._size += len(block)
        if self._hasher is not None:
            self._hasher.update(block)

    def finish(self) -> None:
        expected = self._blob.size_bytes
        if expected is not None and expected != self._size:
            raise InvalidArchive(
                f"blob {self._blob.name} has another size than its descriptor says",
                details=f"{self._size} bytes, not {expected}",
            )
        if self._hasher is not None:
            actual = f"{self._algorithm}:{self._hasher.hexdigest()}"
            if actual != self._blob.digest:
                raise InvalidArchive(
                    f"blob {self._blob.name} does not have the digest that it should have",
                    details=f"it is {actual}, not {self._blob.digest}",
                )


class _CheckedStream(io.RawIOBase):
    def __init__(self, file: BinaryIO, check: _Check) -> None:
        self._file = file
        self._check = check

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # of bytes
        block = self._file.read(len(buffer))
        self._check.update(block)
        buffer[: len(block)] = block
        return len(block)


@contextmanager
def open_blob(source: Source, blob: Blob) -> Iterator[BinaryIO]:
    """Open a layer's blob; leaving the context reads what is left of it and compares it.

    Raises:
        InvalidArchive: on entering if it is missing, on leaving if its size or digest is wrong.
    """
    check = _Check(blob)
    with source.open(blob.name) as file:
        stream = io.BufferedReader(_CheckedStream(file, check), 1 << 16)
        yield stream
        while stream.read(1 << 20):
            pass
        check.finish()
