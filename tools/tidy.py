"""The rules of the repository that a program can check: floors, doors, sizes, words that must not stay.

`python -m tools.tidy` prints each breach as `file:line: sentence` and ends with status 1 when there is one;
`tests/tidy` runs the same checks. A *floor* is the height of a package: imports go to a lower floor or
sideways inside one package, and imports under TYPE_CHECKING or inside a function count, because that is
where cycles hide. A *door* is the one place where a library may be imported.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE_LINES_MAX = 450

FLOORS = (
    ("base",),
    ("codec", "control"),
    ("drive", "client"),
    ("meta", "volume"),
    ("stripe", "access"),
    ("fs",),
    ("objects", "jobs", "checking"),
    ("offline", "ciaosfsd", "doctor"),
    ("cli",),
)
FLOOR = {package: height for height, packages in enumerate(FLOORS) for package in packages}
FLOOR[""] = FLOOR["client"] + 1  # ciaosfs/__init__.py offers the client's names
FLOOR["__main__"] = len(FLOORS)

DOORS = {
    "apsw": "ciaosfs.meta",
    "zfec": "ciaosfs.codec.erasure",
    "zstandard": "ciaosfs.codec.compression",
    "pyfuse3": "ciaosfsd.fuse",
    "click": "ciaosfs.cli",
    "prometheus_client": "ciaosfsd.metrics.exposition",
}
TRIO_FLOOR = 2
CLOCK_DOOR = "ciaosfs.base.clock"
CLOCK_CALLS = {
    "time.time",
    "time.time_ns",
    "time.clock_gettime_ns",
    "datetime.now",
    "datetime.datetime.now",
    "datetime.utcnow",
}
PRINT_DOOR = "ciaosfs.cli.output"
SQL_DOOR = "ciaosfs.meta"
SQL = re.compile(
    r"\s*(SELECT\b.*\bFROM|INSERT (OR \w+ )?INTO|UPDATE\b.*\bSET|DELETE FROM|CREATE TABLE|PRAGMA) ", re.S
)
DEBUG_CALLS = {"breakpoint", "pdb.set_trace", "ipdb.set_trace"}
ENTRIES = re.compile(r"ciaosfs\.cli\.(main|mount_helper|cmd_\w+)|ciaosfsd\.main|.*\.__main__")
"""Modules that are started, or loaded by the name of a command, and not imported."""

PROTOCOL = Path("PROTOCOL.md")
PROTOCOL_ROW = re.compile(r"\| `([a-z-]+)` \| [a-z ]+ \|")
HANDLERS = "ciaosfsd.control.handlers_"

UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
MACHINE_PATH = re.compile(r"(?<![\w.~$}])/(home|root|work|Users)/[\w.]+")
TEXT_SUFFIXES = {".py", ".md", ".toml", ".sh", ".service", ".example", ".txt", ""}


@dataclass(frozen=True)
class Breach:
    """One place where a rule is broken."""

    path: Path
    line: int
    sentence: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.sentence}"


@dataclass(frozen=True)
class Import:
    """One imported module, wherever in the file it stands."""

    module: str
    line: int


class Module:
    """A Python file of the product, parsed."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name = name
        self.path = path
        self.source = source
        self.tree = ast.parse(source, str(path))
        self.is_package = path.name == "__init__.py"

    @property
    def package(self) -> str:
        """The key in FLOORS: `codec`, `ciaosfsd`, ..."""
        return package_of(self.name)

    @cached_property
    def imports(self) -> list[Import]:
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [Import(alias.name, node.lineno) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                # What is imported from a package may be one of its modules.
                found += [Import(f"{base}.{alias.name}", node.lineno) for alias in node.names]
        return found

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        here = parts if self.is_package else parts[:-1]
        above = here[: len(here) - node.level + 1]
        return ".".join([*above, *([node.module] if node.module else [])])


class Repository:
    """The tracked files, the modules of the product by name, and the tests and tools (`helpers`)."""

    def __init__(self, root: Path, files: list[Path] | None = None) -> None:
        self.root = root
        self.files = tracked_files(root) if files is None else files
        self.modules: dict[str, Module] = {}
        self.helpers: list[Module] = []
        for path in self.files:
            name = module_name(path)
            if name is not None:
                self.modules[name] = Module(name, path, (root / path).read_text())
            elif path.suffix == ".py":
                self.helpers.append(
                    Module(".".join(path.with_suffix("").parts), path, (root / path).read_text())
                )

    def resolve(self, imported: str) -> str | None:
        """The module of the product that *imported* names, or that holds the name; None for foreign ones."""
        while imported:
            if imported in self.modules:
                return imported
            imported = imported.rpartition(".")[0]
        return None


def tracked_files(root: Path) -> list[Path]:
    """What git knows or would add, relative to *root*; every source file where there is no repository."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:  # an unpacked archive, or a checkout that belongs to another user
        places = ("ciaosfs", "daemon", "tests", "tools", "packaging")
        names = [str(path.relative_to(root)) for place in places for path in (root / place).rglob("*.*")]
        return sorted(Path(name) for name in names if "__pycache__" not in name and (root / name).is_file())
    names = done.stdout.split("\0")
    return sorted({Path(name) for name in names if name and (root / name).is_file()})


def module_name(path: Path) -> str | None:
    """The dotted name of a Python file of the product, None for other files."""
    parts = path.parts
    if path.suffix != ".py" or parts[0] not in ("ciaosfs", "daemon"):
        return None
    names = list(parts[1:] if parts[0] == "daemon" else parts)
    names[-1] = names[-1].removesuffix(".py")
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def package_of(name: str) -> str:
    """`ciaosfs.codec.erasure` is in `codec`, everything of the daemon in `ciaosfsd`, `ciaosfs` itself in the empty one."""
    parts = name.split(".")
    if parts[0] == "ciaosfsd":
        return "ciaosfsd"
    return parts[1] if len(parts) > 1 else ""


def check_floors(repository: Repository) -> Iterator[Breach]:
    for module in repository.modules.values():
        if module.package not in FLOOR:
            yield Breach(module.path, 1, f"package {module.package} has no floor in tools/tidy.py")
            continue
        for imported in module.imports:
            target = repository.resolve(imported.module)
            if target is None or target == "ciaosfs" or package_of(target) == module.package:
                continue
            package = package_of(target)
            if FLOOR.get(package, len(FLOORS)) >= FLOOR[module.package]:
                yield Breach(
                    module.path,
                    imported.line,
                    f"{module.package or 'ciaosfs'} is on floor {FLOOR[module.package]} and imports {target}, "
                    f"which is on floor {FLOOR.get(package, '?')}",
                )


def check_doors(repository: Repository) -> Iterator[Breach]:
    for module in repository.modules.values():
        for imported in module.imports:
            library = imported.module.split(".")[0]
            door = DOORS.get(library)
            if door is not None and module.name != door and not module.name.startswith(f"{door}."):
                yield Breach(module.path, imported.line, f"{library} is imported only by {door}")
            if library == "trio" and FLOOR.get(module.package, 0) < TRIO_FLOOR:
                yield Breach(module.path, imported.line, f"trio begins at floor {TRIO_FLOOR}")


def check_cycles(repository: Repository) -> Iterator[Breach]:
    """No module imports itself through others."""
    edges: dict[str, set[str]] = {name: set() for name in repository.modules}
    for name, module in repository.modules.items():
        for found in module.imports:
            target = repository.resolve(found.module)
            # The package a module is in may offer its names: that is no knot.
            if target is not None and target != name and not name.startswith(f"{target}."):
                edges[name].add(target)
    for name in sorted(edges):
        path = _path_back(edges, name)
        if path and name == min(path):
            yield Breach(repository.modules[name].path, 1, f"imports go in a circle: {' -> '.join(path)}")


def _path_back(edges: dict[str, set[str]], start: str) -> list[str]:
    """The shortest way from *start* through imports to *start* again."""
    ways = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop(0)
        for target in sorted(edges[way[-1]]):
            if target == start:
                return [*way, start]
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return []


def check_dead_files(repository: Repository) -> Iterator[Breach]:
    """Every module is imported by another one, by a test or a tool, or is an entry."""
    alive = {
        target
        for module in [*repository.modules.values(), *repository.helpers]
        for found in module.imports
        if (target := repository.resolve(found.module)) != module.name
    }
    for name, module in repository.modules.items():
        if name not in alive and not ENTRIES.fullmatch(name) and not module.is_package:
            yield Breach(module.path, 1, "nothing imports this module")


def check_calls(repository: Repository) -> Iterator[Breach]:
    """print, the wall clock, debuggers."""
    for module in repository.modules.values():
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called == "print" and module.name != PRINT_DOOR:
                yield Breach(module.path, node.lineno, f"only {PRINT_DOOR} prints")
            if called in CLOCK_CALLS and module.name != CLOCK_DOOR:
                yield Breach(module.path, node.lineno, f"the wall clock is read only in {CLOCK_DOOR}")
            if called in DEBUG_CALLS:
                yield Breach(module.path, node.lineno, "a debugger was left behind")


def check_sql(repository: Repository) -> Iterator[Breach]:
    for module in repository.modules.values():
        if module.package == "meta":
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.match(node.value):
                yield Breach(module.path, node.lineno, f"SQL stands only in {SQL_DOOR}")


def check_docstrings(repository: Repository) -> Iterator[Breach]:
    for module in repository.modules.values():
        if not ast.get_docstring(module.tree):
            yield Breach(module.path, 1, "no docstring says what this is for")
    for name, module in repository.modules.items():
        package = name if module.is_package else name.rpartition(".")[0]
        if package not in repository.modules:
            yield Breach(module.path, 1, f"package {package} has no __init__.py")


def check_protocol(repository: Repository) -> Iterator[Breach]:
    """Every operation of the control socket has one row in PROTOCOL.md, and no other has."""
    rows: dict[str, int] = {}
    is_within = False
    for number, line in enumerate((repository.root / PROTOCOL).read_text().splitlines(), 1):
        is_within |= line == "## Operations"
        if is_within and (row := PROTOCOL_ROW.match(line)):
            if row[1] in rows:
                yield Breach(PROTOCOL, number, f"a second row for {row[1]}")
            rows[row[1]] = number
    for module in repository.modules.values():
        if module.name.startswith(HANDLERS):
            for name, number in _operations(module):
                if rows.pop(name, None) is None:
                    yield Breach(
                        module.path, number, f"{PROTOCOL} has no row for {name}, or another handler has it"
                    )
    for name, number in rows.items():
        yield Breach(PROTOCOL, number, f"no handler for {name}")


def _operations(module: Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Operation" and node.args:
            first = node.args[0]
            name = first.value if isinstance(first, ast.Constant) else None
            yield name if isinstance(name, str) else "an operation without a literal name", node.lineno


def check_sizes(repository: Repository) -> Iterator[Breach]:
    for path in repository.files:
        if path.suffix == ".py":
            lines = (repository.root / path).read_text().count("\n")
            if lines > FILE_LINES_MAX:
                yield Breach(path, lines, f"{lines} lines, more than {FILE_LINES_MAX}: split it by question")


def check_words(repository: Repository) -> Iterator[Breach]:
    """What must not stay: marks of unfinished work, paths of somebody's machine."""
    for path in repository.files:
        if path.suffix not in TEXT_SUFFIXES or path.name == "LICENSE":
            continue
        text = (repository.root / path).read_text(errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if UNFINISHED.search(line):
                yield Breach(path, number, "unfinished by its own word")
            if MACHINE_PATH.search(line):
                yield Breach(path, number, "a path of somebody's machine")


def check_merges(repository: Repository) -> Iterator[Breach]:
    """Every file, those that no other rule or tool reads too: one stood in the Makefile for an hour."""
    for path in repository.files:
        with (repository.root / path).open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.startswith((b"<" * 7 + b" ", b">" * 7 + b" ")):
                    yield Breach(path, number, "a conflict that was not resolved")


CHECKS: tuple[Callable[[Repository], Iterator[Breach]], ...] = (
    check_floors,
    check_doors,
    check_cycles,
    check_dead_files,
    check_calls,
    check_sql,
    check_docstrings,
    check_protocol,
    check_sizes,
    check_words,
    check_merges,
)


def main() -> int:
    repository = Repository(ROOT)
    breaches = [breach for check in CHECKS for breach in check(repository)]
    for breach in breaches:
        print(breach)
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
