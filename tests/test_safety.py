"""No code of ours runs what it reads: the tree is walked for ways to do so.

Out of scope is what memfeat's own processes send each other through `multiprocessing`, which
pickles: both ends are this code, started by this user, over pipes that nobody else can write to.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TREES = ("memfeat", "tests", "pipelines")
FILES = [path for tree in TREES for path in sorted(Path(tree).rglob("*.py"))]
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve"}
# The name of an error loads nothing. Two tests write pickles, one to see them refused and one to
# see how small a message between our own processes is.
ALLOWED_NAMES = {"UnpicklingError"}
ALLOWED_TESTS = {"tests/test_cache_importing.py", "tests/test_cache_shared.py"}
THIS = f"tests/{Path(__file__).name}"
SAFE_LOADERS = {"SafeLoader", "CSafeLoader"}
CALLED_ONCE_READ = {"eval", "exec"}


def offences(path: str, source: str) -> list[str]:
    """Every way in a module's text to run what is read, each as `line: what`."""
    return [f"{line}: {what}" for line, what in _offences(path, ast.parse(source))]


def _offences(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
            for name in set(names) & UNPICKLERS if path not in ALLOWED_TESTS else ():
                yield node.lineno, f"imports {name}"
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").partition(".")[0]
            taken = {alias.name for alias in node.names}
            if module in UNPICKLERS and not taken <= ALLOWED_NAMES:
                yield node.lineno, f"imports {', '.join(sorted(taken))} from {module}"
        elif isinstance(node, ast.Call):
            what = _offence_of(node)
            if what:
                yield node.lineno, what


def _offence_of(call: ast.Call) -> str:
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    name = ast.unparse(call.func)
    last = name.rpartition(".")[2]
    if name in ("torch.load", "torch.serialization.load") and not _is(given, "weights_only", True):
        return "torch.load without weights_only=True"
    if "allow_pickle" in given and not _is(given, "allow_pickle", False):
        return "allow_pickle"
    if name.startswith("yaml.") and last in ("load", "load_all", "unsafe_load", "full_load"):
        loader = given.get("Loader")
        chosen = ast.unparse(loader).rpartition(".")[2] if loader else ""
        if chosen not in SAFE_LOADERS:
            return f"{name} without a safe loader"
    if "shell" in given and not _is(given, "shell", False):
        return "shell=True"
    if name in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"):
        return name
    if name in CALLED_ONCE_READ or name in {f"builtins.{each}" for each in CALLED_ONCE_READ}:
        return name
    return ""


def _is(given: dict[str | None, ast.expr], name: str, value: bool) -> bool:
    node = given.get(name)
    return isinstance(node, ast.Constant) and node.value is value


def test_nothing_that_is_read_is_run() -> None:
    found = {path: offences(path.as_posix(), path.read_text()) for path in FILES}
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as safe",
        "import dill.settings",
        "from pickle import loads",
        "from pickle import UnpicklingError, loads",
        "from marshal import loads",
        "import shelve",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=flag)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "subprocess.run(command, shell=True)",
        "os.system(command)",
        "os.popen(command)",
        "eval(text)",
        "exec(text)",
        "builtins.eval(text)",
    ],
)
def test_each_forbidden_way_is_seen(source: str) -> None:
    assert len(offences("memfeat/x.py", source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from pickle import UnpicklingError",
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "np.load(path, allow_pickle=False)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "yaml.safe_load(text)",
        "subprocess.run(command, shell=False)",
        "model.eval()",
        "cursor.exec(text)",
    ],
)
def test_what_only_looks_alike_is_not(source: str) -> None:
    assert offences("memfeat/x.py", source) == []


def test_the_whole_tree_is_walked() -> None:
    seen = {path.as_posix() for path in FILES}
    assert {"memfeat/encoders/checkpoints.py", "memfeat/cli/__init__.py", THIS} <= seen
    assert len(seen) > 150
