"""What the benchmark says: medians, ratios, the machine, as JSON and as a Markdown table."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import zfec

from tools.bench.phases import MIB, PHASES, Phase

Samples = Mapping[str, Mapping[str, Sequence[float]]]
"""Rates by target name, then by phase name."""

MEMORY_MIB_MAX = 256


def measure_zfec(pool: memoryview, data: int, parity: int, seconds: float = 0.5) -> float:
    """MiB of payload one core codes per second into *parity* shards of 1 MiB beside *data*."""
    encoder = zfec.Encoder(data, data + parity)
    shards = [bytes(pool[index * MIB : (index + 1) * MIB]) for index in range(data)]
    wanted = list(range(data, data + parity))
    count = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        encoder.encode(shards, wanted)
        count += data
    return count / (time.perf_counter() - start)


def machine() -> dict[str, str]:
    """The facts a figure depends on."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    facts = {
        "cpu": f"{cpu.group(1) if cpu else platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libfuse": _libfuse_version(),
    }
    for package in ("pyfuse3", "trio", "apsw", "zfec", "zstandard", "xxhash"):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "absent"
    return facts


def _libfuse_version() -> str:
    try:
        answer = subprocess.run(["fusermount3", "-V"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return "unknown"
    return answer.rsplit(" ", 1)[-1].strip()


def summarize(samples: Samples, zfec_rates: Sequence[float]) -> dict[str, Any]:
    """Medians per target and phase, and how ciaosfs compares with what each phase is measured against."""
    medians = {
        target: {phase: statistics.median(rates) for phase, rates in phases.items()}
        for target, phases in samples.items()
    }
    zfec_rate = statistics.median(zfec_rates)
    ratios: dict[str, dict[str, Any]] = {}
    mine = medians.get("ciaosfs", {})
    for phase in PHASES:
        if phase.name not in mine:
            continue
        row: dict[str, Any] = {
            f"ciaosfs/{other}": mine[phase.name] / medians[other][phase.name]
            for other in ("ceiling", "plain")
            if other in medians
        }
        if phase.against == "zfec":
            row["ciaosfs/zfec"] = mine[phase.name] / zfec_rate
        ratio = row.get(f"ciaosfs/{phase.against}")
        if phase.reach is not None and ratio is not None:
            row["reach"] = phase.reach
            row["reached"] = ratio >= phase.reach
        ratios[phase.name] = row
    return {"medians": medians, "zfec_mib_s": zfec_rate, "ratios": ratios}


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def _verdict(phase: Phase, row: Mapping[str, Any]) -> str:
    ratio = row.get(f"ciaosfs/{phase.against}")
    if ratio is None:
        return "-"
    asked = "" if phase.reach is None else f" (asked: {phase.reach:g})"
    return f"{ratio:.2f} of {phase.against}{asked}"


def markdown(result: Mapping[str, Any]) -> str:
    """The table for the README, with the machine under it."""
    medians = result["medians"]
    targets = list(medians)
    lines = [
        "| " + " | ".join(["", *targets, "ciaosfs compared"]) + " |",
        "|" + "---|" * (len(targets) + 2),
    ]
    for phase in PHASES:
        values = [medians[target].get(phase.name) for target in targets]
        if any(value is not None for value in values):
            compared = _verdict(phase, result["ratios"].get(phase.name, {}))
            cells = [f"{phase.title}, {phase.unit}", *map(_figure, values), compared]
            lines.append("| " + " | ".join(cells) + " |")
    peaks = result.get("memory", {})
    if peaks:
        cells = [f"{peaks[target]['peak_mib']:.0f} MiB" if target in peaks else "-" for target in targets]
        cells = ["peak memory of the daemon", *cells, f"asked: {MEMORY_MIB_MAX} MiB"]
        lines.append("| " + " | ".join(cells) + " |")
    facts = result["machine"]
    versions = ", ".join(f"{name} {facts[name]}" for name in facts if name not in ("cpu", "memory", "kernel"))
    parameters = result["parameters"]
    lines += [
        "",
        f"Medians of {parameters['rounds']} alternating rounds; one core codes "
        f"{result['zfec_mib_s']:,.0f} MiB/s with zfec at {parameters['data']}+{parameters['parity']}. "
        f"Machine: {facts['cpu']}, {facts['memory']}, Linux {facts['kernel']}; {versions}.",
    ]
    return "\n".join(lines)
