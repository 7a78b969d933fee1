"""Mutation testing: break one line of memfeat at a time and see whether a test notices.

Run `python tests/tools/mutate.py --tree . --count 40 --jobs 2`. Each mutation is made in a copy of
the tree, and only the test files that reach the mutated room run, up to their first failure. A
mutation that no test notices is printed as a diff: either it changes nothing, or a test is missing.

Mutations are ranked by a hash of their function and of the changed code, not drawn by position, so
two versions of the tree are given the same mutations wherever their code is the same.
"""

import argparse
import ast
import copy
import difflib
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import pytest

PRELOADED = ["torch", "timm", "open_clip", "scipy.stats", "h5py", "av", "matplotlib.pyplot"]
ROOMS = ("cache", "training", "models", "metrics", "extraction", "decoding")
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}
SKIPPED = {"annotation", "returns", "decorator_list", "exc"}  # `exc`: the message of an error


@dataclass
class Mutant:
    """One changed place, and what the tests made of it."""

    path: str
    kind: str
    rank: str
    source: bytes
    diff: str = ""
    outcome: str = ""
    killer: str = ""
    seconds: float = 0.0


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield what may stand in a node's place, each with the kind of mutation."""
    new = copy.copy(node)
    match new:
        case ast.Compare(ops=[op]) if type(op) in SWAPS:
            new.ops = [SWAPS[type(op)]()]
            yield "comparison", new
        case ast.BoolOp(op=op):
            new.op = SWAPS[type(op)]()
            yield "and/or", new
        case ast.BinOp(op=op) if type(op) in SWAPS:
            new.op = SWAPS[type(op)]()
            yield "arithmetic", new
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "not", operand
        case ast.Constant(value=bool(value)):
            yield "flag", ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield "constant", ast.Constant(value + 1)
        case ast.Constant(value=float(value)):
            yield "constant", ast.Constant(value * 2 + 0.1)
        case ast.stmt():
            yield from changed_statements(new)


def changed_statements(node: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Return(value=ast.expr()):
            yield "return", ast.Return(ast.Constant(None))
        case ast.Raise() | ast.AugAssign() | ast.Expr(value=ast.Call()):
            yield "statement", ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "statement", ast.Pass()
        case ast.Continue():
            yield "loop", ast.Break()
        case ast.Break():
            yield "loop", ast.Continue()


def places(node: ast.AST, name: str = "") -> Iterator[tuple[ast.AST, str]]:
    """Walk a module's code: nodes with the function they are in, without types and messages."""
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            skipped = field in SKIPPED or isinstance(child, ast.JoinedStr)
            if isinstance(child, ast.AST) and not skipped:
                inner = f"{name}.{child.name}" if getattr(child, "name", None) else name
                yield child, inner
                yield from places(child, inner)


def mutants(tree: Path, seed: int) -> Iterator[Mutant]:
    """Yield every mutation of the rooms."""
    for path in sorted(p for room in ROOMS for p in (tree / "memfeat" / room).rglob("*.py")):
        source = path.read_bytes()
        lines = source.splitlines(keepends=True)
        starts = [0, *accumulate(map(len, lines))]
        for node, name in places(ast.parse(source)):
            for kind, new in changes(node):
                code = f"({ast.unparse(new)})" if isinstance(new, ast.expr) else ast.unparse(new)
                first = starts[node.lineno - 1] + node.col_offset
                last = starts[node.end_lineno - 1] + node.end_col_offset
                around = b"".join(lines[node.lineno - 1 : node.end_lineno])
                key = f"{seed} {name} {ast.unparse(node)} {code} {around!r}"
                rank = hashlib.sha256(key.encode()).hexdigest()
                where = path.relative_to(tree).as_posix()
                yield Mutant(where, kind, rank, source[:first] + code.encode() + source[last:])


def diff(mutant: Mutant, tree: Path) -> str:
    pair = (tree / mutant.path).read_text().splitlines(), mutant.source.decode().splitlines()
    return "\n".join(difflib.unified_diff(*pair, mutant.path, mutant.path, lineterm="", n=2))


def chosen(tree: Path, seed: int, count: int) -> list[Mutant]:
    """Choose as many from each room, and within one as many as can be of each kind."""
    turns: Counter[tuple[str, str]] = Counter()
    rows = []
    for mutant in sorted(mutants(tree, seed), key=lambda mutant: mutant.rank):
        kind = room_of(mutant.path), mutant.kind
        rows.append((turns[kind], mutant.rank, mutant))
        turns[kind] += 1
    seen: Counter[str] = Counter()
    by_turn = []
    for _, rank, mutant in sorted(rows, key=lambda row: row[:2]):
        by_turn.append((seen[room_of(mutant.path)], rank, mutant))
        seen[room_of(mutant.path)] += 1
    return [mutant for *_, mutant in sorted(by_turn, key=lambda row: row[:2])[:count]]


def room_of(path: str) -> str:
    return path.split("/")[1]


def imported(path: Path) -> set[str]:
    """The modules that a file imports, `memfeat.cache.shard` as `memfeat.cache` too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {".".join(name.split(".")[:n]) for name in names for n in (1, 2, 3)}


def reaching(tree: Path, mutated: str, most: int) -> list[str]:
    """The test files that reach a module: the likeliest to notice a change, `most` of them."""
    module = mutated.removesuffix(".py").replace("/", ".")
    room, name = module.split(".")[1:3]
    files = {path.stem: path for path in (tree / "tests").glob("*.py")}
    direct = {stem: imported(path) for stem, path in files.items()}

    def order(stem: str) -> int | None:
        helpers = {name for name in direct[stem] if name in files}
        through = set().union(*(direct[helper] for helper in helpers))
        ways = (
            name in stem and room in stem,
            module in direct[stem],
            stem == f"test_{room}",
            stem.startswith(f"test_{room}"),
            f"memfeat.{room}" in direct[stem],
            module in through,
            f"memfeat.{room}" in through,
        )
        return ways.index(True) if any(ways) else None

    defined = ast.parse((tree / mutated).read_text()).body
    words = {each.name for each in defined if isinstance(each, ast.ClassDef | ast.FunctionDef)}

    def unlike(stem: str) -> int:
        return -len(words & set(re.findall(r"\w+", files[stem].read_text())))

    ranked = ((order(stem), unlike(stem), stem) for stem in files if "test_" in stem)
    found = sorted(row for row in ranked if row[0] is not None)
    return [f"tests/{stem}.py" for _, _, stem in found[:most]]


def pytest_in(tree: Path, tests: list[str], output: Path, cache: Path) -> None:
    """Run tests up to the first failure, as the leader of a group of processes."""
    os.setsid()
    os.chdir(tree)
    sys.path[0] = str(tree)
    os.environ["PYTHONPATH"] = str(tree)
    os.environ["XDG_CACHE_HOME"] = str(cache)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        options = ["-x", "-q", "-n", "0", "-p", "no:randomly", "-p", "no:cacheprovider"]
        options += ["--timeout", "120", "--timeout-method", "thread", "--basetemp", f"{tree}-tmp"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what is preloaded
        sys.exit(pytest.main([*options, *tests]))


def run(tree: Path, tests: list[str], limit: float) -> tuple[int | None, str]:
    """Run tests in a tree; return the exit code, None if out of time, and the output."""
    output = tree.with_name("output")
    # The compiled kernel is kept, but not what a compiling.py that is broken makes of it.
    shared = Path(tempfile.gettempdir()) / "memfeat-mutations"
    cache = tree.with_name("cache") if any("compiling" in name for name in tests[:1]) else shared
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=pytest_in, args=(tree, tests, output, cache))
    process.start()
    process.join(limit)
    code = process.exitcode
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    return code, output.read_text(errors="replace")


def copied(tree: Path, to: Path) -> Path:
    left = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", ".hypothesis")
    return shutil.copytree(tree, to, ignore=left, symlinks=True)


def tried(mutant: Mutant, tree: Path, most: int, limit: float) -> Mutant:
    """Make a mutation in a copy of the tree, and run the tests that reach it."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        made = copied(tree, Path(folder) / "tree")
        (made / mutant.path).write_bytes(mutant.source)
        start = time.monotonic()
        code, output = run(made, reaching(tree, mutant.path, most), limit)
    mutant.diff = diff(mutant, tree)
    mutant.seconds = round(time.monotonic() - start, 1)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    if code is None or code == 0:
        mutant.outcome = "survived" if code == 0 else "timed out"
    elif failed or code < 0 or "+ Timeout +" in output:
        mutant.outcome, mutant.killer = "killed", failed[0] if failed else output[-300:]
    else:
        raise RuntimeError(f"the tests of {mutant.path} did not run:\n{output[-2000:]}")
    shown = "" if mutant.outcome == "killed" else f"\n{mutant.diff}\n"
    line = f"{mutant.outcome:9} {mutant.seconds:6.1f} s {mutant.path} {mutant.kind}"
    print(line + shown, flush=True)
    return mutant


def unsound(made: list[Mutant], tree: Path, limit: float) -> str:
    """Run the tests that noticed something in an unchanged copy; return what fails even there."""
    killers = sorted({m.killer for m in made if m.killer.startswith("tests/")})
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        code, output = run(copied(tree, Path(folder) / "tree"), killers, limit)
    return "" if code == 0 else output[-2000:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", type=Path, default=Path(), help="what to mutate (here)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--files", type=int, default=12, help="test files for one mutation (12)")
    parser.add_argument("--limit", type=float, default=600, help="seconds for one mutation (600)")
    parser.add_argument("--output", type=Path, default=Path("runs/mutations.json"))
    given = parser.parse_args()
    tree = given.tree.resolve()
    os.environ["OMP_NUM_THREADS"] = "1"  # which torch reads when it is imported
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    made: list[Mutant] = []
    with ThreadPoolExecutor(given.jobs) as pool:
        todo = chosen(tree, given.seed, given.count)
        try_one = partial(tried, tree=tree, most=given.files, limit=given.limit)
        for mutant in pool.map(try_one, todo):
            made.append(mutant)
            rows = [{k: v for k, v in asdict(each).items() if k != "source"} for each in made]
            given.output.parent.mkdir(parents=True, exist_ok=True)
            given.output.write_text(json.dumps(rows, indent=1))
    print("\n", dict(Counter(mutant.outcome for mutant in made)), f"written to {given.output}")
    if problem := unsound(made, tree, 4 * given.limit):
        sys.exit(f"a test that noticed a mutation fails without one too:\n{problem}")


if __name__ == "__main__":
    main()
