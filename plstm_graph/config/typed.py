"""Text of a command line and values of a TOML file, as the types of the fields they go to."""

import math
import os
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from plstm_graph.errors import ConfigError


def convert(key: str, value: Any, hint: Any) -> Any:
    """``value`` (text of a command line, or a TOML value) as the type ``hint`` of field ``key``."""
    if get_origin(hint) in (Union, UnionType):
        options = [option for option in get_args(hint) if option is not NoneType]
        if value is None or (isinstance(value, str) and value.lower() == "none" and options != get_args(hint)):
            return None
        hint = options[0]
    if get_origin(hint) is tuple:
        parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)
        return tuple(convert(key, part, get_args(hint)[0]) for part in parts)
    try:
        return _scalar(value, hint)
    except (TypeError, ValueError, OverflowError) as error:
        kind = getattr(hint, "__name__", str(hint))
        raise ConfigError(f"{key} must be {_KIND.get(kind, kind)} (got {value!r})") from error


_KIND = {"int": "a whole number", "float": "a finite number", "bool": "true or false", "str": "text"}
_BOOL = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _scalar(value: Any, hint: Any) -> Any:
    if hint is bool:
        text = str(value).lower()  # 0 and 1 of a TOML file are numbers
        return _BOOL[text] if text in _BOOL else _reject()
    if hint is str:
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else _reject()
    if isinstance(value, bool) or (hint is int and isinstance(value, float)):
        _reject()
    number = hint(value)
    return number if math.isfinite(number) else _reject()


def _reject() -> Any:
    raise ValueError
