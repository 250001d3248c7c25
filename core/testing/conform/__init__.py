"""The conformance kit: one executable definition of what a storage driver must do.

Three doors lead to the same properties::

    stowage conform storage vfs                      # the command

    class TestMine(StorageDriverTests):              # pytest, in a driver's own tests
        driver = "mine"

    report = conform("mine", on="btrfs")             # Python, without an engine

A **property** is a sentence that must hold, under a name (``L3``), and a function that tries to
refute it. A **subject** is one driver in a fresh root, driven through the layer store. The
**model** says what a snapshot must show; it knows nothing of drivers. What drivers may do
differently is a **capability**, declared by the driver's probe and itself tested; no property asks
for a driver's name.

Adding a property
=================

Write it in the module of its family in :mod:`.properties` (``layers`` L…, ``diff`` D…, …), or in
a new module there, which is found by itself::

    from ..case import Case
    from ..registry import prop

    @prop("L3", "A new child shows what its parent shows, its root's own attributes included")
    def child_sees_parent(case: Case) -> None:
        _, trees = case.chain()
        case.subject.prepare("child", f"layer{len(trees)}")

        case.shows("child", trees[-1])

- ``case.subject`` is the driver, in an empty root; its methods are containerd's verbs, file
  operations through the mount (``done``, ``perform``), diff and apply, mounts, reopening.
- ``case.draw(strategy)`` makes each example different; ``case.edit``, ``layer`` and ``chain`` draw
  trees, do them, and hold the driver against the model on the way.
- Whatever is to be shown when it fails goes through a method of the subject that is a ``@step``;
  a check that is one itself (``same``, ``shows``, ``refused``) fails in the printed script, too.
- ``needs="quota_size"`` names a capability that it takes, ``machine="mounts"`` an ability of the
  machine, ``once=True`` says that one example is enough, ``weight`` how many it gets.
- Assertions carry a message: the command shows it without pytest's help.

A test of the kit's own (``tests/testing/conform``) plants a fault that the property must catch.

Modules: ``registry`` (``@prop``), ``case``, ``subject``, ``steps`` (what was done, as a script),
``operations`` (file operations as data), ``tree`` (observation), ``model``, ``strategies``,
``runner``, ``report``, ``suite`` (the pytest class).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .case import Case as Case
    from .model import ModelTree as ModelTree
    from .model import Traits as Traits
    from .operations import Chmod as Chmod
    from .operations import Chown as Chown
    from .operations import Create as Create
    from .operations import Link as Link
    from .operations import Mkdir as Mkdir
    from .operations import Mknod as Mknod
    from .operations import Operation as Operation
    from .operations import RemoveXattr as RemoveXattr
    from .operations import Rename as Rename
    from .operations import Rmdir as Rmdir
    from .operations import SetXattr as SetXattr
    from .operations import Symlink as Symlink
    from .operations import Truncate as Truncate
    from .operations import Unlink as Unlink
    from .operations import Utime as Utime
    from .operations import Write as Write
    from .registry import Property as Property
    from .registry import find_properties as find_properties
    from .registry import prop as prop
    from .report import Outcome as Outcome
    from .report import Report as Report
    from .runner import conform as conform
    from .subject import Subject as Subject
    from .suite import StorageDriverTests as StorageDriverTests
    from .tree import Node as Node
    from .tree import Tree as Tree
    from .tree import observe as observe

#: Imported when first used: Hypothesis and pytest take half a second.
_MODULE_BY_NAME = {
    "Case": ".case",
    "Chmod": ".operations",
    "Chown": ".operations",
    "Create": ".operations",
    "Link": ".operations",
    "Mkdir": ".operations",
    "Mknod": ".operations",
    "ModelTree": ".model",
    "Node": ".tree",
    "Operation": ".operations",
    "Outcome": ".report",
    "Property": ".registry",
    "RemoveXattr": ".operations",
    "Rename": ".operations",
    "Report": ".report",
    "Rmdir": ".operations",
    "SetXattr": ".operations",
    "StorageDriverTests": ".suite",
    "Subject": ".subject",
    "Symlink": ".operations",
    "Traits": ".model",
    "Tree": ".tree",
    "Truncate": ".operations",
    "Unlink": ".operations",
    "Utime": ".operations",
    "Write": ".operations",
    "conform": ".runner",
    "find_properties": ".registry",
    "observe": ".tree",
    "prop": ".registry",
}


def __getattr__(name: str) -> object:
    home = _MODULE_BY_NAME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home, __name__), name)
    globals()[name] = value
    return value


__all__ = [
    "Case",
    "Chmod",
    "Chown",
    "Create",
    "Link",
    "Mkdir",
    "Mknod",
    "ModelTree",
    "Node",
    "Operation",
    "Outcome",
    "Property",
    "RemoveXattr",
    "Rename",
    "Report",
    "Rmdir",
    "SetXattr",
    "StorageDriverTests",
    "Subject",
    "Symlink",
    "Traits",
    "Tree",
    "Truncate",
    "Unlink",
    "Utime",
    "Write",
    "conform",
    "find_properties",
    "observe",
    "prop",
]
