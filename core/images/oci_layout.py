"""OCI image layouts (image-spec ``image-layout.md``), in an archive or a directory.

::

    oci-layout                  {"imageLayoutVersion": "1.0.0"}
    index.json                  descriptors of manifests, or of indexes for several platforms
    blobs/sha256/<hex>          manifests, configs and layers by the digest of their bytes

Docker's manifest lists and schema 2 manifests have the same shape under other media types, and
are read alike.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InvalidArchive, NotSupported
from .config import Platform
from .documents import Json, Reader
from .packed import (
    Descriptor,
    PackedImage,
    archived_reference,
    packed_image,
    parse_descriptor,
    read_blob,
    read_document,
    read_named_document,
)
from .reference import Reference
from .sources import Source

LAYOUT, INDEX = "oci-layout", "index.json"
LAYOUT_VERSION = "1.0.0"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"

_CONFIG_TYPES = {CONFIG_TYPE, "application/vnd.docker.container.image.v1+json", ""}
_ATTESTATION = "vnd.docker.reference.type"
_DEPTH_LIMIT = 4  # of indexes within indexes


def is_oci_layout(source: Source) -> bool:
    """Tell whether the archive has an ``index.json``."""
    return INDEX in source


def read_oci_layout(source: Source, platform: Platform) -> list[PackedImage]:
    """Return the images of a layout; of each that is for several platforms, that for *platform*.

    Manifests, indexes and configs are verified by digest; no layer is read.

    Raises:
        InvalidArchive: naming what is missing or wrong.
        NotSupported: if there is no image for *platform*, saying for which there are.
    """
    _check_version(source)
    index = read_named_document(source, INDEX)
    return [
        _image(source, _chosen(source, group, platform, 0), _references(group))
        for group in _groups(_manifests(index, INDEX))
    ]


def _check_version(source: Source) -> None:
    if LAYOUT not in source:
        raise InvalidArchive(f"invalid OCI layout: it lacks {LAYOUT!r}")
    version = Reader(read_named_document(source, LAYOUT), LAYOUT).text("imageLayoutVersion")
    if version.partition(".")[0] != "1":
        raise InvalidArchive(f"unknown version {version!r} of the OCI image layout")


def _manifests(document: Json, what: str) -> list[Descriptor]:
    found = [parse_descriptor(entry) for entry in Reader(document, what).objects("manifests")]
    return [descriptor for descriptor in found if not _is_attestation(descriptor)]


def _is_attestation(descriptor: Descriptor) -> bool:
    """Whether it is BuildKit's statement about an image rather than an image."""
    return _ATTESTATION in descriptor.annotations or descriptor.platform.get("os") == "unknown"


def _groups(descriptors: Sequence[Descriptor]) -> list[list[Descriptor]]:
    """Put together what is one image: the same name for several platforms."""
    groups: dict[object, list[Descriptor]] = {}
    for position, descriptor in enumerate(descriptors):
        name = descriptor.annotations.get(IMAGE_NAME) or descriptor.annotations.get(REF_NAME)
        key: object = name or ("platforms" if descriptor.platform else position)
        groups.setdefault(key, []).append(descriptor)
    return list(groups.values())


def _references(group: Sequence[Descriptor]) -> list[Reference]:
    """Return the names of an image: containerd's annotation, else a full name in OCI's.

    OCI's may be a bare tag, which names nothing on its own.
    """
    found: dict[Reference, None] = {}
    for descriptor in group:
        text = descriptor.annotations.get(IMAGE_NAME, "")
        if not text:
            text = descriptor.annotations.get(REF_NAME, "")
            if ":" not in text and "/" not in text:
                continue
        found[archived_reference(text).recorded] = None
    return list(found)


def _chosen(
    source: Source, candidates: Sequence[Descriptor], platform: Platform, depth: int
) -> dict[str, object]:
    """Return the manifest of the candidate that runs on *platform*."""
    if depth > _DEPTH_LIMIT:
        raise InvalidArchive("invalid OCI layout: indexes within indexes without end")
    fitting = [one for one in candidates if _fits(one, platform)]
    if not fitting:
        _refuse_platforms(candidates, platform)
    exact = [one for one in fitting if one.platform.get("variant", "") == platform.variant]
    descriptor = (exact or fitting)[0]
    document = read_document(source, descriptor, "manifest")
    if "manifests" in document and ("layers" in document or "config" in document):
        raise InvalidArchive("ambiguous manifest: it is a manifest and an index at once")
    if "manifests" in document:
        return _chosen(source, _manifests(document, "index"), platform, depth + 1)
    return document


def _fits(descriptor: Descriptor, platform: Platform) -> bool:
    return not descriptor.platform or platform.runs(_platform(descriptor))


def _platform(descriptor: Descriptor) -> Platform:
    parts = (descriptor.platform.get(key, "") for key in ("os", "architecture", "variant"))
    os, architecture, variant = (part if isinstance(part, str) else "" for part in parts)
    return Platform(os, architecture, variant)


def _refuse_platforms(candidates: Sequence[Descriptor], platform: Platform) -> None:
    there = ", ".join(sorted({str(_platform(one)) for one in candidates}))
    raise NotSupported(
        f"no image for the platform {platform} in the archive",
        details=f"it has images for {there}" if there else "it has none for any platform",
    )


def _image(
    source: Source, manifest: dict[str, object], references: Sequence[Reference]
) -> PackedImage:
    reader = Reader(manifest, "manifest")
    config = parse_descriptor(reader.mapping("config"))
    layers = [parse_descriptor(entry) for entry in reader.objects("layers")]
    if config.media_type not in _CONFIG_TYPES:
        raise InvalidArchive(
            "the archive holds an artifact, not a container image", details=config.media_type
        )
    for layer in layers:
        source.size(layer.blob.name)  # so that a missing one is named before any is unpacked
    return packed_image(
        read_blob(source, config.blob), [layer.blob for layer in layers], references
    )
