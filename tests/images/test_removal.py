"""``rmi`` by Docker's rules: what is untagged, deleted, kept and refused."""

from __future__ import annotations

import io

import pytest

from stowage.engine import Engine
from stowage.errors import FailedPrecondition, NotFound
from stowage.images.rows import Image
from stowage.images.service import Images

from .archive_makers import layer

pytestmark = pytest.mark.requires("root")  # layers hold files of root

CONTAINER = "d80b80f82fbc" + "0" * 52


def imported(images: Images, name: str | None = "busybox", text: str = "1") -> Image:
    return images.import_tree(io.BytesIO(layer({"a": text})), name)


def container_of(engine: Engine, image: Image, state: str) -> None:
    """Record a container of an image, as the containers' service does."""
    with engine.metastore.transaction() as tx:
        tx.execute(
            "INSERT INTO containers (id, name, state, image_id, config, created_ns)"
            " VALUES (?, 'web', ?, ?, '{}', 0)",
            (CONTAINER, state, image.id),
        )


def removed(images: Images, text: str, *, force: bool = False, prune: bool = True) -> list[str]:
    return [str(one) for one in images.remove(text, force=force, prune=prune)]


def layer_names(engine: Engine) -> list[str]:
    return [info.name for info in engine.layers.walk()]


def test_the_last_name_takes_the_image_and_its_layers_along(images: Images, engine: Engine) -> None:
    image = imported(images)

    assert removed(images, "busybox") == [
        "Untagged: busybox:latest", f"Deleted: {image.id}", f"Deleted: {image.top}",
    ]  # fmt: skip
    assert layer_names(engine) == []
    assert images.list() == []


def test_another_name_keeps_the_image(images: Images, engine: Engine) -> None:
    imported(images, "a")
    images.tag("a", "b")

    assert removed(images, "a") == ["Untagged: a:latest"]
    assert images.resolve("b").tags == ("b:latest",)
    assert len(layer_names(engine)) == 1


def test_an_id_removes_an_image_of_one_name_with_it(images: Images) -> None:
    image = imported(images)

    assert removed(images, image.short_id)[:2] == [
        "Untagged: busybox:latest", f"Deleted: {image.id}",
    ]  # fmt: skip


def test_an_id_of_several_names_must_be_forced(images: Images) -> None:
    image = imported(images, "a")
    images.tag("a", "b")

    with pytest.raises(FailedPrecondition) as caught:
        images.remove(image.short_id)
    assert caught.value.brief == (
        f"conflict: unable to delete {image.short_id} (must be forced) - "
        "image is referenced in multiple repositories"
    )
    assert removed(images, image.short_id, force=True)[:3] == [
        "Untagged: a:latest", "Untagged: b:latest", f"Deleted: {image.id}",
    ]  # fmt: skip


def test_what_does_not_exist_is_named(images: Images) -> None:
    with pytest.raises(NotFound, match="No such image: nosuch"):
        images.remove("nosuch")


@pytest.mark.parametrize("state", ["running", "exited"])
def test_the_name_of_an_image_in_use_must_be_forced(
    images: Images, engine: Engine, state: str
) -> None:
    """In the words of dockerd 20.10."""
    image = imported(images)
    container_of(engine, image, state)

    with pytest.raises(FailedPrecondition) as caught:
        images.remove("busybox")
    assert caught.value.brief == (
        'conflict: unable to remove repository reference "busybox" (must force) - '
        f"container d80b80f82fbc is using its referenced image {image.short_id}"
    )
    assert images.resolve("busybox").id == image.id


def test_force_untags_the_image_of_a_running_container_and_keeps_it(
    images: Images, engine: Engine
) -> None:
    image = imported(images)
    container_of(engine, image, "running")

    assert removed(images, "busybox", force=True) == ["Untagged: busybox:latest"]
    assert images.resolve(image.id).references == ()
    assert len(layer_names(engine)) == 1


def test_force_does_not_settle_a_running_container_for_an_id(
    images: Images, engine: Engine
) -> None:
    image = imported(images)
    container_of(engine, image, "running")

    with pytest.raises(FailedPrecondition, match=r"\(cannot be forced\) - image is being used by "):
        images.remove(image.short_id, force=True)
    assert images.resolve("busybox").id == image.id


def test_a_stopped_container_of_an_id_must_be_forced(images: Images, engine: Engine) -> None:
    image = imported(images)
    container_of(engine, image, "exited")

    with pytest.raises(FailedPrecondition, match=r"must be forced.*stopped container d80b80f82fbc"):
        images.remove(image.short_id)
    assert f"Deleted: {image.id}" in removed(images, image.short_id, force=True)


def test_a_parent_keeps_its_children_and_loses_its_name(images: Images, engine: Engine) -> None:
    base = imported(images, "base")
    images.create(base, io.BytesIO(layer({"b": "2"})), reference="top")

    with pytest.raises(FailedPrecondition, match="image has dependent child images"):
        images.remove(base.short_id, force=True)
    assert removed(images, "base") == ["Untagged: base:latest"]
    assert len(layer_names(engine)) == 2


@pytest.mark.parametrize("prune", [True, False])
def test_nameless_parents_go_along_unless_they_are_to_stay(
    images: Images, engine: Engine, prune: bool
) -> None:
    base = imported(images, None)
    top = images.create(base, io.BytesIO(layer({"b": "2"})), reference="top")

    done = removed(images, "top", prune=prune)

    deleted = [f"Deleted: {top.id}", *([f"Deleted: {base.id}"] if prune else [])]
    assert done[: len(deleted) + 1] == ["Untagged: top:latest", *deleted]
    assert len(layer_names(engine)) == (0 if prune else 1)


def test_layers_that_another_image_has_stay(images: Images, engine: Engine) -> None:
    base = imported(images, "base")
    top = images.create(base, io.BytesIO(layer({"b": "2"})), reference="top")
    images.remove("base")

    assert removed(images, "top", prune=False) == [
        "Untagged: top:latest", f"Deleted: {top.id}", f"Deleted: {top.top}",
    ]  # fmt: skip
    assert layer_names(engine) == [base.top]


def test_a_layer_with_a_snapshot_on_it_stays_until_that_goes(
    images: Images, engine: Engine
) -> None:
    image = imported(images)
    engine.layers.prepare("box", image.top)

    assert removed(images, "busybox") == ["Untagged: busybox:latest", f"Deleted: {image.id}"]
    engine.layers.remove("box")

    assert [info.name for info in images.collect().removed] == [image.top]
    assert layer_names(engine) == []


def test_an_init_snapshot_that_no_container_has_goes_with_its_image(
    images: Images, engine: Engine
) -> None:
    image = imported(images)
    engine.layers.init_snapshot(image.top, {b"etc/hosts": "file"})

    assert f"Deleted: {image.top}" in removed(images, "busybox")
    assert layer_names(engine) == []


def test_nothing_is_dropped_while_layers_are_being_added(images: Images, engine: Engine) -> None:
    """What an unfinished load relies on stays; gc comes for the rest."""
    imported(images)
    with engine.layers.keeping():
        removed(images, "busybox")
        assert len(layer_names(engine)) == 1

    images.collect()

    assert layer_names(engine) == []


def test_collecting_leaves_what_images_and_hands_have_made(images: Images, engine: Engine) -> None:
    image = imported(images)
    engine.layers.prepare("key")
    engine.layers.commit("by-hand", "key")

    assert images.collect().removed == ()
    assert sorted(layer_names(engine)) == sorted(["by-hand", str(image.top)])


def test_the_journal_tells_of_each_step(images: Images, engine: Engine) -> None:
    imported(images, "a")
    images.tag("a", "b")
    images.remove("a")
    images.remove("b")
    rows = engine.metastore.read().execute(
        "SELECT action FROM journal WHERE type = 'image' ORDER BY seq"
    )

    assert [row["action"] for row in rows] == ["import", "tag", "untag", "untag", "delete"]
