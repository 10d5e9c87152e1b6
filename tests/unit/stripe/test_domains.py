"""Failure domains: what is kept apart, and what is said when it cannot be."""

from __future__ import annotations

import pytest

from ciaosfs.base.config import DriveLabels
from ciaosfs.stripe.domains import NO_SPREAD, Level, Site, in_order, spread_of, weakness


def sites(hosts: str, disks: str, devices: str = "") -> list[Site]:
    """Drives with one-letter labels, "-" for none; each on a file system of its own unless told."""
    return [
        Site(
            number,
            DriveLabels(host.strip("-"), disk.strip("-")),
            int(devices[number]) if devices else number,
        )
        for number, (host, disk) in enumerate(zip(hosts, disks, strict=True))
    ]


@pytest.mark.parametrize(
    ("hosts", "disks", "devices", "level"),
    [
        ("aabbcc", "------", "", Level.HOST),
        ("aabb--", "------", "", Level.HOST),
        ("aaabbb", "------", "", Level.DISK),
        ("------", "------", "", Level.DISK),
        ("------", "------", "000000", Level.DRIVE),
        ("------", "xxyyzz", "000000", Level.DISK),
        ("------", "xxxyyy", "", Level.DRIVE),
        ("aaabbb", "xyzxyz", "000000", Level.DISK),
        ("aaabbb", "xxxxxx", "", Level.DRIVE),
        ("------", "xx----", "001123", Level.DISK),
    ],
)
def test_hosts_go_before_disks_and_only_what_can_be_is_kept(
    hosts: str, disks: str, devices: str, level: Level
) -> None:
    assert spread_of(sites(hosts, disks, devices), (), 6, 2).level is level


def test_one_disk_label_on_two_hosts_is_two_disks() -> None:
    spread = spread_of(sites("aaabbb", "xyzxyz"), (), 6, 2)
    assert len(set(spread.domains.values())) == 6


def test_drives_that_take_nothing_still_have_a_domain() -> None:
    every = sites("aabbccdd", "--------")
    spread = spread_of(every[:6], every[6:], 6, 2)
    assert spread.held([0, 6, 7, 99]) == {"a": 1, "d": 2}


def test_without_parity_nothing_can_be_kept() -> None:
    assert spread_of(sites("abcd", "----"), (), 4, 0) is NO_SPREAD


def test_copies_of_a_commit_leave_the_host_when_they_can() -> None:
    assert in_order(sites("aaabbb", "------"), 3, 2) == [0, 1, 3]
    assert in_order(sites("aaaaaa", "xxxyyy"), 3, 2) == [0, 1, 3]
    assert in_order(sites("------", "------", "000111"), 3, 2) == [0, 1, 3]
    assert in_order(sites("------", "------", "000000"), 3, 2) == [0, 1, 2]
    assert in_order(sites("abcdef", "------"), 3, 2) == [0, 1, 2]
    assert in_order(sites("ab", "--"), 3, 2) == [0, 1], "no more than there are"
    every = sites("aaabbb", "------")
    assert in_order(every[2:], 1, 2, every[:2]) == [3], "two copies are on host a"


def test_one_disk_is_said_to_be_one() -> None:
    assert weakness(sites("------", "------", "000000"), 4, 2) == (
        "All drives are on one disk: losing that disk loses the store."
    )
    said = weakness(sites("------", "xxxyyy", "000000"), 4, 2)
    assert said is not None and said.startswith("The drives are on 2 disks, too few or too unevenly")
    assert weakness(sites("------", "xxyyzz", "000000"), 4, 2) is None
    assert weakness(sites("------", "------"), 4, 2) is None


def test_hosts_count_once_any_is_named() -> None:
    assert weakness(sites("aabbcc", "------"), 4, 2) is None
    said = weakness(sites("aaabbb", "------"), 4, 2)
    assert said is not None and "2 hosts" in said
    assert weakness(sites("aaaaaa", "------"), 4, 2) == (
        "All drives are on one host: losing that host loses the store."
    )
