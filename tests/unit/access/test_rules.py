"""What may be given on, by tables: scopes, prefixes, lives, each alone and all together."""

from __future__ import annotations

import itertools

import pytest

from ciaosfs.access.paths import Names, from_stored, is_inside, parse_folder, parse_prefix, to_stored, to_text
from ciaosfs.access.rules import Terms, check_label, check_user_name, end_of, narrow
from ciaosfs.base import limits
from ciaosfs.base.errors import AccessError, UsageError
from ciaosfs.control.scopes import Scope

NOW = 1000
ALL = Scope.READ | Scope.WRITE | Scope.DELETE | Scope.ADMIN

SCOPES: dict[tuple[Scope, Scope | None], Scope | None] = {
    (Scope.READ, None): Scope.READ,
    (Scope.READ, Scope.READ): Scope.READ,
    (Scope.READ, Scope.WRITE): None,
    (Scope.READ | Scope.WRITE, Scope.READ): Scope.READ,
    (Scope.READ | Scope.WRITE, Scope.READ | Scope.DELETE): None,
    (Scope.ADMIN, Scope.READ): None,
    (ALL, Scope.ADMIN): Scope.ADMIN,
    (ALL, ALL): ALL,
}
PREFIXES: dict[tuple[Names, Names | None], Names | None] = {
    ((), None): (),
    ((), (b"a", b"b")): (b"a", b"b"),
    ((b"a",), None): (b"a",),
    ((b"a",), (b"a",)): (b"a",),
    ((b"a",), (b"a", b"b")): (b"a", b"b"),
    ((b"a",), (b"ab",)): None,
    ((b"a",), (b"b", b"a")): None,
    ((b"a",), ()): None,
    ((b"a", b"b"), (b"a",)): None,
}
LIVES: dict[tuple[int, int | None], int | None] = {
    (0, None): 0,
    (0, 0): 0,
    (0, 5000): 5000,
    (5000, None): 5000,
    (5000, 4000): 4000,
    (5000, 5000): 5000,
    (5000, 5001): None,
    (5000, 0): None,
}
"""(what the holder has, what is asked for) -> what is given; None: it is refused."""


@pytest.mark.parametrize("scopes", SCOPES, ids=str)
def test_nothing_derived_allows_more(scopes: tuple[Scope, Scope | None]) -> None:
    """Every combination: given is what each of the three tables gives, refused what any refuses."""
    for prefix, life in itertools.product(PREFIXES, LIVES):
        own = Terms(scopes[0], prefix[0], life[0])
        expected = SCOPES[scopes], PREFIXES[prefix], LIVES[life]
        if None in expected:
            with pytest.raises(AccessError):
                narrow(own, scopes[1], prefix[1], life[1], NOW)
        else:
            terms = narrow(own, scopes[1], prefix[1], life[1], NOW)
            assert (terms.scopes, terms.prefix, terms.expires_ns) == expected


def test_a_refusal_names_the_scope_that_lacks() -> None:
    own = Terms(Scope.READ | Scope.ADMIN, (b"ann",), 0)
    with pytest.raises(AccessError, match=r"lacks the scope write, delete and has read, admin"):
        narrow(own, ALL, None, None, NOW)
    with pytest.raises(AccessError, match="good for /ann alone, and not for /bob"):
        narrow(own, None, (b"bob",), None, NOW)
    with pytest.raises(AccessError, match=r"ends in 1\.0 s"):
        narrow(Terms(ALL, (), NOW + 10**9), None, None, 0, NOW)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", (b"ann",)),
        ("models", (b"ann", b"models")),
        ("models/", (b"ann", b"models")),
        ("a/b", (b"ann", b"a", b"b")),
        ("..a/b..", (b"ann", b"..a", b"b..")),
        ("\udcff", (b"ann", b"\xff")),
        *((bad, None) for bad in ("/", "/a", "a//b", "a//", "..", "a/../b", "a/..", ".", "a/./b", "a\0b")),
        ("x" * 256, None),
        ("/".join(["x" * 200] * 6), None),
        ("\ud800", None),
    ],
)
def test_prefixes_lie_in_the_folder_and_name_one_directory(text: str, names: Names | None) -> None:
    if names is None:
        with pytest.raises(UsageError):
            parse_prefix(text, (b"ann",))
    else:
        assert parse_prefix(text, (b"ann",)) == names
        assert from_stored(to_stored(names)) == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("/", ()),
        ("/ann", (b"ann",)),
        ("/lab/ann/", (b"lab", b"ann")),
        ("ann", None),
        ("", None),
        ("/..", None),
    ],
)
def test_folders_are_paths_from_the_root(text: str, names: Names | None) -> None:
    if names is None:
        with pytest.raises(UsageError):
            parse_folder(text)
    else:
        assert parse_folder(text) == names
        assert to_text(names).rstrip("/") == text.rstrip("/")
        assert from_stored(to_stored(names)) == names


def test_inside_is_by_whole_names() -> None:
    assert is_inside((b"a", b"b"), (b"a",)) and is_inside((b"a",), (b"a",)) and is_inside((), ())
    assert not is_inside((b"ab",), (b"a",)) and not is_inside((), (b"a",))


def test_names_and_lives_that_cannot_be() -> None:
    for good in ("ann", "a.b-c_d", "_apt", "A" * limits.ACCESS_NAME_CHARACTERS_MAX):
        check_user_name(good)
    for bad in ("", ".", "..", "-a", "a b", "a/b", "é", "a\n", "A" * (limits.ACCESS_NAME_CHARACTERS_MAX + 1)):
        with pytest.raises(UsageError):
            check_user_name(bad)
    check_label("")
    check_label("the cluster's, für Anna")
    for bad in ("a\nb", "\udcff", "x" * (limits.ACCESS_NAME_CHARACTERS_MAX + 1)):
        with pytest.raises(UsageError):
            check_label(bad)
    assert end_of(None, NOW) is None and end_of(1.5, NOW) == NOW + 1_500_000_000
    for ttl_s in (0.0, -1.0, limits.TOKEN_LIFE_S_MAX + 1, float("nan"), float("inf")):
        with pytest.raises(UsageError):
            end_of(ttl_s, NOW)
