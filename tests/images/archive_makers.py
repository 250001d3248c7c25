"""Image archives made by hand with Python's tarfile, so that readers are not held against our
own writer."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


def sha256(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()


def layer(files: Mapping[str, str]) -> bytes:
    """A layer with these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


def config(layers: Sequence[bytes], **more: object) -> bytes:
    """A config over these layers (not compressed)."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": {"Cmd": ["sh"], "Env": ["A=1"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(one)}" for one in layers]},
        "history": [{"created_by": f"step {n}"} for n in range(len(layers))],
    }
    return json.dumps({**document, **more}, indent=1).encode()


def tar(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """An archive of plain files, and symbolic links."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
        for name, contents in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents))
    return out.getvalue()


def docker_files(tags: Sequence[str], layers: Sequence[bytes], **more: object) -> dict[str, bytes]:
    """The files of a docker-archive with one image, as Docker 20.10 lays them out."""
    raw = config(layers, **more)
    manifest = [
        {
            "Config": f"{sha256(raw)}.json",
            "RepoTags": list(tags) or None,
            "Layers": [f"{sha256(one)}/layer.tar" for one in layers],
        }
    ]
    files = {f"{sha256(one)}/layer.tar": one for one in layers}
    return {**files, f"{sha256(raw)}.json": raw, "manifest.json": json.dumps(manifest).encode()}


@dataclass
class OciLayout:
    """An OCI image layout that grows image by image."""

    files: dict[str, bytes] = field(default_factory=dict)
    descriptors: list[dict[str, object]] = field(default_factory=list)

    def blob(self, contents: bytes, media_type: str) -> dict[str, object]:
        self.files[f"blobs/sha256/{sha256(contents)}"] = contents
        return {
            "mediaType": media_type, "digest": f"sha256:{sha256(contents)}", "size": len(contents),
        }  # fmt: skip

    def manifest(self, layers: Sequence[bytes], *, zipped: bool = False, **more: object):  # type: ignore[no-untyped-def]  # a descriptor
        blobs = [
            self.blob(gzip.compress(one), f"{LAYER_TYPE}+gzip") if zipped
            else self.blob(one, LAYER_TYPE)
            for one in layers
        ]  # fmt: skip
        document = {
            "schemaVersion": 2,
            "config": self.blob(config(layers, **more), CONFIG_TYPE),
            "layers": blobs,
        }
        return self.blob(json.dumps(document).encode(), MANIFEST_TYPE)

    def index(self, descriptors: Sequence[Mapping[str, object]]) -> dict[str, object]:
        document = {"schemaVersion": 2, "manifests": list(descriptors)}
        return self.blob(json.dumps(document).encode(), INDEX_TYPE)

    def add(self, descriptor: Mapping[str, object], **annotations: str) -> None:
        names = {
            "name": "io.containerd.image.name", "ref": "org.opencontainers.image.ref.name",
        }  # fmt: skip
        noted = {names[key]: value for key, value in annotations.items()}
        self.descriptors.append({**descriptor, "annotations": noted} if noted else {**descriptor})

    def all_files(self) -> dict[str, bytes]:
        index = {"schemaVersion": 2, "manifests": self.descriptors}
        return {
            **self.files,
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": json.dumps(index).encode(),
        }
