"""The grammar of ``-p``: what it means, what it refuses in Docker's words, and back again."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.errors import InvalidArgument
from stowage.net.port_specs import (
    TRANSPORTS,
    PortRequest,
    parse_expose,
    parse_publish,
    parse_publishes,
    publish_all,
)

LOCAL = ip_address("127.0.0.1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [PortRequest("tcp", 80)]),
        ("80/udp", [PortRequest("udp", 80)]),
        ("80/TCP", [PortRequest("tcp", 80)]),
        ("8080:80", [PortRequest("tcp", 80, None, (8080, 8080))]),
        ("0:80", [PortRequest("tcp", 80)]),
        (":80", [PortRequest("tcp", 80)]),
        ("127.0.0.1:8080:80/sctp", [PortRequest("sctp", 80, LOCAL, (8080, 8080))]),
        ("127.0.0.1::80", [PortRequest("tcp", 80, LOCAL)]),
        ("[::1]:8080:80", [PortRequest("tcp", 80, ip_address("::1"), (8080, 8080))]),
        ("::1:8080:80", [PortRequest("tcp", 80, ip_address("::1"), (8080, 8080))]),
        ("[::]::80", [PortRequest("tcp", 80, ip_address("::"))]),
        ("8000-8001:80-81", [PortRequest("tcp", 80, None, (8000, 8000)),
                             PortRequest("tcp", 81, None, (8001, 8001))]),
        ("80-81/udp", [PortRequest("udp", 80), PortRequest("udp", 81)]),
        ("8000-8010:80", [PortRequest("tcp", 80, None, (8000, 8010))]),
        ("target=80", [PortRequest("tcp", 80)]),
        ("published=8080,target=80,protocol=udp,mode=host",
         [PortRequest("udp", 80, None, (8080, 8080))]),
    ],
)  # fmt: skip
def test_each_form_means_what_docker_says(text: str, expected: list[PortRequest]) -> None:
    assert list(parse_publish(text)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [  # of docker 28.2, whose command line parses them itself
        ("abc", "Invalid containerPort: abc"),
        ("80:abc", "Invalid containerPort: abc"),
        ("abc:80", "Invalid hostPort: abc"),
        ("80/foo", "Invalid proto: foo"),
        ("8000-8001:80-82",
         "Invalid ranges specified for container and host Ports: 80-82 and 8000-8001"),
        ("", "No port specified: <empty>"),
        (":", "No port specified: :<empty>"),
        (":::", "Invalid ip address: :"),
        ("70000", "Invalid containerPort: 70000"),
        ("80:70000", "Invalid containerPort: 70000"),
        ("1.2.3:80:80", "Invalid ip address: 1.2.3"),
        ("[::1:80:80", "Invalid ip address [::1: address [::1:: missing ']' in address"),
        ("[::1]80:80", "Invalid ip address [:: address [::: missing ']' in address"),
        ("90-80", "Invalid containerPort: 90-80"),
        ("80-", "Invalid containerPort: 80-"),
        ("-80", "Invalid containerPort: -80"),
        ("²", "Invalid containerPort: ²"),
        ("fe80::1%eth0:80:80", "Invalid ip address: fe80::1%eth0"),
        ("a=b", "No port specified: :/tcp<empty>"),
        ("published=90", "No port specified: 90:/tcp<empty>"),
        ("target=80,x", "invalid publish opts format (should be name=value but got 'x')"),
    ],
)  # fmt: skip
def test_a_wrong_form_is_refused_in_dockers_words(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_publish(text)

    assert caught.value.brief == words


PORTS = st.integers(1, 65535)
REQUESTS = st.builds(
    PortRequest,
    st.sampled_from(TRANSPORTS),
    PORTS,
    st.none() | st.builds(IPv4Address, st.integers(0, 2**32 - 1))
    | st.builds(IPv6Address, st.integers(0, 2**128 - 1)),
    st.none() | st.tuples(PORTS, PORTS).map(lambda pair: (min(pair), max(pair))),
)  # fmt: skip


@given(REQUESTS)
def test_text_and_request_are_two_forms_of_one_thing(request: PortRequest) -> None:
    assert parse_publish(str(request)) == (request,)


@given(st.text("0123456789abc:[].-/=,tcpud", max_size=20))
def test_any_text_gives_requests_or_one_clear_error(text: str) -> None:
    try:
        requests = parse_publish(text)
    except InvalidArgument:
        return
    assert all(parse_publish(str(request)) == (request,) for request in requests)


def test_the_same_port_asked_twice_is_one() -> None:
    assert len(parse_publishes(["80:80", "80:80/tcp", "81:80"])) == 2


def test_exposed_ports_come_as_ranges() -> None:
    assert parse_expose("7000-7001/udp") == ((7000, "udp"), (7001, "udp"))
    with pytest.raises(InvalidArgument, match="invalid range format for --expose: x"):
        parse_expose("x")


def test_publish_all_adds_a_free_port_for_what_is_not_asked_for() -> None:
    asked = parse_publish("8080:80")

    requests = publish_all([(443, "tcp"), (80, "tcp"), (53, "udp")], asked)

    assert requests == (*asked, PortRequest("udp", 53), PortRequest("tcp", 443))
