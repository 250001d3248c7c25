"""``check`` raises no false alarm over what waits for the next container."""

from __future__ import annotations

from stowage.layers.check import CheckKind
from stowage.layers.store import LayerStore


def test_an_init_snapshot_without_a_container_is_nothing_wrong(layers: LayerStore) -> None:
    """It stays when its last container goes, since the next one of its image wants it."""
    layers.prepare("work")
    base = layers.commit("base", "work")
    layers.init_snapshot(base.name, {b"/proc": "dir"}, driver=base.driver)

    found = list(layers.check(is_referenced=lambda info: info.name == base.name))
    without_images = list(layers.check(is_referenced=lambda info: False))

    assert found == []
    assert [finding.kind for finding in without_images] == []


def test_a_layer_that_no_image_uses_is_named(layers: LayerStore) -> None:
    layers.prepare("work")
    layers.commit("base", "work")

    (finding,) = layers.check(is_referenced=lambda info: False)

    assert (finding.kind, finding.subject) == (CheckKind.LAYER_UNREFERENCED, "base")
