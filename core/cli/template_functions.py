"""The functions of ``--format`` templates: Go's own and Docker's, and how Go prints values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping


class TemplateError(Exception):
    """A template met a value that it does not fit."""


def truth(value: object) -> bool:
    """Return whether Go's ``if`` takes *value* for true: not empty, not zero, not nil."""
    return callable(value) or bool(value)


def printed(value: object, verb: str = "v") -> str:
    """Return *value* as Go's ``%v`` prints it."""
    if value is None:
        return "<no value>" if verb == "v" else "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _go_float(value)
    if isinstance(value, Mapping):
        inner = " ".join(
            f"{printed(key, 'n')}:{printed(item, 'n')}" for key, item in sorted(value.items())
        )
        return f"map[{inner}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(printed(item, 'n') for item in value)}]"
    return str(value)


def _go_float(value: float) -> str:
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return re.sub(r"e([+-])(\d)$", r"e\g<1>0\2", repr(value))


def compact_json(value: object) -> str:
    """Return *value* as Go's encoding/json writes it, without escaping ``<``, ``>`` and ``&``."""
    return json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False)


def _plain(value: object) -> object:
    """Leave methods out, so that a row can be written as JSON."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if not callable(item)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _index(value: object, *keys: object) -> object:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, "")  # Go gives the zero value of the map's type
        elif isinstance(value, list | tuple | str):
            if not isinstance(key, int) or isinstance(key, bool):
                raise TemplateError(f"cannot index slice/array with {printed(key)}")
            if not 0 <= key < len(value):
                raise TemplateError(f"index out of range: {key}")
            value = ord(value[key]) if isinstance(value, str) else value[key]
        elif value is None:
            raise TemplateError("index of untyped nil")
        else:
            raise TemplateError(f"can't index item of {printed(value)}")
    return value


def _slice(value: object, *bounds: object) -> object:
    if not isinstance(value, str | list | tuple):
        raise TemplateError(f"can't slice {printed(value)}")
    numbers = [_integer(bound) for bound in bounds]
    if any(not 0 <= number <= len(value) for number in numbers):
        raise TemplateError(f"index out of range: {numbers}")
    return value[slice(*(numbers or [0]))] if len(numbers) != 1 else value[numbers[0] :]


def _length(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode())  # Go counts bytes
    if isinstance(value, Mapping | list | tuple):
        return len(value)
    raise TemplateError(f"len of {printed(value)}")


def _integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TemplateError(f"expected a whole number, not {printed(value)}")


def _string(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TemplateError(f"expected text, not {printed(value)}")


def _same_kind(left: object, right: object) -> None:
    kinds = [type(x) if isinstance(x, bool | str) or x is None else float for x in (left, right)]
    if isinstance(left, Mapping | list) or isinstance(right, Mapping | list):
        raise TemplateError("non-comparable type")
    if kinds[0] is not kinds[1] and None not in (left, right):
        raise TemplateError("incompatible types for comparison")


def _equal(left: object, *others: object) -> bool:
    if not others:
        raise TemplateError("missing argument for comparison")
    for other in others:
        _same_kind(left, other)
    return left in others


def _ordered(test: Callable[[float], bool]) -> Callable[[object, object], bool]:
    def compare(left: object, right: object) -> bool:
        _same_kind(left, right)
        if isinstance(left, str) and isinstance(right, str):
            return test((left > right) - (left < right))
        if isinstance(left, bool) or left is None or right is None:
            raise TemplateError("invalid type for comparison")
        assert isinstance(left, int | float)
        assert isinstance(right, int | float)
        return test(left - right)

    return compare


_VERB = re.compile(r"%([-+# 0]*)(\d*)(?:\.(\d+))?(.)", re.DOTALL)


def _printf(form: object, *arguments: object) -> str:
    left = list(arguments)
    text = _VERB.sub(lambda match: _verb(match, left), _string(form))
    if left:
        extra = ", ".join(f"{_go_type(value)}={printed(value, 'n')}" for value in left)
        text += f"%!(EXTRA {extra})"
    return text


def _verb(match: re.Match[str], left: list[object]) -> str:
    flags, width, precision, verb = match.groups()
    if verb == "%":
        return "%"
    if not left:
        return f"%!{verb}(MISSING)"
    value = left.pop(0)
    if _too_large(width):
        return "%!(BADWIDTH)"
    if _too_large(precision):
        return "%!(BADPREC)"
    text = _formatted(value, verb, flags, precision)
    fill = "0" if "0" in flags and verb in "dxXfeg" else " "
    if "-" in flags:
        return text.ljust(int(width or 0))
    if fill == "0" and text[:1] == "-":
        return "-" + text[1:].rjust(int(width or 0) - 1, fill)
    return text.rjust(int(width or 0), fill)


def _too_large(digits: str | None) -> bool:
    """Whether a width or precision is beyond what Go's fmt takes."""
    return digits is not None and (len(digits) > 7 or int(digits or 0) > 1_000_000)


def _formatted(value: object, verb: str, flags: str, precision: str | None) -> str:
    number = isinstance(value, int) and not isinstance(value, bool)
    digits = f".{precision}" if precision is not None else ""
    if verb == "v":
        return printed(value, "n")
    if verb in "sq" and isinstance(value, str):
        text = value if precision is None else value[: int(precision)]
        return quoted(text) if verb == "q" else text
    if verb == "s" and isinstance(value, list | tuple | Mapping):
        return printed(value, "n")
    if verb in "dxXob" and number:
        return format(value, ("+" if "+" in flags else "") + verb)
    if verb in "xX" and isinstance(value, str):
        return format(int.from_bytes(value.encode()), verb) if value else ""
    if verb in "feg" and isinstance(value, float):
        return format(value, digits + verb)
    if verb == "t" and isinstance(value, bool):
        return printed(value)
    return f"%!{verb}({_go_type(value)}={printed(value, 'n')})"


def _go_type(value: object) -> str:
    names = {bool: "bool", int: "int", float: "float64", str: "string"}
    return names.get(type(value), "<nil>" if value is None else "interface {}")


def quoted(text: str) -> str:
    """Return *text* in double quotes as Go's strconv.Quote does."""
    out = []
    for character in text:
        if character in '"\\':
            out.append("\\" + character)
        elif character in _NAMED:
            out.append(_NAMED[character])
        elif character.isprintable():
            out.append(character)
        else:
            code = ord(character)
            out.append(f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}")
    return f'"{"".join(out)}"'


_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}


def _print(*values: object) -> str:
    """Go's Sprint: a space between two operands when neither is a string."""
    out = ""
    for number, value in enumerate(values):
        pair = values[number - 1 : number + 1] if number else ()
        if pair and not any(isinstance(item, str) for item in pair):
            out += " "
        out += printed(value, "n")
    return out


def _join(items: object, separator: object) -> str:
    if not isinstance(items, list | tuple):
        raise TemplateError(f"expected a list, not {printed(items)}")
    return _string(separator).join(_string(item) for item in items)


def _not(value: object) -> bool:
    return not truth(value)


_HTML = str.maketrans(
    {"<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&#34;", "'": "&#39;", "\0": "\ufffd"}
)


def _query(*values: object) -> str:
    from urllib.parse import quote_plus

    return quote_plus(_print(*values), safe="-_.~")


def _split(text: str, separator: str) -> list[str]:
    """As Go's strings.Split: an empty separator parts the characters."""
    return text.split(separator) if separator else list(text)


FUNCTIONS: Mapping[str, Callable[..., object]] = {
    "and": truth,  # evaluated by the template itself: short-circuit
    "or": truth,
    "not": _not,
    "len": _length,
    "index": _index,
    "slice": _slice,
    "print": _print,
    "printf": _printf,
    "println": lambda *values: " ".join(printed(value, "n") for value in values) + "\n",
    "html": lambda *values: _print(*values).translate(_HTML),
    "urlquery": _query,
    "eq": _equal,
    "ne": lambda left, right: not _equal(left, right),
    "lt": _ordered(lambda difference: difference < 0),
    "le": _ordered(lambda difference: difference <= 0),
    "gt": _ordered(lambda difference: difference > 0),
    "ge": _ordered(lambda difference: difference >= 0),
    "json": compact_json,
    "split": lambda text, separator: _split(_string(text), _string(separator)),
    "join": _join,
    "title": lambda text: re.sub(r"\b\w", lambda match: match[0].upper(), _string(text)),
    "lower": lambda text: _string(text).lower(),
    "upper": lambda text: _string(text).upper(),
    "pad": lambda text, before, after: (
        " " * _integer(before) + _string(text) + " " * _integer(after) if text else ""
    ),
    "truncate": lambda text, length: _string(text)[: _integer(length)],
}
