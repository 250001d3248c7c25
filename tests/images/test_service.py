"""Images in a real root: made, named, listed, loaded, saved and brought to another driver."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stowage.engine import Engine
from stowage.errors import InvalidArchive, InvalidArgument, NotFound
from stowage.images.config import RunConfig
from stowage.images.rows import Image
from stowage.images.service import Images

from .archive_makers import OciLayout, config, docker_files, layer, sha256, tar

pytestmark = pytest.mark.requires("root")  # layers hold files of root

ONE, TWO = layer({"a": "1"}), layer({"b": "2"})


def imported(images: Images, name: str | None = "base", text: str = "1") -> Image:
    return images.import_tree(io.BytesIO(layer({"a": text})), name)


def layer_names(engine: Engine) -> list[str]:
    return [info.name for info in engine.layers.walk()]


# --- made --------------------------------------------------------------------------------------


def test_import_makes_an_image_of_a_tree(images: Images) -> None:
    image = images.import_tree(io.BytesIO(ONE), "a", changes=['CMD ["sh"]', "ENV A=1"])

    assert image.tags == ("a:latest",)
    assert image.config.diff_ids == (f"sha256:{sha256(ONE)}",)
    assert image.config.config == RunConfig(cmd=("sh",), env=("A=1",))
    assert image.config.comment == "Imported from -"
    assert images.resolve("a") == image


def test_import_with_a_wrong_change_reads_nothing(images: Images, engine: Engine) -> None:
    with pytest.raises(InvalidArgument, match="not a valid change command"):
        images.import_tree(io.BytesIO(ONE), "a", changes=["RUN x"])
    assert layer_names(engine) == []


def test_import_of_junk_leaves_nothing(images: Images, engine: Engine) -> None:
    with pytest.raises(InvalidArchive):
        images.import_tree(io.BytesIO(b"junk" * 1000), "a")
    assert layer_names(engine) == []
    assert images.list() == []


def test_import_with_a_given_time_gives_the_same_image(images: Images) -> None:
    first = images.import_tree(io.BytesIO(ONE), "a", created_ns=5)

    assert images.import_tree(io.BytesIO(ONE), "b", created_ns=5).id == first.id


def test_create_puts_a_layer_on_its_parent(images: Images) -> None:
    base = imported(images)
    image = images.create(
        base, io.BytesIO(TWO), changes=["USER 1"], reference="made:1", created_by="sh", author="me"
    )

    assert image.config.diff_ids == (*base.config.diff_ids, f"sha256:{sha256(TWO)}")
    assert image.config.config.user == "1"
    assert image.parent_id == base.id
    assert [entry.created_by for entry in image.config.history] == ["", "sh"]


def test_create_without_a_layer_changes_the_config_alone(images: Images) -> None:
    base = imported(images)
    image = images.create(base, None, changes=["LABEL a=b"])

    assert image.config.diff_ids == base.config.diff_ids
    assert image.config.history[-1].empty_layer
    assert image.id != base.id


# --- found -------------------------------------------------------------------------------------


def test_an_image_is_found_by_name_id_and_prefix(images: Images) -> None:
    image = imported(images, "a:1")

    for text in ("a:1", image.id, image.short_id, image.id[7:8], image.id[7:], image.id[:20]):
        assert images.resolve(text).id == image.id
    for text in ("nosuch", "a:2", "g", "0" * 64, "sha256:" + "0" * 64):
        with pytest.raises(NotFound, match=f"No such image: {text}"):
            images.resolve(text)


def test_a_prefix_of_several_ids_is_ambiguous(images: Images) -> None:
    ids = [imported(images, None, str(n)).id[7:8] for n in range(17)]
    twice = next(digit for digit in ids if ids.count(digit) > 1)

    with pytest.raises(InvalidArgument, match="is ambiguous"):
        images.resolve(twice)


def test_a_name_wins_over_the_beginning_of_an_id(images: Images) -> None:
    first, other = imported(images, None, "1"), imported(images, None, "2")
    images.tag(first.id, other.short_id)

    assert images.resolve(other.short_id).id == first.id


def test_tag_moves_a_name(images: Images) -> None:
    first, second = imported(images, "a", "1"), imported(images, "b", "2")
    images.tag("b", "a")

    assert images.resolve("a").id == second.id
    assert images.resolve(first.id).references == ()
    with pytest.raises(NotFound, match="No such image: nosuch"):
        images.tag("nosuch", "d")


def test_the_list_has_dockers_filters(images: Images) -> None:
    base = imported(images, "base:1")
    top = images.create(base, io.BytesIO(TWO), changes=["LABEL a=b"], reference="host.x/top:2")
    loose = images.create(top, None)

    def listed(*filters: str) -> set[str]:
        return {image.id for image in images.list(filters)}

    assert [image.id for image in images.list()] == [loose.id, top.id, base.id]
    assert listed("dangling=true") == {loose.id}
    assert listed("dangling=false") == {top.id, base.id}
    assert listed("reference=base*") == {base.id}
    assert listed("reference=base", "reference=*/top:2") == {base.id, top.id}
    assert listed("label=a") == {top.id, loose.id}
    assert listed("label=a=c") == set()
    assert listed("before=host.x/top:2") == {base.id}
    assert listed("since=base:1") == {top.id, loose.id}
    for wrong in ("danglin=true", "dangling", "dangling=maybe"):
        with pytest.raises(InvalidArgument):
            listed(wrong)


def test_nameless_parents_are_listed_only_when_asked_for(images: Images) -> None:
    base = imported(images, None)
    top = images.create(base, None, reference="top")

    assert [image.id for image in images.list()] == [top.id]
    assert len(images.list(intermediate=True)) == 2


# --- shown -------------------------------------------------------------------------------------


def test_inspect_has_the_fields_of_docker(images: Images, engine: Engine) -> None:
    reference = Path(__file__).parent / "docker-inspect.json"
    image = imported(images, "busybox")
    document = images.inspect(image)
    (docker,) = json.loads(reference.read_text())

    assert set(document) == set(docker)
    assert {key: type(value) for key, value in document.items()} == {
        key: type(value) for key, value in docker.items()
    }
    assert set(document["Config"]) == set(docker["Config"])  # type: ignore[call-overload]  # a dict
    assert document["RootFS"] == {"Type": "layers", "Layers": list(image.config.diff_ids)}
    assert document["GraphDriver"]["Name"] == "vfs"  # type: ignore[index]  # a dict
    assert document["Size"] == images.size_bytes(image)


def test_the_size_is_the_sum_of_the_recorded_layers(images: Images, engine: Engine) -> None:
    image = images.create(imported(images), io.BytesIO(TWO))
    usages = [engine.layers.usage(name).size_bytes for name in image.chain]

    assert images.size_bytes(image) == sum(usages)


def test_history_tells_the_steps_newest_first(images: Images) -> None:
    base = imported(images, "base")
    top = images.create(base, io.BytesIO(TWO), created_by="sh -c x", comment="c", reference="top")
    lines = images.history(images.create(top, None, created_by="#(nop) CMD"))

    assert [line.created_by for line in lines] == ["#(nop) CMD", "sh -c x", ""]
    assert [line.id for line in lines][1:] == [top.id, base.id]
    assert lines[0].size_bytes == 0
    assert lines[1].tags == ("top:latest",)
    assert lines[2].comment == "Imported from -"


# --- loaded and saved --------------------------------------------------------------------------


def load(images: Images, files: dict[str, bytes]) -> tuple[list[Image], list[str]]:
    told: list[str] = []
    return list(images.load(io.BytesIO(tar(files)), tell=told.append)), told


@pytest.mark.parametrize("zipped", [False, True])
def test_both_formats_load_to_the_same_image(images: Images, engine: Engine, zipped: bool) -> None:
    layout = OciLayout()
    layout.add(layout.manifest([ONE, TWO], zipped=zipped), name="a:oci")
    (first,), told = load(images, docker_files(["a:docker"], [ONE, TWO]))
    (second,), _ = load(images, layout.all_files())

    assert first.id == second.id == f"sha256:{sha256(config([ONE, TWO]))}"
    assert told == ["Loaded image: a:docker"]
    assert second.tags == ("a:docker", "a:oci")
    assert len(layer_names(engine)) == 2


@pytest.mark.requires_root
def test_a_loaded_image_holds_its_files(images: Images, engine: Engine) -> None:
    (image,), _ = load(images, docker_files([], [ONE, TWO]))
    assert image.top is not None
    engine.layers.view("look", image.top)

    with engine.layers.mounted("look") as root:
        assert {path.name: path.read_text() for path in root.iterdir()} == {"a": "1", "b": "2"}
    engine.layers.remove("look")


def test_a_name_that_meant_another_image_is_said(images: Images) -> None:
    before = imported(images, "a:b", "old")
    _, told = load(images, docker_files(["a:b"], [ONE]))

    assert told[0] == (
        f"The image a:b already exists, renaming the old one with ID {before.id} to empty string"
    )


def test_an_image_without_a_name_is_told_by_its_id(images: Images) -> None:
    (image,), told = load(images, docker_files([], [ONE]))

    assert told == [f"Loaded image ID: {image.id}"]


def test_a_layer_that_the_config_does_not_name_is_refused_and_leaves_nothing(
    images: Images, engine: Engine
) -> None:
    files = docker_files(["a:b"], [ONE, TWO])
    files[f"{sha256(TWO)}/layer.tar"] = layer({"evil": "x"})

    with pytest.raises(InvalidArchive, match=f"layer {sha256(TWO)}/layer.tar"):
        load(images, files)
    assert layer_names(engine) == []
    assert images.list() == []


def test_of_several_images_all_are_loaded_or_none(images: Images, engine: Engine) -> None:
    layout = OciLayout()
    layout.add(layout.manifest([ONE]), name="a:1")
    layout.add(layout.manifest([TWO]), name="a:2")
    files = layout.all_files()
    files[f"blobs/sha256/{sha256(TWO)}"] = b"x" * len(TWO)

    with pytest.raises(InvalidArchive):
        load(images, files)
    assert images.list() == []
    assert layer_names(engine) == []


def test_a_hostile_layer_touches_nothing_outside(
    images: Images, engine: Engine, shm_dir: Path
) -> None:
    evil = layer({"../../../../../escaped": "x"})

    try:
        load(images, docker_files(["a:b"], [evil]))
    except InvalidArchive:
        pass
    assert not any(path.name == "escaped" for path in shm_dir.iterdir())


@pytest.mark.parametrize("format", ["docker-archive", "oci-archive"])
def test_what_is_saved_loads_elsewhere_with_the_same_digests(
    images: Images, shm_dir: Path, format: str
) -> None:
    (image,), _ = load(images, docker_files(["a:1"], [ONE, TWO]))
    images.tag("a:1", "a:2")
    out = io.BytesIO()
    images.save(["a"], out, format=format)  # type: ignore[arg-type]  # one of both

    with Engine(shm_dir / "other", storage_driver="vfs") as other:
        (loaded,) = other.images.load(io.BytesIO(out.getvalue()))
        assert loaded.id == image.id
        assert loaded.tags == ("a:1", "a:2")
        again = io.BytesIO()
        other.images.save(["a"], again, format=format)  # type: ignore[arg-type]  # one of both
    assert again.getvalue() == out.getvalue()
    assert ONE in out.getvalue()
    assert TWO in out.getvalue()


def test_save_by_id_has_no_name_and_by_tag_only_that(images: Images) -> None:
    image = imported(images, "a:1")
    images.tag("a:1", "a:2")

    def saved_names(reference: str) -> list[str]:
        out = io.BytesIO()
        images.save([reference], out)
        told: list[str] = []
        images.load(io.BytesIO(out.getvalue()), tell=told.append)
        return told

    assert saved_names(image.short_id) == [f"Loaded image ID: {image.id}"]
    assert saved_names("a:2") == ["Loaded image: a:2"]
    assert saved_names("a") == ["Loaded image: a:1", "Loaded image: a:2"]


def test_save_refuses_what_it_cannot_do(images: Images) -> None:
    with pytest.raises(NotFound):
        images.save(["nosuch"], io.BytesIO())
    with pytest.raises(InvalidArgument, match="unknown archive format"):
        images.save(["a"], io.BytesIO(), format="zip")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidArgument, match="no image to save"):
        images.save([], io.BytesIO())


def test_a_layout_in_a_directory_is_loaded(images: Images, tmp_path: Path) -> None:
    layout = OciLayout()
    layout.add(layout.manifest([ONE]), name="a:b")
    for name, contents in layout.all_files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(contents)

    (image,) = images.load_layout(tmp_path)

    assert image.tags == ("a:b",)


def test_threads_that_load_the_same_archive_agree(images: Images, engine: Engine) -> None:
    archive = tar(docker_files(["a:b"], [ONE, TWO]))

    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: images.load(io.BytesIO(archive)), range(4)))

    assert len({image.id for (image,) in loaded}) == 1
    assert len(layer_names(engine)) == 2


# --- placed ------------------------------------------------------------------------------------


@pytest.mark.requires_root
def test_an_image_is_brought_to_another_driver_once(
    images: Images, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    image = images.create(imported(images), io.BytesIO(TWO))
    caplog.set_level("INFO", "stowage.images")

    names = [images.ensure(image, driver) for driver in ("vfs", OTHER, OTHER)]

    assert names == [image.top] * 3
    assert caplog.messages == [
        f"the image {image.short_id} is on vfs; copying 2 layers of it to {OTHER}"
    ]
    assert [info.name for info in engine.layers.chain(str(image.top), driver=OTHER)] == list(
        reversed(image.chain)
    )


OTHER = "overlay"
