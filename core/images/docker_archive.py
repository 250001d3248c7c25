"""Docker's own archive format: ``manifest.json`` beside configs and layers.

::

    manifest.json      [{"Config": "<hex>.json", "RepoTags": ["a:b"], "Layers": [<path>]}]
    repositories       {"a": {"b": "<top layer>"}}   for readers older than manifest.json
    <hex>.json         the config
    <hex>/layer.tar    a layer; may be a link to another one's

Sources: moby ``image/tarexport``, image/spec v1.2. Since Docker 25 the paths point into the
``blobs/`` of an OCI layout in the same archive; both are read. Archives of Docker before 1.10,
which have ``repositories`` alone, are read by :mod:`.docker_v1`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import InvalidArchive
from .config import CONFIG_LIMIT_BYTES
from .documents import Json, Reader, load_json
from .packed import (
    DOCUMENT_LIMIT_BYTES,
    Blob,
    PackedImage,
    archived_reference,
    packed_image,
    read_blob,
)
from .reference import Reference
from .sources import Source, read_file

MANIFEST = "manifest.json"
_DIGEST_NAME = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")


def is_docker_archive(source: Source) -> bool:
    """Tell whether the archive has a ``manifest.json``."""
    return MANIFEST in source


def read_docker_archive(source: Source) -> list[PackedImage]:
    """Return the images of a docker-archive; no layer is read.

    Raises:
        InvalidArchive: naming what is missing or wrong.
    """
    raw = read_file(source, MANIFEST, DOCUMENT_LIMIT_BYTES)
    document = load_json(raw, MANIFEST, DOCUMENT_LIMIT_BYTES)
    entries = Reader({"images": document}, MANIFEST).objects("images")
    return [_image(source, entry) for entry in entries]


def _image(source: Source, entry: Json) -> PackedImage:
    reader = Reader(entry, MANIFEST)
    config = reader.text("Config")
    if not config:
        raise InvalidArchive(f"invalid {MANIFEST}: an image has no Config")
    references = [_tagged(text) for text in reader.texts("RepoTags")]
    layers = [_layer(name) for name in reader.texts("Layers")]
    for layer in layers:
        source.size(layer.name)  # so that a missing one is named before any is unpacked
    return packed_image(_config(source, config), layers, references)


def _config(source: Source, name: str) -> bytes:
    match = _DIGEST_NAME.fullmatch(name)
    if match is None:  # written by hand; nothing to hold it against
        return read_file(source, name, CONFIG_LIMIT_BYTES)
    return read_blob(source, Blob(name, f"sha256:{match[1]}"))


def _layer(name: str) -> Blob:
    """A layer by its path; only in ``blobs/`` is the path the digest of the stored bytes."""
    match = re.fullmatch(r"blobs/sha256/([0-9a-f]{64})", name)
    return Blob(name, f"sha256:{match[1]}" if match else None)


def _tagged(text: str) -> Reference:
    reference = archived_reference(text)
    if reference.tag is None:
        raise InvalidArchive(f"invalid {MANIFEST}: invalid tag {text!r}")
    return Reference(reference.name, reference.tag)


def manifest_entry(
    config: str, layers: Sequence[str], references: Sequence[Reference]
) -> dict[str, object]:
    """Return one image's entry of ``manifest.json``; all but the references are paths."""
    tags = [str(reference) for reference in references]
    return {"Config": config, "RepoTags": tags or None, "Layers": list(layers)}


def repositories(top_layer_by_reference: Mapping[Reference, str]) -> dict[str, dict[str, str]]:
    """Return the document ``repositories``: name, then tag, then the digest of the top layer."""
    document: dict[str, dict[str, str]] = {}
    for reference, layer in top_layer_by_reference.items():
        if reference.tag is not None:
            document.setdefault(reference.name, {})[reference.tag] = layer
    return document
