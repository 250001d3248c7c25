"""Write docs/reference from the code, where every option, hook, error and key exists once.

``--check`` writes nothing and fails, naming each page that is stale (a test runs it so).
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from textwrap import dedent

from conformance import page as conformance_page
from stowage import errors, hookspecs, model
from stowage.cli import main as stowage
from stowage.config_keys import KEYS, Disposition, Key
from stowage.plugins import FAMILIES, Family
from stowage.registry import Registry

PAGES = Path(__file__).resolve().parent.parent / "docs" / "reference"
OWNER = "stowage "


def table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def drivers() -> str:
    """Options of the bundled drivers, and what a probe may claim."""
    registry = Registry()
    parts = [
        "# Drivers",
        "What each bundled driver takes; `stowage driver options NAME` shows the same.",
    ]
    for family in FAMILIES:
        seen: set[str] = set()
        for plugin in registry.plugins(family):
            if not plugin.owner.startswith(OWNER) or family == "observers":
                continue
            name = registry.canonical_name(family, plugin.name)
            if name not in seen:
                seen.add(name)
                parts += [f"## {family}: {name}", *_driver(registry, family, name)]
    parts += ["## Capabilities of storage drivers", _fields(model.StorageCapabilities)]
    parts += ["## Capabilities of network drivers", _fields(model.NetworkCapabilities)]
    return "\n\n".join(parts)


def _driver(registry: Registry, family: Family, name: str) -> Iterator[str]:
    driver_class, _ = registry.driver_class(family, name)
    yield _module_summary(driver_class)
    options = registry.declared_options(family, name)
    if not options:
        yield "It takes no options."
        return
    yield table(
        ("option", "expects", "default", "where", "meaning"),
        (
            (f"`{o.name}`", o.type.expects, o.shown_default, o.scope, o.meaning)
            for o in options
        ),
    )  # fmt: skip


def _module_summary(driver_class: type) -> str:
    module = inspect.getmodule(driver_class)
    return (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " ")


def _fields(record: type) -> str:
    """A table of a dataclass's fields with the strings that stand below them."""
    (tree,) = ast.parse(dedent(inspect.getsource(record))).body
    assert isinstance(tree, ast.ClassDef)
    docs: dict[str, str] = {}
    name = ""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign):
            name = ast.unparse(node.target)
            docs[name] = ""
        elif isinstance(node, ast.Expr) and name:
            docs[name] = " ".join(str(ast.literal_eval(node.value)).split())
    return table(("capability", "meaning"), ((f"`{n}`", text) for n, text in docs.items()))


def hooks() -> str:
    """Every hook spec with its signature and its docstring."""
    parts = ["# Hooks", _preformatted(inspect.getdoc(hookspecs) or "")]
    for spec in ("StorageSpec", "NetworkSpec", "FirewallSpec", "ObserverSpec"):
        cls = getattr(hookspecs, spec)
        parts += [f"## {spec}", _preformatted(inspect.getdoc(cls) or "")]
        for name, hook in vars(cls).items():
            if not name.startswith("_"):
                parts += [f"### {name}", f"```python\n{name}{_signature(hook)}\n```"]
                parts.append(_preformatted(inspect.getdoc(hook) or ""))
    return "\n\n".join(parts)


def _signature(hook: Callable[..., object]) -> str:
    signature = inspect.signature(hook)
    kept = [p for p in signature.parameters.values() if p.name != "self"]
    return str(signature.replace(parameters=kept)).replace("'", "")


def _preformatted(text: str) -> str:
    return f"```text\n{text}\n```"


def errors_page() -> str:
    """The tree of errors, and when each is raised."""
    classes = [
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.StowageError)
    ]
    rows = ((f"`{cls.__name__}`", (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " "))
            for cls in classes)  # fmt: skip
    tree = _preformatted(inspect.getdoc(errors) or "")
    return "\n\n".join(("# Errors", tree, table(("class", "meaning"), rows)))


def configuration() -> str:
    """Every key of daemon.json."""
    parts = [
        "# Configuration",
        "Keys of `daemon.json` (`--config`, default `/etc/stowage/daemon.json`). "
        "A flag wins over the environment, the environment over the file. "
        "`stowage system config` shows what holds and where it comes from.",
    ]
    by_disposition = {
        Disposition.HONOURED: "## Honoured",
        Disposition.KEPT: "## Checked, for parts that come later",
    }
    for disposition, title in by_disposition.items():
        keys = [key for key in KEYS.values() if key.disposition is disposition]
        parts += [title, table(("key", "flag", "variable", "expects", "default", "meaning"),
                               (_key(key) for key in keys))]  # fmt: skip
    for disposition, title in {
        Disposition.IGNORED: "## Accepted with a warning",
        Disposition.REFUSED: "## Refused",
    }.items():
        keys = [key for key in KEYS.values() if key.disposition is disposition]
        rows = ((f"`{key.name}`", key.reason) for key in keys)
        parts += [title, table(("key", "why"), rows)]
    return "\n\n".join(parts)


def _key(key: Key) -> tuple[str, ...]:
    default = "unset" if key.default in (None, (), {}) else str(key.default)
    meaning = key.meaning + (" (ours)" if key.ours else "")
    return (f"`{key.name}`", f"`--{key.flag_name}`", f"`{key.variable}`", key.type.expects,
            default, meaning)  # fmt: skip


def command_line() -> str:
    """The help of every command, as it prints it."""
    from stowage.cli.commands import GROUPS, names

    words = [[], *([name] for name in names() if name not in GROUPS)]
    words += [[group, *_one(name)] for group in GROUPS for name in ("", *names(group))]
    parts = ["# Commands"]
    for path in words:
        title = " ".join(("stowage", *path))
        parts += [f"## {title}", _preformatted(_help(path))]
    return "\n\n".join(parts)


def _one(name: str) -> list[str]:
    return [name] if name else []


def _help(words: list[str]) -> str:
    out = StringIO()
    with redirect_stdout(out):  # in this process: a new one per command takes a minute in all
        assert stowage([*words, "--help"]) == 0, words
    return out.getvalue().strip()


BUILDERS = {
    "drivers.md": drivers,
    "hooks.md": hooks,
    "errors.md": errors_page,
    "configuration.md": configuration,
    "commands.md": command_line,
    "../conformance.md": conformance_page,
}
NOTE = "<!-- Written by `make docs` from the code; do not edit. -->\n\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    PAGES.mkdir(exist_ok=True)
    for name, build in BUILDERS.items():
        page, text = PAGES / name, NOTE + build() + "\n"
        if not page.exists() or page.read_text() != text:
            stale.append(name)
            if not check:
                page.write_text(text)
    for name in stale:
        print(f"docs/reference/{name} {'is stale: make docs' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
