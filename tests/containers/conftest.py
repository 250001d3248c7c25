"""One root with busybox per module; every test finds and leaves it without containers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stowage.config import Config
from stowage.testing.abilities import missing

from .boxes import Boxes


@pytest.fixture(scope="module")
def _module_boxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boxes]:
    for ability in ("containers", "conmon", "busybox"):
        if reason := missing(ability):
            pytest.skip(f"needs {ability}: {reason}")
    boxes = Boxes(tmp_path_factory.mktemp("root") / "r")
    yield boxes
    boxes.close()


@pytest.fixture
def boxes(_module_boxes: Boxes) -> Iterator[Boxes]:
    yield _module_boxes
    _module_boxes.clear()


@pytest.fixture(params=["crun", "runc"])
def by_runtime(boxes: Boxes, request: pytest.FixtureRequest) -> Iterator[Boxes]:
    """The same root, whose containers are run by each runtime in turn."""
    if reason := missing(request.param):
        pytest.skip(f"needs {request.param}: {reason}")
    before = boxes.engine.config
    boxes.engine.config = Config.for_root(boxes.root, {"default-runtime": [request.param]})
    boxes.containers = boxes.open()
    assert boxes.context.default_runtime.name == request.param
    yield boxes
    boxes.clear()
    boxes.engine.config = before
    boxes.containers = boxes.open()
