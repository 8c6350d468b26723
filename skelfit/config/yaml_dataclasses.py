"""Strict YAML into frozen dataclasses.

In a job of a million people a misspelt key must not silently become a default. Unknown keys, repeated keys, missing
keys and wrong types are each one ConfigError that names the file and the dotted key.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from skelfit.errors import ConfigError
from skelfit.storage.locations import LOCATION, describe_unusable
from skelfit.storage.path_checks import LOCAL_PATH, describe_non_local, require_regular_file

T = TypeVar("T")


def bounded(minimum: float, maximum: float = math.inf, **default: Any) -> Any:
    """A dataclass field whose value, when given in YAML, must be from `minimum` to `maximum`."""
    return dataclasses.field(metadata={"min": minimum, "max": maximum}, **default)


def local_path(**default: Any) -> Any:
    """A dataclass field that holds a path or a pattern of paths; addresses are refused."""
    return dataclasses.field(metadata={"local": True}, **default)


def location(**default: Any) -> Any:
    """A dataclass field that holds a path, an address, or a pattern of either."""
    return dataclasses.field(metadata={"location": True}, **default)


def build(cls: type[T], mapping: object, path: str | Path, where: str = "") -> T:
    """Make the dataclass `cls` of a mapping read from `path`; `where` is the dotted key of the mapping in it.

    Raises ConfigError for an unknown or missing key, a wrong type, a number out of bounds, an address in place of a
    path, or one that cannot be used.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigError(path, where or None, "a mapping", describe(mapping))
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in mapping:
        if key not in fields:
            expected = "one of " + ", ".join(sorted(fields))
            raise ConfigError(path, dotted(where, str(key)), expected, "an unknown key")
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, spec in fields.items():
        key = dotted(where, name)
        if name in mapping:
            values[name] = convert(hints[name], mapping[name], path, key)
            if "min" in spec.metadata:
                _check_limits(values[name], spec.metadata["min"], spec.metadata["max"], path, key)
            if "local" in spec.metadata and (actual := describe_non_local(values[name] or "")) is not None:
                raise ConfigError(path, key, LOCAL_PATH, actual)
            if "location" in spec.metadata and (fault := describe_unusable(values[name] or "")) is not None:
                raise ConfigError(path, key, LOCATION, fault)
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise ConfigError(path, key, type_name(hints[name]), "nothing (the key is missing)")
    return cls(**values)


def convert(hint: Any, value: object, path: str | Path, key: str) -> Any:
    """`value` as the type `hint`. Raises ConfigError."""
    origin, args = get_origin(hint), get_args(hint)
    if hasattr(hint, "from_yaml"):  # a type that reads its own form
        return hint.from_yaml(value, path, key)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        inner = next(a for a in args if a is not type(None))
        try:
            return convert(inner, value, path, key)
        except ConfigError as error:
            if error.key != key:  # within a nested mapping
                raise
            raise ConfigError(path, key, type_name(hint), error.found) from None
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(path, key, "a list", describe(value))
        return tuple(convert(args[0], item, path, f"{key}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return build(hint, value, path, key)  # type: ignore[arg-type]
    if origin is Literal:
        if value not in args or not isinstance(value, str):
            raise ConfigError(path, key, type_name(hint), describe(value))
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is a subclass of int: an exact comparison keeps `steps: yes` out.
    if type(value) is not hint or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(path, key, type_name(hint), describe(value))
    return value


def dotted(where: str, name: str) -> str:
    """The key `name` of the mapping at `where`."""
    return f"{where}.{name}" if where else name


def _check_limits(value: Any, minimum: float, maximum: float, path: str | Path, key: str) -> None:
    if value is None:
        return
    if isinstance(value, tuple):
        if len(value) < minimum:
            raise ConfigError(path, key, f"at least {minimum} entry", f"{len(value)} entries")
    elif value < minimum:
        raise ConfigError(path, key, f"at least {minimum}", str(value))
    elif value > maximum:
        raise ConfigError(path, key, f"at most {maximum}", str(value))


def type_name(hint: Any) -> str:
    """A type as a message says it: 'a whole number', 'text or null'."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if a is type(None) else type_name(a) for a in args)
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in args)
    if origin is tuple:
        return "a list"
    names = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false"}
    return names.get(hint, "a mapping")


def describe(value: object) -> str:
    """A value and its type, for a message."""
    if value is None:
        return "nothing (null)"
    names = {str: "text", bool: "true or false", list: "a list", dict: "a mapping"}
    kind = names.get(type(value), type(value).__name__)
    return f"{value!r:.60} ({kind})"


class _UniqueKeyLoader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """SafeLoader that refuses repeated keys and reads 1e-4 as a number (YAML 1.1 reads it as text)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is given twice", key_node.start_mark
                )
            seen.add(key)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


_UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load_yaml(path: str | Path) -> object:
    """The content of a YAML file as plain data. Raises ConfigError."""
    require_regular_file(path, "a YAML file", ConfigError)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(path, None, "a YAML file", "no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, None, "a readable YAML file", str(error)) from None
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)  # a SafeLoader: builds plain data only
    except (yaml.YAMLError, TypeError) as error:  # TypeError: a list or mapping used as a key
        raise ConfigError(path, None, "valid YAML", " ".join(str(error).split())) from None
