"""Archives of Docker before 1.10: ``repositories``, and a directory per layer.

::

    repositories      {"busybox": {"latest": "<id>"}}
    <id>/json         {"id": …, "parent": "<id>", "created": …, "config": {…}, …}
    <id>/layer.tar

They have no config as images have now; one is made of the chain of ``json`` files as
moby's ``image/v1`` did, so its id is the same as Docker would give it only by chance.
"""

from __future__ import annotations

import hashlib
import json
import re

from ..errors import InvalidArchive
from ..layers.compression import decompressed
from .documents import Json, Reader
from .packed import Blob, PackedImage, archived_reference, packed_image, read_named_document
from .reference import Reference
from .sources import Source

REPOSITORIES = "repositories"
_ID = re.compile(r"[0-9a-f]{64}")
_OF_ONE_LAYER = ("id", "parent", "Size", "parent_id", "layer_id", "throwaway")
_DEPTH_LIMIT = 500


def is_docker_v1_archive(source: Source) -> bool:
    """Tell whether the archive has a ``repositories``; ask for the newer formats first."""
    return REPOSITORIES in source


def read_docker_v1_archive(source: Source) -> list[PackedImage]:
    """Return the images of such an archive; the layers are read once to learn their diffIDs.

    Raises:
        InvalidArchive: naming what is missing or wrong.
    """
    document = read_named_document(source, REPOSITORIES)
    reader = Reader(document, REPOSITORIES)
    return [
        _image(source, identifier, archived_reference(f"{name}:{tag}"))
        for name in document
        for tag, identifier in reader.text_mapping(name).items()
    ]


def _image(source: Source, identifier: str, reference: Reference) -> PackedImage:
    steps = _steps(source, identifier)
    layers = [Blob(f"{name}/layer.tar") for name, _ in steps]
    top = {key: value for key, value in steps[-1][1].items() if key not in _OF_ONE_LAYER}
    top["rootfs"] = {"type": "layers", "diff_ids": [_diff_id(source, layer) for layer in layers]}
    top["history"] = [_history(step) for _, step in steps]
    raw = json.dumps(top, sort_keys=True, separators=(",", ":")).encode()
    return packed_image(raw, layers, [reference])


def _steps(source: Source, identifier: str) -> list[tuple[str, dict[str, object]]]:
    """Return (id, json) of every layer, base first."""
    steps: list[tuple[str, dict[str, object]]] = []
    while identifier:
        if not _ID.fullmatch(identifier) or len(steps) == _DEPTH_LIMIT:
            raise InvalidArchive(f"invalid image archive: {identifier[:80]!r} is no layer's id")
        document = read_named_document(source, f"{identifier}/json")
        steps.append((identifier, document))
        identifier = Reader(document, "layer").text("parent")
    steps.reverse()
    return steps


def _history(step: Json) -> dict[str, object]:
    reader = Reader(step, "layer")
    command = Reader(reader.mapping("container_config"), "container_config").texts("Cmd")
    entry = {
        "created": reader.text("created"),
        "author": reader.text("author"),
        "comment": reader.text("comment"),
        "created_by": " ".join(command),
    }
    return {key: text for key, text in entry.items() if text}


def _diff_id(source: Source, layer: Blob) -> str:
    hasher = hashlib.sha256()
    with source.open(layer.name) as file:
        plain = decompressed(file)
        while block := plain.read(1 << 20):
            hasher.update(block)
    return f"sha256:{hasher.hexdigest()}"
