"""Facts as people read them: names and values in two columns, lists of alike things as tables. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ciaosfs.cli.output import format_table


class Named(dict[str, str]):
    """Facts under names that somebody gave: shown as they are."""


def facts_lines(facts: Mapping[str, Any], indent: str = "") -> list[str]:
    """Every fact, scalars first, then what is made of parts, each below its name."""
    scalars = [(name, value) for name, value in facts.items() if not _is_made_of_parts(value)]
    if isinstance(facts, Named):
        rows = [[_shown("", name), _shown("", value)] for name, value in facts.items()]
    else:
        rows = [[_title(name), _shown(name, value)] for name, value in scalars]
    lines = [f"{indent}{line}" for line in format_table(rows)] if rows else []
    for name, value in facts.items():
        if not _is_made_of_parts(value):
            continue
        if isinstance(value, Mapping):
            lines += ["", f"{indent}{_title(name)}:", *facts_lines(value, indent + "  ")]
        elif all(not any(map(_is_made_of_parts, item.values())) or _is_flat(item) for item in value):
            lines += ["", f"{indent}{_title(name)}:", *(f"{indent}  {line}" for line in _table(value))]
        else:
            for number, item in enumerate(value, 1):
                lines += ["", f"{indent}{_title(name)} {number}:", *facts_lines(item, indent + "  ")]
    return lines


def _is_made_of_parts(value: object) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
    )


def _is_flat(item: Mapping[str, Any]) -> bool:
    """Whether it has no parts, or only such that fit a cell."""
    return not any(isinstance(value, list) and _is_made_of_parts(value) for value in item.values())


def _table(items: Sequence[Mapping[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for item in items for name in item))
    rows = [[_title(name).upper() for name in names]]
    rows += [[_shown(name, item.get(name)) for name in names] for item in items]
    return format_table(rows)


def _title(name: str) -> str:
    return name.removesuffix("_ns").replace("_", " ").capitalize()


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_ns") and isinstance(value, int):
        return (
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value / 1e9)) + f".{value % 1_000_000_000:09d}"
        )
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_shown(key, part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))
