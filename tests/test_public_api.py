"""The public door: what ``stowage`` exports is sorted, complete, lazy and typed alike."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import stowage

CORE = Path(stowage.__file__).parent

#: Slow to import or only for some drivers: nobody may pay for them before they are needed.
HEAVY = ("ctypes", "fuse", "iptc", "libarchive", "pyroute2", "sqlite3", "subprocess", "zstandard")


def _lists_of_all() -> list[tuple[str, list[str]]]:
    found = []
    for path in sorted(CORE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                found.append((str(path.relative_to(CORE)), ast.literal_eval(node.value)))
    return found


@pytest.mark.parametrize(("module", "names"), _lists_of_all())
def test_all_is_sorted_and_without_doubles(module: str, names: list[str]) -> None:
    assert names == sorted(set(names)), module


def test_all_is_the_lazy_table() -> None:
    assert set(stowage.__all__) == set(stowage._MODULE_BY_NAME)


def test_static_tools_see_the_same_names_from_the_same_modules() -> None:
    """The imports under TYPE_CHECKING are the lazy table."""
    tree = ast.parse((CORE / "__init__.py").read_text())
    (guard,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: f".{node.module}"
        for node in guard.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert seen == stowage._MODULE_BY_NAME


@pytest.mark.parametrize("name", stowage.__all__)
def test_every_exported_name_can_be_had_and_is_documented(name: str) -> None:
    exported = getattr(stowage, name)

    home = importlib.import_module(stowage._MODULE_BY_NAME[name], "stowage")
    assert exported is getattr(home, name)
    assert exported.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Engin'"):
        stowage.Engin  # noqa: B018  # reading it is the act


def _imported_by(statement: str) -> set[str]:
    code = f"import sys\nbefore = set(sys.modules)\n{statement}\nimport json\n"
    code += "print(json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("statement", ["import stowage", "import stowage.cli"])
def test_importing_brings_nothing_heavy(statement: str) -> None:
    imported = _imported_by(statement)

    assert sorted(imported & set(HEAVY)) == []


def test_every_module_of_the_core_can_be_imported_alone() -> None:
    """No module relies on another having been imported first."""
    names = [
        ".".join(("stowage", *path.relative_to(CORE).with_suffix("").parts))
        for path in sorted(CORE.rglob("*.py"))
        if path.name not in ("__init__.py", "__main__.py")
    ]
    code = "import sys, importlib\nfor name in sys.argv[1:]:\n"
    code += "    kept = dict(sys.modules)\n    importlib.import_module(name)\n"
    code += "    [sys.modules.pop(m) for m in set(sys.modules) - set(kept) if 'stowage' in m]\n"

    subprocess.run([sys.executable, "-c", code, *names], check=True)
