"""Reading image archives: both formats, every compression, and nothing that they should not do."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from stowage.errors import InvalidArchive, NotSupported, StowageError
from stowage.images.archives import open_archive, open_layout
from stowage.images.config import Platform
from stowage.images.packed import PackedImage, open_blob

from .archive_makers import OciLayout, config, docker_files, layer, sha256, tar

HERE = Platform("linux", "amd64")
ONE, TWO = layer({"a": "1"}), layer({"b": "2"})


class Pipe(io.RawIOBase):
    """A stream that cannot seek."""

    def __init__(self, contents: bytes) -> None:
        self._file = io.BytesIO(contents)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # of bytes
        return self._file.readinto(buffer)


def read(archive: bytes, spool: Path) -> tuple[PackedImage, ...]:
    with open_archive(io.BytesIO(archive), spool, HERE) as opened:
        return opened.images


def layers_of(archive: bytes, spool: Path) -> list[bytes]:
    """The contents of every layer of every image."""
    with open_archive(io.BytesIO(archive), spool, HERE) as opened:
        contents = []
        for image in opened.images:
            for blob in image.layers:
                with open_blob(opened.source, blob) as stream:
                    contents.append(stream.read())
    return contents


def names(image: PackedImage) -> list[str]:
    return [str(reference) for reference in image.references]


# --- docker-archive ----------------------------------------------------------------------------


def test_a_docker_archive_gives_its_image_and_layers(tmp_path: Path) -> None:
    archive = tar(docker_files(["a:b", "host.example:5000/c/d:e"], [ONE, TWO]))
    (image,) = read(archive, tmp_path)

    assert image.id == f"sha256:{sha256(config([ONE, TWO]))}"
    assert names(image) == ["a:b", "host.example:5000/c/d:e"]
    assert image.config.config.cmd == ("sh",)
    assert layers_of(archive, tmp_path) == [ONE, TWO]


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["gzip", "bzip2", "xz", "zstd"],
)
def test_an_archive_may_be_compressed(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    archive = compress(tar(docker_files(["a:b"], [ONE])))

    assert layers_of(archive, tmp_path) == [ONE]
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_cannot_seek_is_spooled_to_a_nameless_file(tmp_path: Path) -> None:
    pipe = io.BufferedReader(Pipe(tar(docker_files([], [ONE]))))

    with open_archive(pipe, tmp_path, HERE) as opened:
        assert len(opened.images) == 1
        assert list(tmp_path.iterdir()) == []


def test_a_layer_may_be_a_link_to_another(tmp_path: Path) -> None:
    """Docker wrote equal layers once, and links for the rest."""
    raw = config([ONE, ONE])
    manifest = [{"Config": "c.json", "RepoTags": [], "Layers": ["x/layer.tar", "y/layer.tar"]}]
    archive = tar(
        {"x/layer.tar": ONE, "c.json": raw, "manifest.json": json.dumps(manifest).encode()},
        {"y/layer.tar": "../x/layer.tar"},
    )

    assert layers_of(archive, tmp_path) == [ONE, ONE]


@pytest.mark.parametrize("target", ["../../etc/passwd", "/etc/passwd", "y/layer.tar", "nowhere"])
def test_a_link_never_leads_out_of_the_archive(tmp_path: Path, target: str) -> None:
    manifest = [{"Config": "c.json", "RepoTags": [], "Layers": ["y/layer.tar"]}]
    archive = tar(
        {"c.json": config([ONE]), "manifest.json": json.dumps(manifest).encode()},
        {"y/layer.tar": target},
    )

    with pytest.raises(InvalidArchive, match=r"it lacks 'y/layer\.tar'"):
        read(archive, tmp_path)


def test_names_with_a_leading_dot_are_the_same_names(tmp_path: Path) -> None:
    files = docker_files(["a:b"], [ONE])

    assert layers_of(tar({f"./{name}": data for name, data in files.items()}), tmp_path) == [ONE]


def test_what_docker_25_writes_is_read_and_its_blobs_are_verified(tmp_path: Path) -> None:
    raw = config([ONE])
    manifest = [
        {
            "Config": f"blobs/sha256/{sha256(raw)}",
            "RepoTags": ["a:b"],
            "Layers": [f"blobs/sha256/{sha256(ONE)}"],
        }
    ]
    files = {
        f"blobs/sha256/{sha256(raw)}": raw,
        f"blobs/sha256/{sha256(ONE)}": ONE,
        "manifest.json": json.dumps(manifest).encode(),
    }
    assert layers_of(tar(files), tmp_path) == [ONE]

    files[f"blobs/sha256/{sha256(ONE)}"] = TWO

    with pytest.raises(InvalidArchive, match="does not have the digest"):
        layers_of(tar(files), tmp_path)


def test_an_archive_of_docker_before_1_10_is_read(tmp_path: Path) -> None:
    base, top = "1" * 64, "2" * 64
    files = {
        "repositories": json.dumps({"a": {"b": top}}).encode(),
        f"{base}/json": json.dumps(
            {"id": base, "created": "2015-01-01T00:00:00Z",
             "container_config": {"Cmd": ["/bin/sh", "-c", "#(nop) ADD"]}}
        ).encode(),
        f"{base}/layer.tar": ONE,
        f"{top}/json": json.dumps(
            {"id": top, "parent": base, "os": "linux", "architecture": "amd64",
             "config": {"Cmd": ["sh"]}}
        ).encode(),
        f"{top}/layer.tar": TWO,
    }  # fmt: skip
    (image,) = read(tar(files), tmp_path)

    assert names(image) == ["a:b"]
    assert image.config.diff_ids == (f"sha256:{sha256(ONE)}", f"sha256:{sha256(TWO)}")
    assert image.config.config.cmd == ("sh",)
    assert image.config.history[0].created_by == "/bin/sh -c #(nop) ADD"
    assert layers_of(tar(files), tmp_path) == [ONE, TWO]


def test_a_chain_without_end_is_refused(tmp_path: Path) -> None:
    one = "1" * 64
    files = {
        "repositories": json.dumps({"a": {"b": one}}).encode(),
        f"{one}/json": json.dumps({"id": one, "parent": one}).encode(),
    }

    with pytest.raises(InvalidArchive, match="is no layer's id"):
        read(tar(files), tmp_path)


# --- oci-archive -------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
def test_an_oci_archive_gives_its_image_and_layers(tmp_path: Path, zipped: bool) -> None:
    layout = OciLayout()
    layout.add(layout.manifest([ONE, TWO], zipped=zipped), name="a:b", ref="b")
    archive = tar(layout.all_files())
    (image,) = read(archive, tmp_path)

    assert names(image) == ["a:b"]
    assert image.id == f"sha256:{sha256(config([ONE, TWO]))}"
    contents = layers_of(archive, tmp_path)
    assert [gzip.decompress(one) if zipped else one for one in contents] == [ONE, TWO]


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({"ref": "host.example/a:b"}, ["host.example/a:b"]),
        ({"ref": "a:b"}, ["a:b"]),
        ({"ref": "latest"}, []),
        ({"name": "a"}, ["a:latest"]),
        ({}, []),
    ],
)
def test_a_name_is_taken_from_either_annotation(
    tmp_path: Path, annotations: dict[str, str], expected: list[str]
) -> None:
    """A bare tag names nothing."""
    layout = OciLayout()
    layout.add(layout.manifest([ONE]), **annotations)

    assert names(read(tar(layout.all_files()), tmp_path)[0]) == expected


def platform(architecture: str, variant: str = "") -> dict[str, str]:
    return {"os": "linux", "architecture": architecture, "variant": variant}


def test_of_several_platforms_this_one_is_taken(tmp_path: Path) -> None:
    """Whether they are in an index of their own or at the top, attestations left out."""
    layout = OciLayout()
    foreign = {**layout.manifest([TWO]), "platform": platform("arm64", "v8")}
    ours = {**layout.manifest([ONE]), "platform": platform("amd64")}
    statement = {**layout.manifest([]), "platform": {"os": "unknown", "architecture": "unknown"}}
    nested = OciLayout(dict(layout.files))
    nested.add(nested.index([foreign, ours, statement]), name="a:b")
    for descriptor in (foreign, ours, statement):
        layout.add(descriptor, name="a:b")

    for one in (nested, layout):
        (image,) = read(tar(one.all_files()), tmp_path)
        assert image.config.diff_ids == (f"sha256:{sha256(ONE)}",)
        assert names(image) == ["a:b"]


def test_a_missing_platform_is_said_with_those_that_there_are(tmp_path: Path) -> None:
    layout = OciLayout()
    foreign = {**layout.manifest([ONE]), "platform": platform("arm", "v7")}
    layout.add(layout.index([foreign]), name="a:b")

    with pytest.raises(NotSupported, match="linux/amd64") as caught:
        read(tar(layout.all_files()), tmp_path)
    assert "linux/arm/v7" in str(caught.value)


def test_several_images_are_all_read(tmp_path: Path) -> None:
    layout = OciLayout()
    layout.add(layout.manifest([ONE]), name="a:1")
    layout.add(layout.manifest([TWO]), name="a:2")

    assert [names(image) for image in read(tar(layout.all_files()), tmp_path)] == [["a:1"], ["a:2"]]


def test_a_blob_that_was_changed_is_named(tmp_path: Path) -> None:
    layout = OciLayout()
    layout.add(layout.manifest([ONE]))
    files = layout.all_files()
    changed = f"blobs/sha256/{sha256(ONE)}"
    files[changed] = TWO + bytes(len(ONE) - len(TWO))

    with pytest.raises(InvalidArchive, match=changed):
        layers_of(tar(files), tmp_path)


def test_every_document_is_verified_by_its_digest(tmp_path: Path) -> None:
    layout = OciLayout()
    layout.add(layout.manifest([ONE]))
    whole = layout.all_files()
    documents = [name for name in whole if name.startswith("blobs/") and b"{" in whole[name][:1]]
    assert len(documents) == 2  # config and manifest

    for name in documents:
        with pytest.raises(InvalidArchive, match=name):
            read(tar({**whole, name: whole[name].replace(b":", b" :", 1)}), tmp_path)


@pytest.mark.parametrize("removed", ["config", "manifest", "layer", "index.json", "oci-layout"])
def test_what_is_missing_is_named(tmp_path: Path, removed: str) -> None:
    layout = OciLayout()
    descriptor = layout.manifest([ONE])
    layout.add(descriptor)
    files = layout.all_files()
    digests = {
        "config": sha256(config([ONE])),
        "manifest": str(descriptor["digest"]).removeprefix("sha256:"),
        "layer": sha256(ONE),
    }
    name = f"blobs/sha256/{digests[removed]}" if removed in digests else removed
    del files[name]

    with pytest.raises(InvalidArchive, match=re.escape(name[-20:])):
        read(tar(files), tmp_path)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"manifests": 1}, "manifests should be a list"),
        ({"manifests": [{"digest": "sha256:../../x", "size": 1}]}, "is no sha256 or sha512 digest"),
        ({"manifests": [{"digest": "md5:" + "a" * 32, "size": 1}]}, "is no sha256 or sha512"),
        ([], "expected a JSON object"),
    ],
)
def test_a_malformed_index_is_refused(tmp_path: Path, document: object, words: str) -> None:
    files = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(document).encode(),
    }

    with pytest.raises(InvalidArchive, match=words):
        read(tar(files), tmp_path)


def test_a_manifest_that_is_an_index_as_well_is_refused(tmp_path: Path) -> None:
    """CVE-2021-41190: two readers would see two images."""
    layout = OciLayout()
    document: dict[str, object] = {"manifests": [], "config": {}, "layers": []}
    layout.add(layout.blob(json.dumps(document).encode(), "application/json"))

    with pytest.raises(InvalidArchive, match="ambiguous"):
        read(tar(layout.all_files()), tmp_path)


def test_indexes_within_indexes_without_end_are_refused(tmp_path: Path) -> None:
    layout = OciLayout()
    descriptor = layout.manifest([ONE])
    for _ in range(10):
        descriptor = layout.index([descriptor])
    layout.add(descriptor)

    with pytest.raises(InvalidArchive, match="without end"):
        read(tar(layout.all_files()), tmp_path)


def test_an_artifact_is_no_image(tmp_path: Path) -> None:
    layout = OciLayout()
    document = {"config": layout.blob(b"{}", "application/vnd.oci.empty.v1+json"), "layers": []}
    layout.add(layout.blob(json.dumps(document).encode(), "application/json"))

    with pytest.raises(InvalidArchive, match="artifact"):
        read(tar(layout.all_files()), tmp_path)


def test_a_layout_in_a_directory_is_read_and_its_links_are_not(tmp_path: Path) -> None:
    layout = OciLayout()
    layout.add(layout.manifest([ONE]), name="a:b")
    root = tmp_path / "layout"
    for name, contents in layout.all_files().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(contents)
    with open_layout(root, HERE) as opened:
        assert names(opened.images[0]) == ["a:b"]

    secret = tmp_path / "secret"
    secret.write_bytes(ONE)
    blob = root / "blobs/sha256" / sha256(ONE)
    blob.unlink()
    blob.symlink_to(secret)

    with pytest.raises(InvalidArchive, match=sha256(ONE)), open_layout(root, HERE):
        pass


# --- junk --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "junk",
    [b"", b"\0" * 10240, b"hello", b"\x1f\x8bjunk", b"BZh9junk", random.Random(1).randbytes(5000)],
    ids=["empty", "zeros", "text", "gzip", "bzip2", "random"],
)
def test_junk_is_refused_and_leaves_nothing(tmp_path: Path, junk: bytes) -> None:
    with pytest.raises(InvalidArchive):
        read(junk, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_tar_archive_of_something_else_is_named_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidArchive, match=r"neither manifest\.json nor index\.json") as caught:
        read(ONE, tmp_path)
    assert "import" in str(caught.value)


def test_a_huge_extended_header_is_not_read_into_memory(tmp_path: Path) -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 64 << 20
    archive = member.tobuf() + bytes(65 << 20)

    with pytest.raises(InvalidArchive, match="extended header is too long"):
        read(archive, tmp_path)


def test_a_document_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArchive, match="too long"):
        read(tar({"manifest.json": b" " * (5 << 20)}), tmp_path)


@pytest.mark.parametrize("kind", ["docker", "oci", "docker.gz"])
def test_damage_of_any_kind_is_refused_or_changes_nothing(tmp_path: Path, kind: str) -> None:
    """Truncation and flipped bits end in an error of ours, or the same layers come out."""
    layout = OciLayout()
    layout.add(layout.manifest([ONE, TWO]), name="a:b")
    files = layout.all_files() if kind == "oci" else docker_files(["a:b"], [ONE, TWO])
    archive = tar(files)
    if kind.endswith("gz"):
        archive = gzip.compress(archive)
    expected = layers_of(archive, tmp_path)
    dice = random.Random(7)

    for _ in range(150):
        damaged = bytearray(archive)
        if dice.random() < 0.3:
            del damaged[dice.randrange(len(damaged)) :]
        for _ in range(dice.randrange(1, 4)):
            if damaged:
                damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        try:
            contents = layers_of(bytes(damaged), tmp_path)
        except StowageError:
            continue
        # a docker-archive holds no digest of a layer: it is verified when it is unpacked
        assert kind != "oci" or contents == expected
    assert list(tmp_path.iterdir()) == []
