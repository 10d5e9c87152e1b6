"""Failure domains: which drives may go at once, and whether stripes can be spread so that this loses nothing. Pure.

A *domain* is a host or a disk. Drives with the same disk label are on one disk; without a label, those on one file
system are, and nothing is known of the others. Hosts are as labelled; drives without a host label are on the host of
the daemon. Disks lie in hosts: equal disk labels on two hosts are two disks.

Stripes are spread over hosts when every stripe can have at most m shards (its parity) on each, else over disks when
that can be so, else nothing is kept apart but drives. Spread over hosts they are spread over disks as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from ciaosfs.base.config import DriveLabels

Domain = Hashable
"""Equal for drives that may go at once."""


class Site(NamedTuple):
    """Where a drive is: its number, its labels, and what file system it is on (equal numbers: the same)."""

    number: int
    labels: DriveLabels
    device: int


class Level(StrEnum):
    """What stripes are spread over."""

    HOST = "host"
    DISK = "disk"
    DRIVE = "drive"


class Spread(NamedTuple):
    """The rule that a stripe keeps: at most `limit` of its shards in one of `domains`, which names each drive's.

    `level` is DRIVE when there is no such rule.
    """

    level: Level
    domains: Mapping[int, Domain]
    limit: int

    def held(self, holders: Iterable[int]) -> Counter[Domain]:
        """How many shards each domain has, when these drives have one each."""
        return Counter(self.domains[number] for number in holders if number in self.domains)


NO_SPREAD = Spread(Level.DRIVE, {}, 0)


def host_of(site: Site) -> Domain:
    """The host a drive is on."""
    return site.labels.host


def disk_of(site: Site) -> Domain:
    """The disk a drive is on, as far as is known."""
    return (site.labels.host, site.labels.disk or site.device)


_DOMAIN_OF = {Level.HOST: host_of, Level.DISK: disk_of}


def domains_at(level: Level, sites: Iterable[Site]) -> dict[int, Domain]:
    """The host or disk of each drive, by its number."""
    return {site.number: _DOMAIN_OF[level](site) for site in sites}


def can_spread(domains: Collection[Domain], width: int, limit: int) -> bool:
    """Whether `width` shards find drives, whose domains these are, with at most `limit` in each domain."""
    return sum(min(count, limit) for count in Counter(domains).values()) >= width


def spread_of(usable: Sequence[Site], others: Sequence[Site], width: int, parity_count: int) -> Spread:
    """The rule for stripes of `width` shards over the `usable` drives. `others` may hold shards as well."""
    for level in (Level.HOST, Level.DISK):
        domains = domains_at(level, usable)
        if level is Level.HOST and not any(site.labels.host for site in (*usable, *others)):
            continue
        if can_spread(domains.values(), width, parity_count):
            return Spread(level, {**domains_at(level, others), **domains}, parity_count)
    return NO_SPREAD


def in_order(sites: Sequence[Site], count: int, parity_count: int, holders: Sequence[Site] = ()) -> list[int]:
    """The first `count` of the drives that leave no host, or if that cannot be no disk, with more than m copies.

    Copies of a commit on m+1 drives: then one of them outlives every host, or every disk. `holders` have copies.
    """
    for level in (Level.HOST, Level.DISK):
        domain_of = _DOMAIN_OF[level]
        taken: Counter[Domain] = Counter(domain_of(site) for site in holders)
        chosen: list[int] = []
        for site in sites:
            if len(chosen) < count and taken[domain_of(site)] < parity_count:
                taken[domain_of(site)] += 1
                chosen.append(site.number)
        if len(chosen) == count:
            return chosen
    return [site.number for site in sites[:count]]


def weakness(sites: Sequence[Site], data_count: int, parity_count: int) -> str | None:
    """What one loss, of a disk or of a host, would cost, as a sentence; None when stripes survive any of them."""
    width = data_count + parity_count
    is_told = any(site.labels.host for site in sites)
    for level in (Level.DISK, Level.HOST) if is_told else (Level.DISK,):
        domains = domains_at(level, sites)
        kinds = len(set(domains.values()))
        if not sites or can_spread(domains.values(), min(width, len(sites)), parity_count):
            continue
        if kinds == 1:
            return f"All drives are on one {level}: losing that {level} loses the store."
        return (
            f"The drives are on {kinds} {level}s, too few or too unevenly to keep at most {parity_count} of the "
            f"{width} shards of a stripe on each: losing one {level} can lose files."
        )
    return None
