"""``--change`` accepts what dockerd accepts, in both forms, and refuses in its words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.errors import InvalidArgument
from stowage.images.changes import apply_changes, exposed_ports, parse_duration
from stowage.images.config import Healthcheck, RunConfig
from stowage.images.words import expand, split_words


def changed(*changes: str, base: RunConfig | None = None) -> RunConfig:
    return apply_changes(base or RunConfig(), changes)


def test_cmd_has_a_shell_and_a_json_form() -> None:
    assert changed("CMD echo hi").cmd == ("/bin/sh", "-c", "echo hi")
    assert changed('CMD ["echo", "hi"]').cmd == ("echo", "hi")
    assert changed("cmd [not json").cmd == ("/bin/sh", "-c", "[not json")
    assert changed("CMD x", base=RunConfig(shell=("/bin/bash", "-ec"))).cmd == (
        "/bin/bash", "-ec", "x",
    )  # fmt: skip


def test_an_entrypoint_drops_a_cmd_that_was_inherited() -> None:
    base = RunConfig(cmd=("old",))

    assert changed('ENTRYPOINT ["/e"]', base=base).cmd == ()
    assert changed("CMD x", 'ENTRYPOINT ["/e"]', base=base).cmd == ("/bin/sh", "-c", "x")
    assert changed('ENTRYPOINT ["/e"]', base=base).entrypoint == ("/e",)


def test_env_has_two_forms_and_replaces_in_place() -> None:
    base = RunConfig(env=("PATH=/bin", "B=1"))
    config = changed("ENV PATH=/sbin:$PATH C='a  b' D=\"q $B\"", "ENV E several words", base=base)

    assert config.env == ("PATH=/sbin:/bin", "B=1", "C=a  b", "D=q 1", "E=several words")


def test_the_other_instructions_set_their_field() -> None:
    config = changed(
        "EXPOSE 80 8000-8001/udp",
        'LABEL a=b "c d"="e f"',
        "USER 1000:1000",
        "VOLUME /a /b",
        'VOLUME ["/c"]',
        "WORKDIR /srv",
        "WORKDIR app/../x",
        "STOPSIGNAL SIGINT",
        "ONBUILD RUN make",
        "# a comment",
        "",
    )

    assert config == RunConfig(
        exposed_ports=("80/tcp", "8000/udp", "8001/udp"),
        labels={"a": "b", "c d": "e f"},
        user="1000:1000",
        volumes=("/a", "/b", "/c"),
        working_dir="/srv/x",
        stop_signal="SIGINT",
        on_build=("RUN make",),
    )


def test_a_backslash_continues_a_line() -> None:
    assert changed("ENV A=1 \\\n  B=2").env == ("A=1", "B=2")


def test_healthcheck_takes_flags_a_command_or_none() -> None:
    shell = changed("HEALTHCHECK --interval=30s --timeout=1m30s --retries=3 CMD curl x")
    exact = changed('HEALTHCHECK CMD ["a", "b"]')

    assert shell.healthcheck == Healthcheck(
        ("CMD-SHELL", "curl x"), interval_ns=30 * 10**9, timeout_ns=90 * 10**9, retries=3
    )
    assert exact.healthcheck == Healthcheck(("CMD", "a", "b"))
    assert changed("HEALTHCHECK NONE").healthcheck == Healthcheck(("NONE",))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("RUN make", "run is not a valid change command"),
        ("FROM x", "from is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV a", "ENV must have two arguments"),
        ("ENV a=b c", "can't find = in"),
        ("ENV =b", "ENV names can not be blank"),
        ("ENV a='b", "unexpected end of statement"),
        ('ENV a="b', "unexpected end of statement"),
        ("ENV a=${b", "missing|unsupported modifier"),
        ("LABEL =x", "LABEL names can not be blank"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("EXPOSE abc", "Invalid containerPort: abc"),
        ("EXPOSE 70000", "Invalid containerPort: 70000"),
        ("EXPOSE 80/xyz", "Invalid proto: xyz"),
        ("USER", "USER requires exactly one argument"),
        ("USER a b", "USER requires exactly one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ('VOLUME [""]', "VOLUME specified can not be an empty string"),
        ("STOPSIGNAL NOPE", "Invalid signal: NOPE"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK RUN x", 'Unknown type "RUN" in HEALTHCHECK'),
        ("HEALTHCHECK --nope=1 CMD x", "Unknown flag: nope"),
        ("HEALTHCHECK --retries=0 CMD x", "--retries must be at least 1"),
        ("HEALTHCHECK --interval=1us CMD x", "cannot be less than 1ms"),
        ("HEALTHCHECK --interval=soon CMD x", "invalid duration 'soon'"),
    ],
)
def test_what_dockerd_refuses_is_refused(change: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        changed(change)


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("$A", "1"),
        ("${A}x", "1x"),
        ("${N:-d}", "d"),
        ("${A:+y}", "y"),
        ("${N:+y}", ""),
        ("${N:-${A}}", "1"),
        ("'$A'", "$A"),
        ('"$A\\""', '1"'),
        (r"\$A", "$A"),
        ("$", "$"),
        ("a$N b", "a b"),
    ],
)
def test_variables_quotes_and_escapes(word: str, expanded: str) -> None:
    assert expand(word, {"A": "1"}) == expanded


def test_go_durations_are_read() -> None:
    assert parse_duration("1h2m3.5s") == (3600 + 120 + 3) * 10**9 + 500_000_000
    assert parse_duration("0") == 0
    for bad in ("", "5", "-1s", "s", "1s x"):
        with pytest.raises(InvalidArgument):
            parse_duration(bad)


def test_a_port_range_is_spelled_out() -> None:
    assert exposed_ports("80-82") == ["80/tcp", "81/tcp", "82/tcp"]
    with pytest.raises(InvalidArgument):
        exposed_ports("82-80")


@given(st.text(max_size=60))
def test_any_text_is_applied_or_refused(text: str) -> None:
    """Hostile instructions end in InvalidArgument, never in another exception."""
    for instruction in ("ENV", "LABEL", "VOLUME", "EXPOSE", "HEALTHCHECK", "WORKDIR", "CMD"):
        try:
            changed(f"{instruction} {text}")
        except InvalidArgument:
            pass


@given(st.lists(st.text("abc=/.-_", min_size=1, max_size=8), max_size=5))
def test_plain_words_are_split_at_spaces(words: list[str]) -> None:
    assert split_words("  ".join(words)) == words
