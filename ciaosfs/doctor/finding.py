"""What one check found: that all is well, or what is not and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from threading import Thread
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Level(StrEnum):
    """A warning is something to know, or that may become a problem."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` is the name of what was looked at; `remedy` is empty when all is well."""

    check: str
    level: Level
    sentence: str
    remedy: str = ""


def ok(check: str, sentence: str) -> Finding:
    return Finding(check, Level.OK, sentence)


def warning(check: str, sentence: str, remedy: str) -> Finding:
    return Finding(check, Level.WARNING, sentence, remedy)


def problem(check: str, sentence: str, remedy: str) -> Finding:
    return Finding(check, Level.PROBLEM, sentence, remedy)


def attempt(check: str, function: Callable[[*Ts], Finding], *arguments: *Ts) -> Finding:
    """What `function` finds. That it may not look, or cannot, is a finding, too, and does not end the examination."""
    try:
        return function(*arguments)
    except OSError as error:
        place = "" if error.filename is None else f" {error.filename}"
        return problem(
            check,
            f"It cannot be looked at:{place} {error.strerror}.",
            "Run this as the owner of the store, or as root.",
        )


def within(limit_s: float, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
    """What `function` returns or raises; TimeoutError when it takes longer: its thread is left behind.

    For calls that hang with the disk or the daemon they ask.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function(*arguments))
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            errors.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {limit_s:g} s")
    return results[0]
