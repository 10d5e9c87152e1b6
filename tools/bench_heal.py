"""Lose the content of a drive under load, replace it, scrub and check; print the rates beside what zfec and the disk give.

    python -m tools.bench_heal [--size MIB] [--data K] [--parity M] [--base DIR] [--json FILE]

A store is made and filled, half with large files and half with small ones. While one process goes on reading and
writing it, everything on one drive is deleted and `ciaosfs drive replace --wait` rebuilds it onto a new one; then comes
`ciaosfs scrub --now --wait`, then `ciaosfs check --data`, and every file is compared with what was written. Ends with
status 1 when anything differs. Rates are in MiB of shards: the rebuild reads K of them for each it writes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import zfec

from tools.bench.targets import Ciaosfs, ciaosfs_command, drop_caches

MIB = 1 << 20
LARGE_BYTES = 32 * MIB
SMALL_BYTES_MAX = 256 * 1024
LOST = 1
"""The number of the drive that is lost."""

Manifest = dict[str, str]
"""Digest of each file by its path below the mount."""


def fill(directory: Path, size: int, dice: random.Random) -> Manifest:
    """Write `size` bytes, half of them in small files."""
    pool = dice.randbytes(LARGE_BYTES)
    manifest: Manifest = {}

    def put(name: str, data: bytes) -> None:
        (directory / name).write_bytes(data)
        manifest[name] = hashlib.sha256(data).hexdigest()

    for part in range(max(1, size // 2 // LARGE_BYTES)):
        cut = dice.randrange(LARGE_BYTES)
        put(f"large{part}", pool[cut:] + pool[:cut])
    written = number = 0
    while written < size // 2:
        start = dice.randrange(LARGE_BYTES - SMALL_BYTES_MAX)
        data = pool[start : start + dice.randrange(500, SMALL_BYTES_MAX)]
        put(f"small{number}", data)
        written += len(data)
        number += 1
    return manifest


def load(directory: str, stop: Event, out: str, seed: int) -> None:
    """Replace and read files until told to stop; what each holds at the end, and what read back wrong, goes to `out`."""
    dice = random.Random(seed)
    manifest: Manifest = {}
    wrong = []
    operations = 0
    while not stop.is_set():
        name = f"load{dice.randrange(50)}"
        path = Path(directory, name)
        if name in manifest and dice.random() < 0.5:
            if hashlib.sha256(path.read_bytes()).hexdigest() != manifest[name]:
                wrong.append(name)
        else:
            data = dice.randbytes(dice.randrange(100, 2 * MIB))
            path.with_suffix(".new").write_bytes(data)
            path.with_suffix(".new").rename(path)
            manifest[name] = hashlib.sha256(data).hexdigest()
        operations += 1
        time.sleep(0.01)
    Path(out).write_text(json.dumps({"manifest": manifest, "wrong": wrong, "operations": operations}))


def differing(directory: Path, manifest: Manifest) -> list[str]:
    return [
        name
        for name, digest in manifest.items()
        if hashlib.sha256((directory / name).read_bytes()).hexdigest() != digest
    ]


def stored_bytes(directory: Path) -> int:
    """What files below a directory take on the disk."""
    return sum(512 * path.stat().st_blocks for path in directory.rglob("*") if path.is_file())


def decode_rate(data: int, parity: int, seconds: float = 0.5) -> float:
    """MiB of lost shards that one core makes per second with zfec from `data` others."""
    shards = [os.urandom(MIB) for _ in range(data)]
    made = zfec.Encoder(data, data + parity).encode(shards, list(range(data, data + parity)))
    decoder = zfec.Decoder(data, data + parity)
    kept, numbers = [*shards[1:], made[0]], [*range(1, data), data]
    count = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        decoder.decode(kept, numbers)
        count += 1
    return count / (time.perf_counter() - start)


def read_rate(directory: Path) -> float:
    """MiB per second of a plain cold read of the volumes on a drive."""
    start = time.perf_counter()
    count = 0
    for path in directory.rglob("*.vol"):
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(MIB):
                count += len(chunk)
    return count / MIB / (time.perf_counter() - start)


def timed(*command: str) -> float:
    """Run a command of ciaosfs that has to succeed; returns its seconds."""
    start = time.perf_counter()
    done = subprocess.run([*ciaosfs_command(), *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"ciaosfs {command[0]} failed ({done.returncode}): {done.stderr or done.stdout}")
    return time.perf_counter() - start


def run(options: argparse.Namespace, base: Path) -> dict[str, object]:
    dice = random.Random(options.seed)
    target = Ciaosfs(base, ciaosfs_command(), options.data, options.parity)
    with target:
        mount, store = target.directory, target.base / "store"
        manifest = fill(mount, options.size * MIB, dice)
        timed("sync", str(mount))
        drives = store / "drives"
        lost_bytes = stored_bytes(drives / f"d{LOST}")
        assert lost_bytes, "nothing was stored on the drive that is to be lost"
        drop_caches(target)
        disk = read_rate(drives / f"d{LOST + 1}")
        context = get_context("spawn")
        stop = context.Event()
        report = base / "load.json"
        process = context.Process(target=load, args=(str(mount), stop, str(report), options.seed))
        process.start()
        try:
            shutil.rmtree(drives / f"d{LOST}")
            fresh = drives / "fresh"
            fresh.mkdir()
            rebuild_s = timed("drive", "replace", str(LOST), str(fresh), str(mount), "--wait", "--yes")
        finally:
            stop.set()
            process.join()
        told = json.loads(report.read_text())
        timed("sync", str(mount))
        drop_caches(target)
        scrubbed = sum(stored_bytes(path) for path in drives.iterdir())
        scrub_s = timed("scrub", "--now", "--wait", str(mount))
        timed("check", str(mount), "--data")
        wrong = [*told["wrong"], *differing(mount, {**manifest, **told["manifest"]})]
        status = json.loads(subprocess.check_output([*ciaosfs_command(), "status", str(mount), "--json"]))
        memory = _peak_mib(target.pid())
    return {
        "data": options.data,
        "parity": options.parity,
        "files_mib": options.size,
        "lost_mib": lost_bytes / MIB,
        "rebuild_s": rebuild_s,
        "rebuild_mib_per_s": lost_bytes / MIB / rebuild_s,
        "scrub_mib": scrubbed / MIB,
        "scrub_s": scrub_s,
        "scrub_mib_per_s": scrubbed / MIB / scrub_s,
        "zfec_decode_mib_per_s": decode_rate(options.data, options.parity),
        "disk_read_mib_per_s": disk,
        "load_operations": told["operations"],
        "files_wrong": wrong,
        "stripes_by_missing": status["stripes_by_missing"],
        "daemon_peak_mib": memory,
    }


def _peak_mib(pid: int | None) -> float | None:
    if pid is None:
        return None
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return None


def print_table(result: dict[str, object]) -> None:
    print(f"{result['files_mib']} MiB of files, {result['lost_mib']:.0f} MiB of shards lost, under load:")
    print(f"  rebuilt at  {result['rebuild_mib_per_s']:8.0f} MiB/s")
    print(f"  scrubbed at {result['scrub_mib_per_s']:8.0f} MiB/s")
    print(f"  zfec decodes{result['zfec_decode_mib_per_s']:8.0f} MiB/s on one core")
    print(f"  disk reads  {result['disk_read_mib_per_s']:8.0f} MiB/s")
    print(
        f"  {result['load_operations']} operations beside it; wrong files: {result['files_wrong'] or 'none'}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=2048, metavar="MIB", help="of files (default 2048)")
    parser.add_argument("--data", type=int, default=4)
    parser.add_argument("--parity", type=int, default=2)
    parser.add_argument("--base", type=Path, help="directory for everything (default: a temporary one)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.base, prefix="ciaosfs-heal-") as directory:
        result = run(options, Path(directory))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print_table(result)
    return 1 if result["files_wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
