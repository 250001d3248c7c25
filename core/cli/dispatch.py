"""From words to a command: global flags, the table, the command's own flags, errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from ..config import DEFAULT_CONFIG_FILE, Config, FlagValue
from ..config_keys import KEYS, Disposition, Key
from ..config_types import Boolean, ListOf, MapOf
from ..errors import AlreadyExists, InvalidArgument, NotFound, StowageError
from ..options import nearest
from ..version import VERSION
from . import commands
from .command import Command
from .context import Context
from .errors import ENGINE_FAILED, FAILED, INTERRUPTED, describe, exit_code, report
from .flags import Flag, Parsed, UsageError, many, parse, switch
from .streams import silence

_SHORTS = {"storage-driver": "s", "debug": "D", "log-level": "l"}

#: Commands whose own failure must not look like the container's: prefix and code of Docker's.
_RUNNERS = ("container run", "container create")


def run(argv: Sequence[str]) -> int:
    """Run the command line *argv*; return its exit code. Nothing is raised."""
    debug = "--debug" in argv or "-D" in argv
    try:
        code = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        return silence()
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  # the last resort: a bug, said as such
        report(error, debug=debug)
        return FAILED
    return code


def _run(argv: Sequence[str]) -> int:
    if argv[0] == "__complete":
        return _complete(argv[1:])
    try:
        parsed = parse(_global_flags(), argv, interspersed=False)
    except UsageError as error:
        print(f"{error}\nSee 'stowage --help'.", file=sys.stderr)
        return error.exit_code
    if parsed.on("version"):
        print(f"Stowage version {VERSION}")
        return 0
    words = list(parsed.arguments)
    if parsed.on("help") or not words:
        print(commands.overview())
        return 0
    return _command(words, parsed)


def _complete(words: Sequence[str]) -> int:
    """Answer a shell that completes *words*, on the root that they name."""
    from .completion import answer

    flags = _global_flags()
    config = None
    try:
        globals_ = parse(flags, words[:-1], interspersed=False)
        config = Config.load(_config_flags(globals_), os.environ, DEFAULT_CONFIG_FILE)
    except (UsageError, StowageError):
        pass  # still being typed; commands and flags are known without it
    answer(words, flags, config)
    return 0


def _global_flags() -> list[Flag]:
    """Flags of our own and one for every directive that has a meaning here."""
    own = [
        Flag("root", "Put data-root and exec-root under this directory", value="directory"),
        Flag("config", "Configuration file", value="file"),
        switch("trace", "Show each call of a driver and its time"),
        switch("version", "Print version information and quit", "v"),
        switch("help", "Print usage", "h"),
    ]
    told = (Disposition.HONOURED, Disposition.KEPT)
    keys = [key for key in KEYS.values() if key.disposition in told and not key.alias_of]
    return [*own, *(_key_flag(key) for key in keys)]


def _key_flag(key: Key) -> Flag:
    short = _SHORTS.get(key.name, "")
    if isinstance(key.type, Boolean):
        return switch(key.flag_name, key.meaning, short)
    if isinstance(key.type, ListOf | MapOf):
        return many(key.flag_name, key.meaning, short)
    return Flag(key.flag_name, key.meaning, short)


def _command(words: Sequence[str], globals_: Parsed) -> int:
    if words[0] == "help":
        words = [*words[1:], "--help"]
    second = words[1] if len(words) > 1 else None
    if words[0] in commands.GROUPS and (second is None or second in ("--help", "-h")):
        print(commands.group_help(words[0]))
        return 0
    entry, taken = commands.find(words[0], second)
    if entry is None:
        return _unknown(words)
    name = " ".join(("stowage", *words[:taken]))
    module = import_module(f".{entry.module}", __package__)
    command: Command = module.COMMANDS[entry.words]
    rest = words[taken:]
    if _wants_help(rest, command):
        aliases = [f"stowage {one}" for one in entry.names]
        print(command.help(name, entry.summary, aliases))
        return 0
    try:
        parsed = command.read(rest, name)
    except UsageError as error:
        _say_usage(error, name, command, entry.summary, words, globals_)
        return error.exit_code
    return _act(command, parsed, globals_, runner=entry.words in _RUNNERS, name=name)


def _wants_help(words: Sequence[str], command: Command) -> bool:
    """Tell whether ``--help`` is among the command's own words (not those of a container)."""
    if not any(word in ("--help", "-h") for word in words):
        return False
    flags = [flag for flag in command.flags if flag.name != "help"]
    short = "" if any(flag.short == "h" for flag in flags) else "h"
    try:
        return parse(
            [*flags, switch("help", "", short)], words, interspersed=command.interspersed
        ).on("help")
    except UsageError:
        return False


def _unknown(words: Sequence[str]) -> int:
    first = words[0]
    if first in commands.GROUPS:
        shown, near = f"{first} {words[1]}", nearest(words[1], commands.names(first))
        see = f"stowage {first}"
    else:
        shown, near, see = first, nearest(first, commands.names()), "stowage"
    print(f"stowage: '{shown}' is not a stowage command{near or '.'}", file=sys.stderr)
    print(f"See '{see} --help'", file=sys.stderr)
    return FAILED


def _say_usage(
    error: UsageError,
    name: str,
    command: Command,
    summary: str,
    words: Sequence[str],
    globals_: Parsed,
) -> None:
    text = f"{error}\nSee '{name} --help'."
    if str(error).startswith('"'):
        text += f"\n\nUsage:  {name} {command.usage}\n\n{summary}"
    unknown = str(error).removeprefix("unknown flag: --").split(";")[0]
    if str(error).startswith("unknown flag") and unknown in {f.name for f in _global_flags()}:
        text += f"\nHint: --{unknown} is a global flag: stowage --{unknown} … {words[0]} …"
    print(text, file=sys.stderr)


def _act(command: Command, parsed: Parsed, globals_: Parsed, *, runner: bool, name: str) -> int:
    flags = _config_flags(globals_)
    if globals_.on("trace"):
        _name_observer("trace")
    with Context(flags, bare=command.bare) as context:
        try:
            if command.needs_root:
                context.require_root()
            return command.action(context, parsed) or 0
        except BrokenPipeError:
            raise
        except (StowageError, ExceptionGroup, OSError) as error:
            sys.stdout.flush()
            if not runner:
                report(error, debug=context.debug)
                return exit_code(error, FAILED)
            if context.debug:
                report(error, "stowage: ", debug=True)
            else:
                print(_runner_text(error, name, asking=context.asking), file=sys.stderr)
            return exit_code(error, ENGINE_FAILED)


#: What Docker's create refuses is followed by where to look; what fails at start is not.
_REFUSALS = (InvalidArgument, AlreadyExists, NotFound)
#: Kinds of what Docker looks for when it starts a container.
_FOUND_AT_START = ("network", "container")


def _runner_text(error: BaseException, name: str, *, asking: bool) -> str:
    """As Docker: a sentence; while a container is *asked* for, also where to look."""
    first, *rest = describe(error, "stowage: ").split("\n")
    late = isinstance(error, NotFound) and error.kind in _FOUND_AT_START
    refused = asking and isinstance(error, _REFUSALS) and not late
    see = [f"See '{name} --help'."] if refused else []
    return "\n".join([first.rstrip(".") + ".", *rest, *see])


def _config_flags(globals_: Parsed) -> Mapping[str, FlagValue]:
    own = ("trace", "version", "help")
    flags: dict[str, FlagValue] = {}
    for name in globals_.given:
        if name not in own:
            value = globals_.typed(name, object)
            assert isinstance(value, str | bool | tuple)
            flags[name] = value
    return flags


def _name_observer(name: str) -> None:
    """Name an observer for this process and those that it starts, which inherit the variable."""
    before = os.environ.get("STOWAGE_OBSERVERS", "")
    os.environ["STOWAGE_OBSERVERS"] = ",".join(part for part in (before, name) if part)
