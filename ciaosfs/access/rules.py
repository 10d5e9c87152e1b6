"""What may be given on: the rules of derivation and of an administrator's reach. Pure.

*Terms* are what a token allows, where, and until when. What is derived never allows more, in any of the three; that is
checked here and nowhere else, and again by `meta/integrity_access.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ciaosfs.access.grants import Grant
from ciaosfs.access.paths import Names, is_inside, to_text
from ciaosfs.base import limits
from ciaosfs.base.errors import AccessError, UsageError
from ciaosfs.base.units import format_duration
from ciaosfs.control.scopes import Scope

_USER_NAME: Final = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{limits.ACCESS_NAME_CHARACTERS_MAX - 1}}}")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a token allows. `prefix` are the names from the root, `expires_ns` is since the epoch, 0: never."""

    scopes: Scope
    prefix: Names
    expires_ns: int


def terms_of(grant: Grant) -> Terms:
    """What a grant allows."""
    return Terms(grant.scopes, grant.prefix, grant.expires_ns)


def narrow(
    own: Terms, scopes: Scope | None, prefix: Names | None, expires_ns: int | None, now_ns: int
) -> Terms:
    """What is given on by the holder of `own`; None is all the holder has. AccessError when it would be more."""
    scopes = own.scopes if scopes is None else scopes
    prefix = own.prefix if prefix is None else prefix
    expires_ns = own.expires_ns if expires_ns is None else expires_ns
    check_reach(own, scopes, prefix)
    if own.expires_ns and not 0 < expires_ns <= own.expires_ns:
        left = format_duration(max(0.0, (own.expires_ns - now_ns) / 1e9))
        raise AccessError(
            f"This token ends in {left}, and cannot give a longer life: ask for a shorter --ttl."
        )
    return Terms(scopes, prefix, expires_ns)


def check_reach(own: Terms, scopes: Scope, prefix: Names) -> None:
    """AccessError unless the holder of `own` has all of `scopes` at `prefix`."""
    lacking = scopes & ~own.scopes
    if lacking:
        raise AccessError(
            f"This token lacks the scope {', '.join(lacking.names)} and has {', '.join(own.scopes.names)}: "
            "use one that has it."
        )
    if not is_inside(prefix, own.prefix):
        raise AccessError(
            f"This token is good for {to_text(own.prefix)} alone, and not for {to_text(prefix)}: use another one."
        )


def check_user_name(name: str) -> None:
    """UsageError unless it can be the name of a user."""
    if not _USER_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a user: use 1 to {limits.ACCESS_NAME_CHARACTERS_MAX} letters, "
            "digits and any of . _ - and begin with none of . -"
        )


def check_label(label: str) -> None:
    """UsageError unless it can be the name of a token, which is for people alone."""
    if len(label) > limits.ACCESS_NAME_CHARACTERS_MAX or not (label.isprintable() or not label):
        raise UsageError(
            f"The name of a token has up to {limits.ACCESS_NAME_CHARACTERS_MAX} characters that can be printed."
        )


def end_of(ttl_s: float | None, now_ns: int) -> int | None:
    """When a token that lives for `ttl_s` expires; None for None. UsageError for a life that cannot be."""
    if ttl_s is None:
        return None
    if not 0 < ttl_s <= limits.TOKEN_LIFE_S_MAX:
        raise UsageError(
            "A token lives for more than no time and at most a hundred years: give --ttl 30d, say."
        )
    return now_ns + round(ttl_s * 1e9)
