"""The kit's own machinery: what a run tells, in each form, and that its scripts do it again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from stowage import Kind, NotFound, Options, hookimpl
from stowage.testing.conform import (
    Create,
    Mkdir,
    ModelTree,
    Report,
    Subject,
    Traits,
    conform,
    find_properties,
)
from stowage.testing.conform.badge import badge
from stowage.testing.conform.page import page
from stowage_drivers.storage.vfs import VfsDriver

pytestmark = pytest.mark.requires("mounts")


class Forgetful(VfsDriver):
    """Gives the root of every child the mode 0755."""

    name: ClassVar[str] = "forgetful"

    @hookimpl
    def storage_prepare(
        self, directory: Path, parents: Sequence[Path], kind: Kind, options: Options
    ) -> None:
        super().storage_prepare(directory, parents, kind, options)
        if (directory / "fs").exists():
            (directory / "fs").chmod(0o755)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Report:
    place = tmp_path_factory.mktemp("failed")
    return conform(Forgetful, on=place, examples=30, seed=3, names=["L2", "L3", "L14b"])


def test_a_fault_is_found_by_the_property_that_names_it(failed: Report) -> None:
    assert {outcome.name: outcome.status for outcome in failed.outcomes} == {
        "L2": "held",
        "L3": "failed",
        "L14b": "skipped",
    }


def test_what_failed_is_told_shrunk(failed: Report) -> None:
    (outcome,) = (one for one in failed.outcomes if one.status == "failed")

    assert "mode 0755, expected 0" in outcome.message
    assert {step.partition("(")[0] for step in outcome.program} <= {
        "prepare", "view", "perform", "commit",
    }  # fmt: skip
    assert any("Chmod(b''" in step for step in outcome.program)


def test_the_script_does_the_same_again(failed: Report, tmp_path: Path) -> None:
    """With the faulty driver's name replaced: it is no installed one, and vfs has no fault."""
    (outcome,) = (one for one in failed.outcomes if one.status == "failed")
    script = tmp_path / "script.py"
    text = outcome.snippet.replace("Forgetful", "'vfs'")
    script.write_text(text + "\nprint('ran to its end')\n")

    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("ran to its end\n", "")


def test_a_report_survives_json(failed: Report) -> None:
    assert Report.from_json(failed.to_json()) == failed


def test_the_page_and_the_badge_say_what_failed_and_load_nothing(failed: Report) -> None:
    html, svg = page(failed), badge(failed)

    assert "fails" in html
    assert "Chmod(b&#x27;&#x27;" in html
    assert "fails 1/2" in svg
    for text in (html, svg.replace("http://www.w3.org/2000/svg", "")):
        assert "http" not in text
        assert "<script" not in text


def test_properties_are_found_by_name_glob_letter_and_module() -> None:
    assert [one.name for one in find_properties(["L3"])] == ["L3"]
    assert {one.name[0] for one in find_properties(["M"])} == {"M"}
    assert [one.name for one in find_properties(["L1?"])][:2] == ["L10", "L11"]
    assert {one.family for one in find_properties(["layers"])} == {"layers"}
    with pytest.raises(NotFound, match="L99"):
        find_properties(["L99"])


def test_the_order_is_the_handbooks() -> None:
    names = [one.name for one in find_properties()]

    assert names.index("L2") < names.index("L10") < names.index("M1") < names.index("D1")


def test_a_class_that_no_entry_point_names_can_be_killed_elsewhere(tmp_path: Path) -> None:
    with Subject.open(Forgetful, on=tmp_path) as subject:
        subject.prepare("key")

        fate = subject.elsewhere(("done", "key", Mkdir(b"made"), Create(b"made/file", b"x")))

        assert fate.finished
        tree = ModelTree(Traits()).all_of([Mkdir(b"made"), Create(b"made/file", b"x")])
        seen = subject.tree("key")
        tree.learn(seen)
        assert seen.keys() == tree.inodes.keys()
        killed = subject.elsewhere(("prepare", "other"), faults="effect=*:n=1:kill")
        assert killed.killed
        assert subject.names() == ["key"]


def test_what_a_victim_raises_is_told(tmp_path: Path) -> None:
    with Subject.open("vfs", on=tmp_path) as subject:
        fate = subject.elsewhere(("remove", "nobody"))

    assert not fate.killed
    assert "NotFound" in fate.error
