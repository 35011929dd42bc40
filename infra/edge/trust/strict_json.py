"""JSON from strangers: one object, no key twice, no NaN, no nesting without end."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8.

    Raises:
        ValueError: not one, not UTF-8, a key given twice, NaN or infinity, a number without end, or nested too deeply.
    """
    try:
        raw = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except json.JSONDecodeError as err:
        raise ValueError(f"not JSON: {err.msg} at character {err.pos}") from None
    if not isinstance(raw, dict):
        raise ValueError("not a JSON object")
    return raw


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two parsers may take different ones of two equal keys, so that one checks what the other does not use."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key is given twice")
    return made


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("a number without end")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is beyond any float")
    return value
