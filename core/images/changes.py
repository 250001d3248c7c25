"""``--change`` of import and commit: Dockerfile instructions applied to an image's config.

What is accepted, in which form and with which words of refusal follows dockerd 20.10
(``builder/dockerfile/builder.go``, ``dispatchers.go``).
"""

from __future__ import annotations

import posixpath
import re
import signal
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from ..errors import InvalidArgument
from .config import Healthcheck, RunConfig
from .words import expand, expand_words, json_words, name_values

_DEFAULT_SHELL = ("/bin/sh", "-c")
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNIT_NS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
_MILLISECOND_NS = 10**6
_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/([a-z]+))?")


class _State(Struct, frozen=True):
    """The config so far, and whether a CMD was among the changes (ENTRYPOINT then keeps it)."""

    config: RunConfig
    cmd_given: bool = False


def apply_changes(config: RunConfig, changes: Iterable[str]) -> RunConfig:
    """Return *config* with Dockerfile instructions applied in order.

    Each item may hold several lines; comments and lines continued by ``\\`` are as in a
    Dockerfile.

    Raises:
        InvalidArgument: if an instruction is not allowed here or its arguments are wrong.
    """
    state = _State(config)
    for name, arguments in _instructions(changes):
        handler = _HANDLERS.get(name.upper())
        if handler is None:
            raise InvalidArgument(
                f"{name.lower()} is not a valid change command",
                resolution="allowed are " + ", ".join(sorted(_HANDLERS)),
            )
        state = handler(state, arguments)
    return state.config


def _instructions(changes: Iterable[str]) -> Iterable[tuple[str, str]]:
    pending = ""
    for line in "\n".join(changes).split("\n"):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line.rstrip().endswith("\\"):
            pending += line.rstrip()[:-1]
            continue
        name, _, arguments = (pending + line).strip().partition(" ")
        pending = ""
        yield name, arguments.strip()
    if pending.strip():
        name, _, arguments = pending.strip().partition(" ")
        yield name, arguments.strip()


def _command(state: _State, arguments: str) -> tuple[str, ...]:
    words = json_words(arguments)
    if words is not None:
        return tuple(words)
    return (*(state.config.shell or _DEFAULT_SHELL), arguments) if arguments else ()


def _cmd(state: _State, arguments: str) -> _State:
    command = _command(state, arguments)
    return _State(replace(state.config, cmd=command), state.cmd_given or bool(command))


def _entrypoint(state: _State, arguments: str) -> _State:
    config = replace(state.config, entrypoint=_command(state, arguments))
    # a CMD inherited from below would be arguments for another entrypoint
    return _State(config if state.cmd_given else replace(config, cmd=()), state.cmd_given)


def _env(state: _State, arguments: str) -> _State:
    _require_arguments("ENV", arguments)
    config, before = state.config, state.config.environment
    for raw_name, raw_value in name_values(arguments, "ENV"):
        name = expand(raw_name, before)
        if not name:
            raise InvalidArgument("ENV names can not be blank")
        config = config.with_env(name, expand(raw_value, before))
    return replace(state, config=config)


def _label(state: _State, arguments: str) -> _State:
    _require_arguments("LABEL", arguments)
    environment = state.config.environment
    labels = dict(state.config.labels)
    for raw_name, raw_value in name_values(arguments, "LABEL"):
        name = expand(raw_name, environment)
        if not name:
            raise InvalidArgument("LABEL names can not be blank")
        labels[name] = expand(raw_value, environment)
    return replace(state, config=replace(state.config, labels=labels))


def _expose(state: _State, arguments: str) -> _State:
    words = expand_words(arguments, state.config.environment)
    if not words:
        raise InvalidArgument("EXPOSE requires at least one argument")
    ports = list(state.config.exposed_ports)
    for word in words:
        ports.extend(port for port in exposed_ports(word) if port not in ports)
    return replace(state, config=replace(state.config, exposed_ports=tuple(sorted(ports))))


def exposed_ports(text: str) -> list[str]:
    """Return ``["80/tcp", "81/tcp"]`` for ``80-81``; the protocol is tcp unless it is said.

    Raises:
        InvalidArgument: in Docker's words, if it is not a port, a range or a protocol.
    """
    match = _PORT.fullmatch(text.lower())
    if match is None:
        raise InvalidArgument(f"Invalid containerPort: {text}")
    first, last, protocol = int(match[1]), int(match[2] or match[1]), match[3] or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"Invalid proto: {protocol}")
    if not first <= last <= 65535:
        raise InvalidArgument(f"Invalid containerPort: {text}")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _user(state: _State, arguments: str) -> _State:
    return replace(state, config=replace(state.config, user=_one_word(state, "USER", arguments)))


def _stop_signal(state: _State, arguments: str) -> _State:
    word = _one_word(state, "STOPSIGNAL", arguments)
    _check_signal(word)
    return replace(state, config=replace(state.config, stop_signal=word))


def _check_signal(word: str) -> None:
    if word.isdecimal():
        known = 0 < int(word) <= signal.SIGRTMAX
    else:
        name = "SIG" + word.upper().removeprefix("SIG")
        real_time = re.fullmatch(r"SIGRT(MIN(\+\d+)?|MAX(-\d+)?)", name)
        known = name in signal.Signals.__members__ or real_time is not None
    if not known:
        raise InvalidArgument(f"Invalid signal: {word}")


def _volume(state: _State, arguments: str) -> _State:
    words = json_words(arguments)
    environment = state.config.environment
    raw = words if words is not None else arguments.split()
    if not raw:
        raise InvalidArgument("VOLUME requires at least one argument")
    paths = [expand(word, environment).strip() for word in raw]
    if not all(paths):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    volumes = dict.fromkeys((*state.config.volumes, *paths))
    return replace(state, config=replace(state.config, volumes=tuple(volumes)))


def _workdir(state: _State, arguments: str) -> _State:
    path = _one_word(state, "WORKDIR", arguments)
    joined = posixpath.join("/", state.config.working_dir, path)
    clean = posixpath.normpath("/" + joined.lstrip("/"))
    return replace(state, config=replace(state.config, working_dir=clean))


def _one_word(state: _State, instruction: str, arguments: str) -> str:
    word = expand(arguments, state.config.environment).strip()
    if not word or (instruction != "WORKDIR" and len(arguments.split()) != 1):
        raise InvalidArgument(f"{instruction} requires exactly one argument")
    return word


def _on_build(state: _State, arguments: str) -> _State:
    _require_arguments("ONBUILD", arguments)
    trigger = arguments.split()[0].upper()
    if trigger == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("FROM", "MAINTAINER"):
        raise InvalidArgument(f"{trigger} isn't allowed as an ONBUILD trigger")
    triggers = (*state.config.on_build, arguments)
    return replace(state, config=replace(state.config, on_build=triggers))


def _healthcheck(state: _State, arguments: str) -> _State:
    flags, rest = _flags(arguments)
    kind, _, command = rest.partition(" ")
    if not kind:
        raise InvalidArgument("HEALTHCHECK requires at least one argument")
    if kind.upper() == "NONE":
        if command.strip():
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        return replace(state, config=replace(state.config, healthcheck=Healthcheck(("NONE",))))
    if kind.upper() != "CMD":
        raise InvalidArgument(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    words = json_words(command)
    if not (words if words is not None else command.strip()):
        raise InvalidArgument("Missing command after HEALTHCHECK CMD")
    test = ("CMD-SHELL", command.strip()) if words is None else ("CMD", *words)
    return replace(state, config=replace(state.config, healthcheck=_health(test, flags)))


def _health(test: tuple[str, ...], flags: Mapping[str, str]) -> Healthcheck:
    unknown = set(flags) - {"interval", "timeout", "start-period", "retries"}
    if unknown:
        raise InvalidArgument(f"Unknown flag: {min(unknown)}")
    retries = flags.get("retries", "0")
    if not re.fullmatch(r"[0-9]{1,9}", retries) or ("retries" in flags and int(retries) < 1):
        raise InvalidArgument(f"--retries must be at least 1 (not {retries})")
    return Healthcheck(
        test,
        interval_ns=_interval(flags, "interval"),
        timeout_ns=_interval(flags, "timeout"),
        start_period_ns=_interval(flags, "start-period"),
        retries=int(retries),
    )


def _interval(flags: Mapping[str, str], name: str) -> int:
    if name not in flags:
        return 0
    value = parse_duration(flags[name])
    if value and value < _MILLISECOND_NS:
        raise InvalidArgument(f"Interval {name!r} cannot be less than 1ms")
    return value


def _flags(arguments: str) -> tuple[dict[str, str], str]:
    flags: dict[str, str] = {}
    rest = arguments
    while rest.startswith("--"):
        word, _, rest = rest.partition(" ")
        name, _, value = word[2:].partition("=")
        flags[name] = value
        rest = rest.lstrip()
    return flags, rest


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a Go duration such as ``1m30s`` or ``500ms``.

    Raises:
        InvalidArgument: if it is not one, or negative.
    """
    if text == "0":
        return 0
    position, total = 0, 0.0
    while match := _DURATION_PART.match(text, position):
        total += float(match[1]) * _UNIT_NS[match[2]]
        position = match.end()
    if position != len(text) or not text:
        raise InvalidArgument(f"invalid duration {text!r}", resolution="write it as 30s or 1m30s")
    return round(total)


def _require_arguments(instruction: str, arguments: str) -> None:
    if not arguments:
        raise InvalidArgument(f"{instruction} requires at least one argument")


_HANDLERS: dict[str, Callable[[_State, str], _State]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
