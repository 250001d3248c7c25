"""Saved archives are reproducible, hold each layer once and are readable in both formats."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest

from stowage.errors import DataLoss
from stowage.images.archives import open_archive
from stowage.images.config import Platform, image_id, parse_config
from stowage.images.packed import open_blob
from stowage.images.reference import parse_reference
from stowage.images.rows import Image, chain_of
from stowage.images.saving import ArchiveFormat, SavedImage, save_images

from .archive_makers import config, layer, sha256

HERE = Platform("linux", "amd64")
ONE, TWO, THREE = layer({"a": "1"}), layer({"b": "2"}), layer({"c": "3" * 5000})


def image(layers: Sequence[bytes], **more: object) -> Image:
    raw = config(layers, **more)
    return Image(image_id(raw), raw, parse_config(raw), (), 0)


def saved(
    images: Mapping[str, Sequence[bytes]], format: ArchiveFormat, spool: Path
) -> tuple[bytes, list[str]]:
    """Save images by name; return the archive and the chainIDs in the order they were asked for."""
    contents = {
        name: blob
        for layers in images.values()
        for name, blob in zip(
            chain_of(f"sha256:{sha256(one)}" for one in layers), layers, strict=True
        )
    }
    asked: list[str] = []

    def export(name: str, out: BinaryIO) -> str:
        asked.append(name)
        out.write(contents[name])
        return f"sha256:{sha256(contents[name])}"

    out = io.BytesIO()
    chosen = [
        SavedImage(image(layers), [parse_reference(name)] if name else [])
        for name, layers in images.items()
    ]
    save_images(chosen, out, format, export, spool)
    return out.getvalue(), asked


def unpacked(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        files = {}
        for member in opened:
            file = opened.extractfile(member)
            if file is not None:
                files[member.name] = file.read()
        return files


FORMATS: list[ArchiveFormat] = ["docker-archive", "oci-archive"]


@pytest.mark.parametrize("format", FORMATS)
def test_images_come_back_as_they_were(format: ArchiveFormat, tmp_path: Path) -> None:
    archive, _ = saved({"a:1": [ONE, TWO], "a:2": [ONE, THREE], "": [THREE]}, format, tmp_path)

    with open_archive(io.BytesIO(archive), tmp_path, HERE) as opened:
        assert [[str(one) for one in read.references] for read in opened.images] == [
            ["a:1"], ["a:2"], [],
        ]  # fmt: skip
        assert opened.images[0].raw_config == config([ONE, TWO])
        layers = []
        for blob in opened.images[1].layers:
            with open_blob(opened.source, blob) as stream:
                layers.append(stream.read())
        assert layers == [ONE, THREE]


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_images_give_the_same_bytes(format: ArchiveFormat, tmp_path: Path) -> None:
    images = {"a:1": [ONE, TWO]}

    assert saved(images, format, tmp_path)[0] == saved(images, format, tmp_path)[0]


def test_a_layer_that_images_share_is_written_once(tmp_path: Path) -> None:
    _, asked = saved(
        {"a:1": [ONE, TWO], "a:2": [ONE, TWO], "b:1": [TWO, ONE]}, FORMATS[0], tmp_path
    )

    assert len(asked) == 2


def test_every_blob_has_its_digest_as_its_name(tmp_path: Path) -> None:
    archive, _ = saved({"a:1": [ONE, TWO]}, "oci-archive", tmp_path)
    files = unpacked(archive)
    blobs = [name for name in files if name.startswith("blobs/")]

    assert len(blobs) == 4  # two layers, config, manifest
    assert all(name.endswith(hashlib.sha256(files[name]).hexdigest()) for name in blobs)


def test_a_docker_archive_has_what_docker_reads(tmp_path: Path) -> None:
    archive, _ = saved({"host.example/a:1": [ONE]}, "docker-archive", tmp_path)
    files = unpacked(archive)
    (entry,) = json.loads(files["manifest.json"])

    assert files[entry["Config"]] == config([ONE])
    assert [files[name] for name in entry["Layers"]] == [ONE]
    assert entry["RepoTags"] == ["host.example/a:1"]
    assert json.loads(files["repositories"]) == {"host.example/a": {"1": sha256(ONE)}}


def test_an_oci_archive_has_nothing_of_dockers(tmp_path: Path) -> None:
    archive, _ = saved({"a:1": [ONE]}, "oci-archive", tmp_path)

    assert {"manifest.json", "repositories"}.isdisjoint(unpacked(archive))


def test_a_layer_that_is_not_what_it_was_is_named(tmp_path: Path) -> None:
    def export(name: str, out: BinaryIO) -> str:
        out.write(TWO)
        return f"sha256:{sha256(TWO)}"

    with pytest.raises(DataLoss, match="has changed since it was added"):
        save_images([SavedImage(image([ONE]))], io.BytesIO(), "oci-archive", export, tmp_path)
    assert list(tmp_path.iterdir()) == []
