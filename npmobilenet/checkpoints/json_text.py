"""JSON in files that nobody vouches for."""

from __future__ import annotations

import json

from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

MAX_DIGITS = 1000  # of an integer: turning digits into a number takes the square of their count


def parse_json(data: str | bytes | memoryview, what: str) -> object:
    """Return what UTF-8 JSON text holds; ``what`` names it in an error, such as "its metadata".

    Stricter than `json.loads`: NaN, infinities, integers of more than 1000 digits and repeated keys are refused.
    """
    try:
        return json.loads(
            data if isinstance(data, str) else str(data, "utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_integer,
        )
    except RecursionError as error:
        raise CheckpointError(f"{what} is not valid JSON (nested too deeply); the file is damaged") from error
    except ValueError as error:
        raise CheckpointError(f"{what} is not valid JSON ({quote(str(error))}); the file is damaged") from error


def parse_object(data: str | bytes | memoryview, what: str) -> dict:
    """The same of a JSON object, the only thing that is expected."""
    found = parse_json(data, what)
    if not isinstance(found, dict):
        raise CheckpointError(f"{what} is not a JSON object; the file is damaged")
    return found


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key occurs twice")
    return entries


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)
