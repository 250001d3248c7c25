"""Saving images: a docker-archive or an oci-archive, the layers byte for byte.

::

    blobs/sha256/<hex>     layers, configs and OCI manifests, each once however often it is used
    index.json             one descriptor per image and name
    oci-layout
    manifest.json          docker-archive only
    repositories           docker-archive only

A docker-archive is an OCI layout as well, as Docker has written it since version 25. Layers are
not compressed, so a blob's digest is the layer's diffID. The same images give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from msgspec import Struct, field

from ..errors import DataLoss
from .docker_archive import MANIFEST, manifest_entry, repositories
from .docker_v1 import REPOSITORIES
from .oci_layout import (
    CONFIG_TYPE,
    IMAGE_NAME,
    INDEX,
    INDEX_TYPE,
    LAYER_TYPE,
    LAYOUT,
    LAYOUT_VERSION,
    MANIFEST_TYPE,
    REF_NAME,
)
from .reference import Reference
from .rows import Image
from .spool import new_spool
from .tarwriter import TarWriter

ArchiveFormat = Literal["docker-archive", "oci-archive"]
Export = Callable[[str, BinaryIO], str]
"""Writes the layer with a chainID and returns its diffID."""


class SavedImage(Struct):
    """An image to save, and under which of its names."""

    image: Image
    references: list[Reference] = field(default_factory=list)


def save_images(
    images: Sequence[SavedImage],
    out: BinaryIO,
    format: ArchiveFormat,
    export: Export,
    spool_directory: Path,
) -> None:
    """Write an archive of *images* to *out*, which need not be able to seek.

    Raises:
        DataLoss: if a layer is not what it was when it was added.
        NoSpace: if there is no room below *spool_directory* for the largest layer.
    """
    _Saver(TarWriter(out), export, spool_directory).save(images, format)


class _Saver:
    def __init__(self, archive: TarWriter, export: Export, spool_directory: Path) -> None:
        self._archive = archive
        self._export = export
        self._spool_directory = spool_directory
        self._size_by_digest: dict[str, int] = {}

    def save(self, images: Sequence[SavedImage], format: ArchiveFormat) -> None:
        self._archive.directory("blobs")
        self._archive.directory("blobs/sha256")
        index = [descriptor for saved in images for descriptor in self._image(saved)]
        self._archive.file(INDEX, _json(_index(index)))
        self._archive.file(LAYOUT, _json({"imageLayoutVersion": LAYOUT_VERSION}))
        if format == "docker-archive":
            self._archive.file(MANIFEST, _json([_manifest_entry(saved) for saved in images]))
            tops = {
                reference: saved.image.config.diff_ids[-1].removeprefix("sha256:")
                for saved in images
                for reference in saved.references
                if saved.image.config.diff_ids
            }
            self._archive.file(REPOSITORIES, _json(repositories(tops)))
        self._archive.close()

    def _image(self, saved: SavedImage) -> Iterable[dict[str, object]]:
        """Write an image's blobs; return its descriptors for the index."""
        image = saved.image
        for chain_id, diff_id in zip(image.chain, image.config.diff_ids, strict=True):
            self._layer(chain_id, diff_id)
        config = self._blob(image.raw_config, CONFIG_TYPE)
        layers = [
            _descriptor(LAYER_TYPE, diff_id, self._size_by_digest[diff_id])
            for diff_id in image.config.diff_ids
        ]
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers,
        }  # fmt: skip
        descriptor = self._blob(_json(manifest), MANIFEST_TYPE)
        if not saved.references:
            return [descriptor]
        return [
            {**descriptor, "annotations": _annotations(reference)} for reference in saved.references
        ]

    def _blob(self, contents: bytes, media_type: str) -> dict[str, object]:
        digest = "sha256:" + hashlib.sha256(contents).hexdigest()
        if digest not in self._size_by_digest:
            self._size_by_digest[digest] = len(contents)
            self._archive.file(_blob_name(digest), contents)
        return _descriptor(media_type, digest, len(contents))

    def _layer(self, chain_id: str, diff_id: str) -> None:
        """Write a layer; by way of a nameless file, for its size stands before it."""
        if diff_id in self._size_by_digest:
            return
        with new_spool(self._spool_directory) as spool:
            actual = self._export(chain_id, spool)
            if actual != diff_id:
                raise DataLoss(
                    f"layer {chain_id} has changed since it was added",
                    details=f"its diffID is {actual}, not {diff_id}",
                )
            size = self._size_by_digest[diff_id] = spool.tell()
            spool.seek(0)
            self._archive.stream(_blob_name(diff_id), size, spool)


def _manifest_entry(saved: SavedImage) -> dict[str, object]:
    layers = [_blob_name(diff_id) for diff_id in saved.image.config.diff_ids]
    return manifest_entry(_blob_name(saved.image.id), layers, saved.references)


def _index(descriptors: Sequence[dict[str, object]]) -> dict[str, object]:
    return {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": descriptors}


def _annotations(reference: Reference) -> dict[str, str]:
    """A name for containerd, Docker and us, and its tag for those who read the OCI's alone."""
    return {IMAGE_NAME: str(reference), REF_NAME: reference.tag or str(reference)}


def _descriptor(media_type: str, digest: str, size_bytes: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest, "size": size_bytes}


def _blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
