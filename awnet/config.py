"""Settings are frozen dataclasses; here they are checked as they are made, become JSON and come back, field by field.

A dataclass is written as an object whose "kind" is the class's name, so that a field declared as a protocol or a base
(an attack, a model) comes back as what it was. Only classes entered with `@setting` can come back: reading a file never
imports or runs anything that it names.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache, wraps
from numbers import Integral, Real
from typing import Any, TypeVar

import msgspec

from awnet.errors import Mistake, unknown

T = TypeVar("T", bound=type)
_KINDS: dict[str, type] = {}


def setting(cls: T) -> T:
    """Class decorator: instances of this frozen dataclass may be saved to JSON and read back.

    Whoever makes one with a value of another kind than a field's (a text for a number, 2.5 for a number of steps) is told
    so with a Mistake, before anything is computed with it.
    """
    assert dataclasses.is_dataclass(typing.cast(type, cls)) and cls.__name__ not in _KINDS, cls
    _KINDS[cls.__name__] = cls
    names, made = tuple(field.name for field in dataclasses.fields(cls)), cls.__init__

    @wraps(made)
    def checked(self: Any, *values: Any, **named: Any) -> None:
        plain = _plain_fields(cls)
        for name, value in (*zip(names, values, strict=False), *named.items()):
            if name in plain and not plain[name].holds(value):
                raise Mistake(f"{cls.__name__} expects {name} to be {plain[name].says}, got {value!r}")
        made(self, *values, **named)

    typing.cast(Any, cls).__init__ = checked
    return cls


@dataclasses.dataclass(frozen=True)
class _Plain:
    """What a field of numbers, texts or one named kind of setting may hold.

    Args:
        kinds: of which a value has to be; True and False are no numbers.
        values: or which it may be.
        says: the same for people.
    """

    kinds: tuple[type, ...]
    values: tuple[Any, ...]
    says: str

    def holds(self, value: Any) -> bool:
        if isinstance(value, bool):
            return bool in self.kinds or any(value is one for one in self.values)
        return isinstance(value, self.kinds) or (isinstance(value, str | int | None) and value in self.values)


# numpy's numbers are welcome where Python's are
_PLAIN: dict[Any, tuple[type, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    bool: (bool, "True or False"),
    str: (str, "a text"),
    type(None): (type(None), "None"),
}


@cache
def _plain_fields(cls: type) -> dict[str, _Plain]:
    found = {name: _plain_of(hint) for name, hint in _hints(cls).items()}
    return {name: plain for name, plain in found.items() if plain}


def _plain_of(hint: Any) -> _Plain | None:
    """What a type hint asks for, where an instance alone can tell whether a value is that."""
    kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        each = [_plain_of(part) for part in parts]
        known = [plain for plain in each if plain]
        if len(known) < len(each):
            return None
        kinds, values = (tuple(x for plain in known for x in getattr(plain, of)) for of in ("kinds", "values"))
        return _Plain(kinds, values, " or ".join(plain.says for plain in known))
    if kind is typing.Literal:
        return _Plain((), parts, " or ".join(repr(part) for part in parts))
    if kind in _PLAIN:
        of, says = _PLAIN[kind]
        return _Plain((of,), (), says)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _Plain((kind,), (), f"a {kind.__name__}")
    return None


def to_json(value: Any) -> Any:
    """What `json.dumps` takes, from a setting, a container of settings, or a plain value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return str(value)  # JSON has no infinity
    if isinstance(value, Real) and not isinstance(value, int | float):  # numpy's
        return int(value) if isinstance(value, Integral) else float(value)
    return value


def from_json(data: Any, expected: type[Any] | None = None, where: str = "settings") -> Any:
    """The value that `to_json` was given.

    Args:
        data: what `json.loads` returned.
        expected: the class that must come out, where one is known.
        where: the name of the place for messages.

    Raises:
        Mistake: an unknown kind or field, a missing field, or a value of the wrong type.
    """
    value = _decode(data, where)
    if expected is not None and not isinstance(value, expected):
        raise Mistake(f"{where} should be of kind {expected.__name__}, got {type(value).__name__}")
    return value


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode(data: Any, where: str) -> Any:
    if isinstance(data, list):
        return tuple(_decode(item, f"{where}[{i}]") for i, item in enumerate(data))
    if not isinstance(data, dict):
        return data
    if "kind" not in data:
        return {key: _decode(item, f"{where}.{key}") for key, item in data.items()}
    if not isinstance(data["kind"], str) or data["kind"] not in _KINDS:
        raise unknown(f"kind of setting (in {where})", str(data["kind"]), _KINDS)
    cls = _KINDS[data["kind"]]
    names = {field.name for field in dataclasses.fields(cls)}
    fields: dict[str, Any] = {}
    for key, item in data.items():
        if key == "kind":
            continue
        if key not in names:
            raise unknown(f"field of {cls.__name__} (in {where})", key, names)
        fields[key] = _checked(_decode(item, f"{where}.{key}"), _hints(cls)[key], f"{where}.{key}")
    try:
        return cls(**fields)
    except TypeError as error:  # a field without default is missing
        raise Mistake(f"{where} is not a complete {cls.__name__}: {error}") from None


def _checked(value: Any, hint: Any, where: str) -> Any:
    """The value as a field of this type holds it; nested settings have been checked on their own way up."""
    kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return _first_that_fits(value, parts, where)
    if kind is tuple and isinstance(value, tuple):
        if parts[1:] == (...,) and all(type(item) is parts[0] for item in value):
            return value  # one by one, a million numbers would take a minute
        hints = parts[:1] * len(value) if parts[1:] == (...,) else parts
        if len(hints) == len(value):
            return tuple(_checked(item, hints[i], f"{where}[{i}]") for i, item in enumerate(value))
    if kind in (dict, Mapping) and parts and isinstance(value, dict):
        return {key: _checked(item, parts[1], f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        if kind is Any or (callable(value) if kind is Callable else isinstance(kind, type) and isinstance(value, kind)):
            return value
        raise Mistake(f"{where} should be of kind {getattr(kind, '__name__', kind)}, got {type(value).__name__}")
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        raise Mistake(f'{where} lacks its "kind"')  # msgspec would make one, even of an abstract class
    if kind is float and value in ("inf", "-inf"):
        return float(value)
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        raise Mistake(f"{where}: {error}") from None
    except TypeError:  # a hint that is no plain type (a protocol) next to a plain value
        raise Mistake(f"{where} cannot be {value!r}") from None


def _first_that_fits(value: Any, hints: tuple[Any, ...], where: str) -> Any:
    mistakes = []
    for hint in hints:
        try:
            return _checked(value, hint, where)
        except Mistake as mistake:
            mistakes.append(mistake)
    raise mistakes[0]
