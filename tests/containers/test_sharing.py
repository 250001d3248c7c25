"""``--network container:<id>``: one namespace for two, and whose end takes what along."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from stowage.containers.context import Context
from stowage.containers.model import ContainerState
from stowage.errors import FailedPrecondition, NotFound

from .boxes import Boxes, until
from .wires import assert_quiet, links, rows

pytestmark = pytest.mark.requires("containers", "conmon", "busybox")


@pytest.fixture(autouse=True)
def quiet(boxes: Boxes) -> Iterator[None]:
    """Whatever a test did, its containers leave nothing."""
    boxes.run("true", network=None)
    yield
    boxes.clear()
    assert_quiet(boxes)


def test_address_names_and_host_name_are_the_other_ones(boxes: Boxes) -> None:
    target = boxes.start("sleep", "60", network=None, hostname="box.dom.ain", name="target")
    script = "hostname; cat /etc/hosts /etc/hostname; ip -o -4 addr show eth0"
    said = boxes.sh(script, network="container:target")

    assert said.startswith("box.dom.ain\n")
    assert said == boxes.shell(target, script)
    assert "172.17.0.2\tbox.dom.ain box\n" in said
    assert len(links()) == 1


def test_the_target_is_known_by_its_id_whatever_its_name(boxes: Boxes) -> None:
    target = boxes.start("sleep", "60", network=None, name="target")
    made = boxes.containers.create(boxes.spec("true", network="container:target"))
    boxes.containers.rename("target", "other")

    assert made.spec.network == f"container:{target.id}"
    boxes.containers.start(made.id)
    assert boxes.containers.wait(made.id) == 0


def test_a_chain_shares_the_network_of_its_end(boxes: Boxes) -> None:
    boxes.start("sleep", "60", network=None, name="end", hostname="end")
    boxes.start("sleep", "60", network="container:end", name="middle")

    said = boxes.sh("hostname; cat /etc/hosts", network="container:middle")
    assert said.startswith("end\n")
    assert "172.17.0.2\tend\n" in said


def test_who_shares_the_hosts_network_changes_none_of_its_sysctls(boxes: Boxes) -> None:
    """The runtime would set them in the namespace it is given: the host's."""
    from pathlib import Path

    knob = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    before = knob.read_text()
    boxes.start("sleep", "60", network="host", name="open")
    boxes.run("true", network="container:open")

    assert knob.read_text() == before


def test_a_target_that_does_not_run_is_refused(boxes: Boxes) -> None:
    boxes.containers.create(boxes.spec("sleep", "60", network=None, name="target"))
    with pytest.raises(FailedPrecondition) as refusal:
        boxes.run("true", network="container:target")
    assert refusal.value.brief == (
        "cannot join network namespace of a non running container: container target is created"
    )
    with pytest.raises(NotFound, match="No such container: nosuch"):
        boxes.run("true", network="container:nosuch")
    assert [record.name for record in boxes.containers.list()] == ["target"]


def test_the_targets_end_takes_its_address_and_link_from_the_sharer(boxes: Boxes) -> None:
    """The namespace stays: its processes go on, with lo. Nobody else meets the old address."""
    target = boxes.start("sleep", "60", network=None, name="target")
    sharer = boxes.start("sleep", "60", network="container:target")
    boxes.containers.stop(target.id, 0)

    assert rows(boxes) == []
    assert links() == []
    assert boxes.shell(sharer, "ip -o link").count("\n") == 1
    fresh = boxes.start("sleep", "60", network=None)
    assert "172.17.0.2" in boxes.shell(fresh, "ip -o -4 addr show eth0")


def test_after_the_targets_restart_a_sharer_joins_anew_when_it_restarts(boxes: Boxes) -> None:
    target = boxes.start("sleep", "60", network=None, name="target")
    sharer = boxes.start("sleep", "60", network="container:target")
    boxes.containers.stop(target.id, 0)
    boxes.containers.start(target.id)
    boxes.containers.stop(sharer.id, 0)
    boxes.containers.start(sharer.id)

    assert "172.17.0.2/16" in boxes.shell(sharer, "ip -o -4 addr show eth0")


def test_a_sharer_outlives_the_removal_of_its_target(boxes: Boxes) -> None:
    target = boxes.start("sleep", "60", network=None, name="target")
    sharer = boxes.start("sleep", "60", network="container:target")
    boxes.containers.remove(target.id, force=True)

    assert boxes.shell(sharer, "echo still here") == "still here\n"
    boxes.containers.stop(sharer.id, 0)
    with pytest.raises(NotFound, match="joining network namespace of container: No such cont"):
        boxes.containers.start(sharer.id)


def test_a_target_that_ends_during_the_start_of_a_sharer_fails_it(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody would take the link away: its owner's end saw no sharer yet."""
    target = boxes.start("sleep", "60", network=None, name="target")
    update = Context(boxes.engine).rows.update

    def late(record: object, **facts: object) -> object:
        if facts.get("state") is ContainerState.RUNNING:
            boxes.containers.stop(target.id, 0)
        return update(record, **facts)  # type: ignore[arg-type]  # handed on as it came

    sharer = boxes.containers.create(boxes.spec("sleep", "60", network="container:target"))
    monkeypatch.setattr(boxes.context.rows, "update", late)
    with pytest.raises(FailedPrecondition, match="non running container: container target"):
        boxes.containers.start(sharer.id)
    monkeypatch.undo()

    until(lambda: not links(), "the link to go")
    assert not boxes.containers.get(sharer.id).state.lives
    assert boxes.containers.pid(sharer.id) == 0
    assert replace(boxes.containers.get(sharer.id).runtime).starting is False
