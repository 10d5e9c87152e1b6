"""Run the public POSIX suite pjdfstest on a mount and say what it found.

    python -m tools.posix_suites PATH-TO-pjdfstest                  on a fresh store, mounted for this
    python -m tools.posix_suites PATH-TO-pjdfstest --on DIRECTORY   on a directory that is there already
    python -m tools.posix_suites PATH-TO-pjdfstest --only rename    some of it (a regular expression on paths)

The suite is built by you (`autoreconf -ifs && ./configure && make pjdfstest` in its checkout) and stays
outside this repository. It changes owners and makes devices, so it runs as root. Ends with prove's status:
0 when all passed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

if not __package__:  # started as a file: the modules beside it are found from the root of the repository
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.bench.targets import BenchError, Ciaosfs, ciaosfs_command


def find_tests(suite: Path, only: str) -> list[str]:
    """The test files below *suite* whose path matches *only*."""
    tests = sorted(str(path) for path in (suite / "tests").rglob("*.t"))
    return [path for path in tests if re.search(only, path)]


@contextmanager
def fresh_mount() -> Iterator[Path]:
    """A new store, mounted; both are gone afterwards."""
    base = Path(tempfile.mkdtemp(prefix="ciaosfs-suite."))
    base.chmod(0o755)  # the suite works as other users too
    try:
        with Ciaosfs(base, ciaosfs_command()) as target:
            yield target.directory
    finally:
        shutil.rmtree(base, ignore_errors=True)


def run_suite(suite: Path, directory: Path, only: str) -> int:
    """Run prove in an empty directory below *directory*; its exit status."""
    tests = find_tests(suite, only)
    if not tests:
        raise BenchError(f"no tests below {suite}/tests match {only!r}")
    work = directory / f"pjdfstest.{os.getpid()}"
    work.mkdir()
    work.chmod(0o755)
    try:
        return subprocess.run(["prove", "-Q", *tests], cwd=work, check=False).returncode
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run pjdfstest on ciaosfs.")
    parser.add_argument("suite", type=Path, help="a built checkout of pjdfstest")
    parser.add_argument(
        "--on", type=Path, metavar="DIRECTORY", help="run it here instead of on a fresh store"
    )
    parser.add_argument("--only", default="", metavar="REGEX", help="only test files whose path matches")
    options = parser.parse_args(arguments)
    suite = options.suite.resolve()
    if os.getuid() != 0:
        parser.error("the suite changes owners and makes devices: run it as root")
    if not (suite / "pjdfstest").exists():
        parser.error(f"{suite} has no program pjdfstest: build it there first")
    if shutil.which("prove") is None:
        parser.error("prove is missing: it comes with perl")
    try:
        if options.on:
            return run_suite(suite, options.on.resolve(), options.only)
        with fresh_mount() as directory:
            return run_suite(suite, directory, options.only)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
