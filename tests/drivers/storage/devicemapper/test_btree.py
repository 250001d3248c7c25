"""The persistent tree against a dictionary for each version."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stowage_drivers.storage.devicemapper.btree import BTree
from stowage_drivers.storage.devicemapper.superblock import Superblock
from stowage_drivers.storage.devicemapper.transaction import MAPPING_WIDTH, Transaction

from .cuts import Machine

BLOCKS = 4096
WIDTH = 40  # twelve entries fill a leaf, so that few make a deep tree


def new_store() -> Transaction:
    metadata, _ = Machine(BLOCKS * 4096, 0).media()
    return Transaction.format(metadata, Superblock(65536, 64, BLOCKS))


def value(number: int) -> tuple[int, ...]:
    return (number,) * WIDTH


keys = st.integers(0, 400)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), keys, st.integers(0, 9)),
        st.tuples(st.just("run"), keys, st.integers(1, 60)),
        st.tuples(st.just("cut"), keys, st.integers(1, 200)),
        st.tuples(st.just("clone"), keys, st.just(0)),
        st.tuples(st.just("drop"), keys, st.just(0)),
        st.tuples(st.just("commit"), keys, st.just(0)),
    ),
    max_size=25,
)


@given(steps)
@settings(deadline=None)
def test_each_version_stays_what_it_was(done: list[tuple[str, int, int]]) -> None:
    """Versions are changed in turn; none shows in another, and dropping all frees all."""
    store = new_store()
    tree = BTree(store, WIDTH)
    used: int | None = store.metadata.used
    versions: list[tuple[int, dict[int, int]]] = [(tree.create(), {})]
    for verb, key, number in done:
        root, model = versions.pop(key % len(versions))
        if verb == "clone":
            store.retain(root)
            versions.append((root, dict(model)))
        elif verb == "drop" and versions:
            tree.destroy(root)
            continue
        elif verb == "commit":
            store.commit()
            used = None  # the space maps have taken some for themselves
        for at in range(key, key + (number if verb == "run" else verb == "set")):
            root = tree.set(root, at, value(number))
            model[at] = number
        for at in sorted(at for at in model if verb == "cut" and key <= at < key + number):
            root = tree.remove(root, at)
            del model[at]
        versions.append((root, model))

        for root, model in versions:
            assert dict(tree.items(root)) == {at: value(is_) for at, is_ in model.items()}
            assert tree.get(root, key) == (value(model[key]) if key in model else None)
            assert tree.last(root) == max(model, default=None)
            assert [at for at, _ in tree.items(root, key, key + 50)] == sorted(
                at for at in model if key <= at < key + 50
            )

    before = store.metadata.used
    for root, _ in versions:
        tree.destroy(root)
    assert store.metadata.used < before
    if used is not None:
        assert store.metadata.used == used


def test_writing_in_order_fills_the_nodes() -> None:
    store = new_store()
    before = store.metadata.used
    root = store.mappings.create()
    for key in range(25_400):
        root = BTree(store, MAPPING_WIDTH).set(root, key, (key,))

    assert store.metadata.used - before == 101  # a hundred leaves of 254 entries, and a root
