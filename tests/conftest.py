"""The session enters a lab; fixtures give places to work in; nothing may skip or leak in silence.

- As root everything runs in namespaces of its own (``stowage.testing.lab``): no test can touch
  the machine's network or mount table. Each worker of ``-n`` has its own.
- ``@pytest.mark.requires("mounts", "xfs", …)`` skips where an ability is missing and says why;
  ``requires_root`` is short for ``requires("mounts")`` (root with CAP_SYS_ADMIN).
- Where containers can run, any other skip is a failure: a test may not excuse itself.
  ``STOWAGE_REQUIRED_TESTS`` (patterns of test ids, comma-separated) turns every skip of those
  into a failure, a missing package included.
- ``STOWAGE_TEST_PROFILE=full`` (``make test-full``) raises the counts: see the fixture ``rounds``;
  Hypothesis follows by its profiles.
- After each module what it left behind fails it: mounts, loop devices, processes, descriptors
  of namespaces and of files in the lab, cgroups.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from stowage.testing.abilities import known, missing
from stowage.testing.disks import loop_mounted
from stowage.testing.lab import Lab, enter_lab, forget_networks
from stowage.testing.leaks import leaked, picture, remember_roots

LAB = pytest.StashKey[Lab]()

#: Reasons that hold on a machine that can run containers; all others must not skip there.
ALLOWED_SKIPS = (
    r"needs [a-z0-9]+: ",  # of the marker `requires`: tried just now, and named
    r"kernel \S+ (has no|lacks|is older than) ",  # a feature that this kernel really has not
    r"only without root: ",  # what a plain user meets
    r"the driver does not claim it: ",  # of the conformance kit, which tests what is not claimed
)

FULL = os.environ.get("STOWAGE_TEST_PROFILE") == "full"

settings.register_profile("short", max_examples=25, deadline=None, print_blob=True)
settings.register_profile("full", max_examples=500, deadline=None, print_blob=True)
settings.load_profile("full" if FULL else "short")

_ENDING_SECONDS = 5.0


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "requires(*abilities): skip where one is missing")
    config.addinivalue_line("markers", "requires_root: skip without root and CAP_SYS_ADMIN")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Before any thread of a test exists; xdist's controller and each worker enter one."""
    lab = enter_lab()
    session.config.stash[LAB] = lab
    # decided by pytest before, and for a worker inside the controller's lab
    factory = session.config._tmp_path_factory  # type: ignore[attr-defined]
    factory._given_basetemp = lab.directory / "t"
    factory._basetemp = None


def pytest_sessionfinish(session: pytest.Session) -> None:
    if LAB in session.config.stash:
        session.config.stash[LAB].leave()


def pytest_report_header(config: pytest.Config) -> str:
    reason = missing("mounts") or missing("netns")
    return f"lab: {'none, ' + reason if reason else 'network and mount namespace of its own'}"


# --- skips ------------------------------------------------------------------------------------


def pytest_runtest_setup(item: pytest.Item) -> None:
    abilities = [name for mark in item.iter_markers("requires") for name in mark.args]
    if next(item.iter_markers("requires_root"), None):
        abilities.append("mounts")
    for ability in abilities:
        if reason := missing(ability):
            pytest.skip(f"needs {ability}: {reason}")


def _may_skip(nodeid: str, reason: str) -> bool:
    required = os.environ.get("STOWAGE_REQUIRED_TESTS", "")
    if any(fnmatch.fnmatch(nodeid, pattern) for pattern in required.split(",") if pattern):
        return False
    reason = reason.removeprefix("Skipped: ")
    allowed = any(re.match(pattern, reason) for pattern in ALLOWED_SKIPS)
    return allowed or missing("containers") is not None


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not _may_skip(report.nodeid, reason):
        report.outcome = "failed"
        report.longrepr = f"may not skip on this machine ({reason}); see tests/conftest.py"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


# --- fixtures ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Lab:
    """The lab of this process; ``lab.directory`` is on tmpfs."""
    return pytestconfig.stash[LAB]


@pytest.fixture(scope="session")
def rounds() -> Callable[[int, int], int]:
    """``rounds(20, 200)``: how often to repeat, in the short profile and in the full one."""
    return lambda short, full: full if FULL else short


@pytest.fixture
def requires_root() -> None:
    """Skip without root and CAP_SYS_ADMIN, for those who prefer a fixture to the marker."""
    if reason := missing("mounts"):
        pytest.skip(f"needs mounts: {reason}")


@pytest.fixture(autouse=True, scope="module")
def leak_check(lab: Lab) -> Iterator[None]:
    """Fail a module that leaves a mount, loop device, process, descriptor or cgroup behind.

    An exit command that finds nothing left to do may still be on its way out.
    """
    before = picture(lab)
    yield
    deadline = time.monotonic() + _ENDING_SECONDS
    while (left := leaked(before, picture(lab))) and time.monotonic() < deadline:
        time.sleep(0.05)
    if lab.isolated:
        forget_networks()
    if left:
        pytest.fail("left behind by this module:\n  " + "\n  ".join(left), pytrace=False)


class _Disks:
    """One loop-mounted file system of each kind per session, made when first asked for."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._stack = ExitStack()
        self._roots: dict[str, Path] = {}
        self._made = 0

    def directory(self, kind: str) -> Path:
        """Return a fresh directory on a file system of *kind*; skip where it cannot be had."""
        assert kind in ("tmpfs", *known())
        if kind != "tmpfs" and (reason := missing(kind)):
            pytest.skip(f"needs {kind}: {reason}")
        if kind not in self._roots:
            self._roots[kind] = self._mount(kind)
        self._made += 1
        made = self._roots[kind] / f"d{self._made}"
        made.mkdir()
        return made

    def _mount(self, kind: str) -> Path:
        base = self.lab.directory / "disks"
        base.mkdir(exist_ok=True)
        if kind == "tmpfs":
            return base
        root = self._stack.enter_context(loop_mounted(kind, base, size_bytes=1 << 30))
        self.lab.kept.add(str(root))
        return root

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="session")
def _disks(lab: Lab) -> Iterator[_Disks]:
    disks = _Disks(lab)
    yield disks
    disks.close()


def _on(disks: _Disks, kind: str) -> Iterator[Path]:
    made = disks.directory(kind)
    yield made
    remember_roots(disks.lab, made)
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def ext4_dir(_disks: _Disks) -> Iterator[Path]:
    """A fresh directory on a loop-mounted ext4 of 1 GiB."""
    yield from _on(_disks, "ext4")


@pytest.fixture
def xfs_dir(_disks: _Disks) -> Iterator[Path]:
    """A fresh directory on a loop-mounted xfs with reflink, of 1 GiB."""
    yield from _on(_disks, "xfs")


@pytest.fixture
def btrfs_dir(_disks: _Disks) -> Iterator[Path]:
    """A fresh directory on a loop-mounted btrfs of 1 GiB."""
    yield from _on(_disks, "btrfs")


@pytest.fixture(params=["tmpfs", "ext4", "xfs", "btrfs"])
def disk_dir(request: pytest.FixtureRequest, _disks: _Disks) -> Iterator[Path]:
    """A fresh directory on each of tmpfs, ext4, xfs and btrfs in turn."""
    yield from _on(_disks, request.param)


@pytest.fixture
def shm_dir(_disks: _Disks) -> Iterator[Path]:
    """A fresh directory on tmpfs, short enough for unix sockets below it."""
    yield from _on(_disks, "tmpfs")
