"""``stowage driver new``: a third-party package with a driver that works, written into a folder.

The templates beside this module are what ``plugins/stowage-template`` was written from.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from string import Template

from ..effects import effect
from ..errors import AlreadyExists, InvalidArgument
from ..plugins import discover

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 40

#: The files of a package and the templates that they are written from.
_TEMPLATE_BY_FILE = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "readme.md.txt",
    "src/$package/__init__.py": "driver.py.txt",
    "src/$package/py.typed": "",
    "tests/test_$package.py": "test_conformance.py.txt",
}


def storage_package(name: str) -> dict[str, str]:
    """Return the files of a package with a storage driver called *name*: texts by path."""
    words = {
        "name": name,
        "distribution": f"stowage-{name}",
        "package": f"stowage_{name.replace('-', '_')}",
        "camel": "".join(word.capitalize() for word in name.split("-")),
    }
    sources = files(__name__)
    return {
        Template(path).substitute(words): Template(
            sources.joinpath(template).read_text("utf-8")
        ).substitute(words)
        if template
        else ""
        for path, template in _TEMPLATE_BY_FILE.items()
    }


def new_storage_driver(name: str, above: Path) -> Path:
    """Write such a package to the new folder ``stowage-NAME`` in *above*; return the folder.

    It appears whole or not at all.

    Raises:
        InvalidArgument: if *name* cannot name a driver and a module.
        AlreadyExists: if there is such a driver or such a folder.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise InvalidArgument(
            f"{name!r} cannot be the name of a driver",
            details=f"expected small letters, digits and single dashes, at most {_LONGEST}",
        )
    for plugin in discover("storage"):
        if plugin.name == name:
            raise AlreadyExists(
                "storage driver",
                name,
                brief=f"there is a storage driver {name!r} already, of {plugin.owner}",
                resolution="choose another name",
            )
    folder = above / f"stowage-{name}"
    if folder.exists() or folder.is_symlink():
        raise AlreadyExists(
            "folder",
            str(folder),
            brief=f"{folder} exists already",
            resolution="remove it, or go to another directory",
        )
    with effect("scaffold.begin", path=above):
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=above))
    try:
        for path, text in storage_package(name).items():
            with effect("scaffold.write", path=path):
                (draft / path).parent.mkdir(parents=True, exist_ok=True)
                (draft / path).write_text(text, "utf-8")
        with effect("scaffold.publish", path=folder):
            draft.chmod(0o755)
            draft.rename(folder)
    except BaseException:
        with effect("scaffold.undo", path=draft):
            shutil.rmtree(draft, ignore_errors=True)
        raise
    return folder


__all__ = ["new_storage_driver", "storage_package"]
