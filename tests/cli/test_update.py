"""``update``: other limits for containers that exist."""

from __future__ import annotations

import pytest

from .conftest import Run

pytestmark = pytest.mark.requires("containers")


def test_update_changes_what_inspect_tells(stowage: Run) -> None:
    """Each name is printed, and a missing one makes the command fail."""
    for name in ("one", "two"):
        stowage("create", "--network", "none", "--name", name, "-m", "64m", "busybox", "true")

    done = stowage("update", "-m32m", "--pids-limit", "9", "--cpus", ".5", "one", "nosuch", "two")

    assert (done.code, done.out) == (1, "one\ntwo\n")
    assert done.err == "Error: No such container: nosuch\n"
    shown = "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.NanoCpus}}"
    assert stowage("inspect", "-f", shown, "one").line == f"{32 << 20} 9 500000000"
    assert stowage("container", "update", "--pids-limit", "-1", "two").line == "two"
    assert stowage("inspect", "-f", "{{json .HostConfig.PidsLimit}}", "two").line == "null"
    assert stowage("update", "--restart", "on-failure:4", "two").line == "two"
    assert stowage("inspect", "-f", "{{json .HostConfig.RestartPolicy}}", "two").line == (
        '{"Name":"on-failure","MaximumRetryCount":4}'
    )
    done = stowage("update", "one")
    assert done.code == 1
    assert "you must provide one or more flags when using this command" in done.err
    stowage("create", "--network", "none", "--name", "gone", "--rm", "busybox", "true")
    done = stowage("update", "--restart", "always", "gone")
    assert "Restart policy cannot be updated because AutoRemove is enabled" in done.err
    assert stowage("rm", "one", "two", "gone").code == 0
