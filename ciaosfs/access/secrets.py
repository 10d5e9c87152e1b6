"""The secret of a token: its text, its hash, and comparing without telling by the time it takes. Pure but for the dice.

    ciaosfs_<number of the token>_<43 characters>

The characters are 32 random bytes in base64url. What is stored is their SHA-256: with so much chance in them nobody
guesses, so it needs no salt and no slowness. The number finds the hash; where there is none, one that nothing hashes to
by any likelihood is compared, so that unknown, expired and wrong all take the same way.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from typing import Final, NamedTuple

SECRET_BYTES: Final = 32
HASH_BYTES: Final = 32
TEXT_CHARACTERS_MAX: Final = 80
_TEXT: Final = re.compile(r"ciaosfs_([1-9][0-9]{0,17})_([A-Za-z0-9_-]{43})", re.ASCII)
_NOBODY: Final = secrets.token_bytes(HASH_BYTES)


class Claim(NamedTuple):
    """What a text claims to be: the token, and the hash of the secret that goes with it. 0: it is no token at all."""

    token_id: int
    hash: bytes


def mint() -> bytes:
    """The random bytes of a new token."""
    return secrets.token_bytes(SECRET_BYTES)


def hash_of(content: bytes) -> bytes:
    """What is stored of the random bytes."""
    return hashlib.sha256(content).digest()


def to_text(token_id: int, content: bytes) -> str:
    """What its holder keeps; shown once."""
    return f"ciaosfs_{token_id}_{_encode(content)}"


def claim_of(text: str) -> Claim:
    """Read what `to_text` wrote. Whatever else `text` is, it is a claim of token 0."""
    found = _TEXT.fullmatch(text)
    if found is None:
        return Claim(0, hash_of(b""))
    try:
        content = base64.urlsafe_b64decode(found[2] + "=")
    except binascii.Error:
        content = b""
    token_id = int(found[1]) if _encode(content) == found[2] else 0
    return Claim(token_id, hash_of(content))


def is_true(claim: Claim, stored: bytes | None) -> bool:
    """Whether the hash is the stored one, in a time that depends on neither. None: there is no such token."""
    is_same = hmac.compare_digest(claim.hash, _NOBODY if stored is None else stored)
    return is_same and stored is not None


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
