"""The house's walls, read from the syntax of every module.

Imports point down; the core names no driver; drivers use only what ``stowage`` exports; ctypes
and raw system calls live in ``core/linux``; whatever changes the kernel or a file system does so
inside an effect.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE, DRIVERS, BENCH = ROOT / "core", ROOT / "drivers", ROOT / "bench"


def modules(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


# --- imports ----------------------------------------------------------------------------------


def absolute_imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module
            yield node.module, node.lineno


def relative_imports(path: Path, top: Path) -> Iterator[tuple[str, int]]:
    """Modules imported relatively, as dotted names below *top* (``linux.mount``)."""
    package = path.relative_to(top).parent.parts
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = package[: len(package) - node.level + 1]
            base = [*above, *(node.module or "").split(".")] if node.module else [*above]
            if node.module:
                yield ".".join(base), node.lineno
            else:  # `from . import a, b`
                yield from ((".".join([*base, alias.name]), node.lineno) for alias in node.names)


def below(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


OURS = ("stowage", "stowage_drivers", "stowage_bench", "core", "drivers", "bench", "tests")


def test_the_core_imports_itself_only_relatively_and_nothing_else_of_ours() -> None:
    """Absolute names would tie it to how it is installed; the checkout is on sys.path at times."""
    bad = [
        f"{shown(path)}:{line}: {name}"
        for path in modules(CORE)
        for name, line in absolute_imports(path)
        if below(name, OURS)
    ]

    assert bad == []


#: What a driver may know of us: the same as a stranger's driver.
EXPORTED = ("stowage.errors", "stowage.model", "stowage.options", "stowage.hookspecs",
            "stowage.effects", "stowage.linux")  # fmt: skip


def test_drivers_import_of_ours_only_what_stowage_exports() -> None:
    bad = [
        f"{shown(path)}:{line}: {name}"
        for path in modules(DRIVERS)
        for name, line in absolute_imports(path)
        if below(name, OURS) and name != "stowage" and not below(name, EXPORTED)
    ]

    assert bad == []


def test_a_driver_never_imports_another() -> None:
    """Shared helpers are private modules (``_name``) of the family; families do not meet."""
    bad = []
    for path in modules(DRIVERS):
        family, *rest = path.relative_to(DRIVERS).with_suffix("").parts
        for name, line in relative_imports(path, DRIVERS):
            other, *others = name.split(".")
            helper = bool(others) and others[0].startswith("_")
            same = bool(others) and bool(rest) and others[0] == rest[0]
            if other != family or not (helper or same):
                bad.append(f"{shown(path)}:{line}: {name}")

    assert bad == []


def test_bench_uses_stowage_like_any_user() -> None:
    others = tuple(name for name in OURS if name not in ("stowage", "stowage_bench"))
    bad = [
        f"{shown(path)}:{line}: {name}"
        for path in modules(BENCH)
        for name, line in absolute_imports(path)
        if below(name, others)
    ]

    assert bad == []


#: The floors of the house, top first (docs/internals.md); a module imports only from floors
#: below its own, and from its own package. Modules on one floor that know each other share a set.
FLOORS: tuple[frozenset[str], ...] = tuple(
    frozenset(floor.split())
    for floor in (
        "__main__",
        "cli",
        "testing",
        "engine",
        "containers",
        "images volumes",
        "layers net",
        "store",
        "explain registry select config config_checks config_file config_keys config_types",
        "handle plugins observers scaffold",
        "hookspecs",
        "options model effects errors version closing records numbers _pytest_plugin",
    )
)
#: Modules of one floor that may import each other.
NEIGHBOURS = (
    frozenset(["explain", "registry", "select"]),
    frozenset(["config", "config_checks", "config_file", "config_keys", "config_types"]),
    frozenset(["handle", "plugins", "observers", "scaffold"]),
    frozenset(["options", "model", "effects", "errors", "closing", "records", "numbers"]),
)
#: `linux` lies below everything and sees only these.
SEEN_BY_LINUX = frozenset(["effects", "model", "errors", "closing"])


def floor(top: str) -> int:
    return next(index for index, names in enumerate(FLOORS) if top in names)


def points_down(importer: str, imported: str) -> bool:
    if importer in (imported, "__init__"):
        return True
    if importer == "linux":
        return imported in SEEN_BY_LINUX
    if imported == "linux":
        return True
    together = any({importer, imported} <= group for group in NEIGHBOURS)
    return together or floor(importer) < floor(imported)


def test_every_module_of_the_core_has_a_floor() -> None:
    placed = {"linux", "__init__"}.union(*FLOORS)
    tops = {path.relative_to(CORE).with_suffix("").parts[0] for path in modules(CORE)}

    assert tops - placed == set()


def test_imports_point_down() -> None:
    """Imports inside functions and for types count as well: they are knowledge."""
    bad = []
    for path in modules(CORE):
        importer = path.relative_to(CORE).with_suffix("").parts[0]
        for name, line in relative_imports(path, CORE):
            imported = name.split(".")[0]
            exported = not (CORE / imported).is_dir() and not (CORE / f"{imported}.py").exists()
            if not exported and not points_down(importer, imported):
                bad.append(f"{shown(path)}:{line}: {importer} imports {imported}")

    assert bad == []


def test_ctypes_lives_in_linux_alone() -> None:
    bad = [
        f"{shown(path)}:{line}"
        for path in modules(CORE, DRIVERS, BENCH)
        for name, line in absolute_imports(path)
        if below(name, ["ctypes"]) and not path.is_relative_to(CORE / "linux")
    ]

    assert bad == []


def test_third_party_imports_are_declared() -> None:
    """The core and the drivers import nothing that an install does not bring."""
    declared = {"pluggy", "libarchive", "msgspec", "zstandard", "pyroute2"}
    extras = {"fuse", "iptc", "hypothesis", "pytest"}
    bad = [
        f"{shown(path)}:{line}: {name}"
        for path in modules(CORE, DRIVERS)
        for name, line in absolute_imports(path)
        if (top := name.split(".")[0]) not in sys.stdlib_module_names
        and top not in declared | extras | set(OURS)
    ]

    assert bad == []


# --- names of drivers -------------------------------------------------------------------------

DRIVER_NAMES = frozenset(
    ["aufs", "btrfs", "devicemapper", "fuse-overlayfs", "overlay", "overlay2", "vfs", "zfs"]
)
#: Where such a word is the name of a file system type or of a form, not of a driver.
NOT_DRIVERS = {
    "core/linux": "file system types as mount(2) takes them",
    "core/testing": "disks to test on, and whether the kernel mounts overlayfs at all",
    "core/model.py": "WhiteoutForm.OVERLAY, the kernel's form of whiteouts",
}


def allowed(path: Path, reasons: Iterable[str]) -> bool:
    return any(path.is_relative_to(ROOT / place) for place in reasons)


def docstrings(tree: ast.Module) -> set[int]:
    """The ids of the nodes that are docstrings, or strings below an assignment (attribute docs)."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def test_the_core_names_no_driver() -> None:
    """No string, name or attribute in code is a storage driver's name: nothing can depend on it."""
    bad = []
    for path in modules(CORE):
        tree = parsed(path)
        prose = docstrings(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in prose:
                word = str(node.value)
            elif isinstance(node, ast.Name):
                word = node.id
            elif isinstance(node, ast.Attribute):
                word = node.attr
            else:
                continue
            if word in DRIVER_NAMES and not allowed(path, NOT_DRIVERS):
                bad.append(f"{shown(path)}:{node.lineno}: {word}")

    assert bad == []


# --- effects ----------------------------------------------------------------------------------

_OS = """
chmod chown chroot copy_file_range fchmod fchown fork forkpty ftruncate kill killpg lchmod lchown
link makedirs mkdir mkfifo mknod posix_fallocate posix_spawn posix_spawnp remove removedirs
removexattr rename renames replace rmdir sendfile setxattr symlink truncate unlink utime
"""
_SHUTIL = "chown copy copy2 copyfile copytree move rmtree"
_SUBPROCESS = "Popen call check_call check_output run"
EFFECTS = frozenset(
    {f"os.{name}" for name in _OS.split()}
    | {f"shutil.{name}" for name in _SHUTIL.split()}
    | {f"subprocess.{name}" for name in _SUBPROCESS.split()}
    | {"fcntl.flock", "fcntl.lockf", "signal.pidfd_send_signal"}
)
_PATH_METHODS = """
chmod hardlink_to lchmod mkdir rename replace rmdir symlink_to touch unlink write_bytes write_text
"""
#: Methods of Path; `replace` and `rename` count with one argument, unlike those of str.
_METHODS = frozenset(_PATH_METHODS.split())
_OPENERS = frozenset({"os.O_CREAT", "os.O_TMPFILE", "os.O_TRUNC"})

#: Places that need no effect around them, and why.
NO_EFFECTS = {
    "core/linux": "the system calls themselves; each is decorated where it changes something",
    "core/testing": "the kit stands outside: it makes disks, labs and faults",
    "core/observers": "they watch effects; what they write is their own report",
    "core/effects.py": "the seam itself",
    "core/containers/waiter.py": "a program of its own: starting it is the effect",
    "core/cli/forkserver/client.py": "it hands the command over; no observer is loaded in it",
}


class EffectFinder(ast.NodeVisitor):
    """Collects calls that change something and stand in no effect.

    A private function may leave the effect to its callers, if whatever in the module refers to it
    stands in one.
    """

    def __init__(self) -> None:
        self._changing: list[tuple[str, int, str]] = []  # bare ones: function, line, callee
        self._uses: list[tuple[str, str]] = []  # bare ones: function, name referred to
        self._private: set[str] = set()
        self._inside = 0
        self._function = ""
        self._aliases: dict[str, str] = {}

    def found(self) -> list[tuple[int, str]]:
        """Line and callee of each, once the module was visited."""
        covered = set(self._private)
        while bare := {name for user, name in self._uses if user not in covered} & covered:
            covered -= bare
        return [(line, call) for function, line, call in self._changing if function not in covered]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if node.level == 0:
                self._aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._aliases[alias.asname or alias.name] = alias.name

    def visit_With(self, node: ast.With) -> None:
        wraps = any(self._is_effect(item.context_expr) for item in node.items)
        self._inside += wraps
        self.generic_visit(node)
        self._inside -= wraps

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer = self._function
        if not outer.startswith("_") or outer.startswith("__"):  # nested ones count as the outer
            self._function = node.name
        if self._function.startswith("_") and not self._function.startswith("__"):
            self._private.add(self._function)
        wraps = any("effectful" in ast.unparse(item) for item in node.decorator_list)
        self._inside += wraps
        self.generic_visit(node)
        self._inside -= wraps
        self._function = outer

    def visit_Name(self, node: ast.Name) -> None:
        self._refer(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._refer(node.attr)
        self.generic_visit(node)

    def _refer(self, name: str) -> None:
        if not self._inside:
            self._uses.append((self._function, name))

    def visit_Call(self, node: ast.Call) -> None:
        name = self._dotted(node.func)
        if not self._inside and (self._changes(name, node) or self._opens_to_write(name, node)):
            self._changing.append((self._function, node.lineno, ast.unparse(node.func)))
        self.generic_visit(node)

    def _is_effect(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Call) and self._dotted(node.func).split(".")[-1] == "effect"

    def _dotted(self, node: ast.expr) -> str:
        parts = ast.unparse(node).split(".")
        return ".".join([self._aliases.get(parts[0], parts[0]), *parts[1:]])

    def _changes(self, name: str, node: ast.Call) -> bool:
        if name in EFFECTS:
            return True
        if not isinstance(node.func, ast.Attribute) or node.func.attr not in _METHODS:
            return False
        if name.startswith(("os.", "dataclasses.")):
            return False
        return node.func.attr not in ("rename", "replace") or len(node.args) == 1

    def _opens_to_write(self, name: str, node: ast.Call) -> bool:
        if name in ("os.open", "openat2", "open_in_root"):
            words = {ast.unparse(part) for argument in node.args for part in ast.walk(argument)
                     if isinstance(part, ast.Attribute)}  # fmt: skip
            return bool(words & _OPENERS)
        if name in ("open", "io.open"):
            modes = node.args[1:2]
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "open":
            modes = node.args[:1]
        else:
            return False
        modes = modes + [keyword.value for keyword in node.keywords if keyword.arg == "mode"]
        texts = [mode.value for mode in modes if isinstance(mode, ast.Constant)]
        return any(isinstance(text, str) and set(text) & set("wax+") for text in texts)


def effects_outside(source: str) -> list[tuple[int, str]]:
    finder = EffectFinder()
    finder.visit(ast.parse(source))
    return finder.found()


def test_every_effect_of_the_core_and_the_drivers_is_wrapped() -> None:
    """So that one injector can fail, delay or kill at each of them."""
    bad = [
        f"{shown(path)}:{line}: {call}"
        for path in modules(CORE, DRIVERS)
        if not allowed(path, NO_EFFECTS)
        for line, call in effects_outside(path.read_text())
    ]

    assert bad == []


@pytest.mark.parametrize(
    ("source", "calls"),
    [
        ("import os\nos.mkdir('x')", ["os.mkdir"]),
        ("from os import mkdir as m\nm('x')", ["m"]),
        ("import subprocess as s\ns.run(['x'])", ["s.run"]),
        ("path.write_text('x')", ["path.write_text"]),
        ("path.replace(other)", ["path.replace"]),
        ("text.replace('a', 'b')", []),
        ("open('x', 'w')", ["open"]),
        ("open('x')", []),
        ("path.open('rb')", []),
        ("import os\nos.open('x', os.O_RDONLY | os.O_CLOEXEC)", []),
        ("import os\nos.open('x', os.O_WRONLY | os.O_CREAT)", ["os.open"]),
        ("with effect('file.make'):\n    path.mkdir()", []),
        ("@effectful('file.make')\ndef f():\n    path.mkdir()", []),
        ("with effect('a'):\n    pass\npath.mkdir()", ["path.mkdir"]),
        ("with other('a'):\n    path.mkdir()", ["path.mkdir"]),
        ("def _f():\n    path.mkdir()\nwith effect('a'):\n    _f()", []),
        ("def _f():\n    path.mkdir()\n_f()", ["path.mkdir"]),
        ("def f():\n    path.mkdir()\nwith effect('a'):\n    f()", ["path.mkdir"]),
        (
            "def _f():\n    path.mkdir()\ndef _g():\n    _f()\n"
            "with effect('a'):\n    _g()\nthread(_g)",
            ["path.mkdir"],
        ),
    ],
)
def test_the_finder_tells_effects_apart(source: str, calls: list[str]) -> None:
    assert [call for _, call in effects_outside(source)] == calls
