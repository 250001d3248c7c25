"""Namespaces are changed only on threads that are thrown away."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from stowage.linux import namespaces


def test_what_a_thrown_away_thread_returns_or_raises_comes_back() -> None:
    def fail() -> None:
        raise LookupError("inside")

    assert namespaces.on_throwaway_thread(lambda: 7) == 7
    with pytest.raises(LookupError, match="inside"):
        namespaces.on_throwaway_thread(fail)
    assert namespaces.on_throwaway_thread(threading.get_ident) != threading.get_ident()


@pytest.mark.requires_root
def test_the_caller_keeps_its_namespaces_and_its_directory() -> None:
    def wander() -> None:
        namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET)
        os.chdir("/proc")

    before = [os.readlink(f"/proc/thread-self/ns/{kind}") for kind in ("mnt", "net")]
    directory = Path.cwd()
    namespaces.on_throwaway_thread(wander)

    assert [os.readlink(f"/proc/thread-self/ns/{kind}") for kind in ("mnt", "net")] == before
    assert Path.cwd() == directory


@pytest.mark.requires_root
def test_a_new_network_namespace_has_only_loopback_and_that_is_up() -> None:
    namespace = namespaces.new_network_namespace()
    try:
        names = namespaces.in_network_namespace(namespace, socket.if_nameindex)
        namespaces.in_network_namespace(namespace, talk_to_oneself)
        assert not os.get_inheritable(namespace)
    finally:
        os.close(namespace)

    assert names == [(1, "lo")]


def talk_to_oneself() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


@pytest.mark.requires_root
def test_a_cookie_names_one_network_namespace() -> None:
    made = [namespaces.new_network_namespace() for _ in range(2)]
    try:
        cookies = [namespaces.network_cookie(namespace) for namespace in (*made, *made)]
    finally:
        for namespace in made:
            os.close(namespace)

    assert cookies[:2] == cookies[2:]
    assert len({*cookies, namespaces.network_cookie()}) == 3


@pytest.mark.requires_root
def test_a_mount_namespace_is_entered_for_one_call() -> None:
    def make() -> int:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        return namespaces.open_namespace("mnt")

    namespace = namespaces.on_throwaway_thread(make)
    try:
        inside = namespaces.in_mount_namespace(
            namespace, lambda: os.readlink("/proc/thread-self/ns/mnt")
        )
        assert inside == f"mnt:[{os.fstat(namespace).st_ino}]"
    finally:
        os.close(namespace)
    assert inside != os.readlink("/proc/thread-self/ns/mnt")


def test_a_refused_call_is_an_os_error_with_its_name() -> None:
    with pytest.raises(OSError, match="setns"):
        namespaces.on_throwaway_thread(lambda: namespaces.setns(-1))
