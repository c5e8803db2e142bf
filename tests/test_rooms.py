"""The house keeps its rooms: a room imports only from rooms below it, no two files from each other in a circle.

Read from the syntax trees of src/hybridstitch. Imports inside functions count; those for types do not.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "hybridstitch"
MODULES = sorted(SOURCE.rglob("*.py"))

# From the ground up: a room imports only from those before it.
ROOMS = (
    *("errors", "compat", "disk", "policies", "families", "drawing", "pair", "measure", "recipe", "mini", "evaluate"),
    *("report", "batch", "calibrate", "reproduce", "opening", "serve", "cli"),
)
LEVEL = {name: level for level, name in enumerate(ROOMS)}
LIGHT = ("errors", "disk", "policies")  # run without torch
DOORS = {"__init__", "__main__"}  # of the package itself: they open into every room

HEAVY = {"torch", "diffusers", "transformers", "accelerate", "peft"}
BANNED_NAMES = {"utils", "util", "base", "common", "helpers", "misc", "manager"}
LONGEST = 300  # lines
MUTABLE_CALLS = {"list", "dict", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "deque"}
MUTABLE_CALLS |= {"WeakKeyDictionary", "WeakValueDictionary", "WeakSet"}
MUTATORS = {"append", "add", "update", "extend", "insert", "remove", "discard", "pop", "popitem", "clear"}
MUTATORS |= {"setdefault", "sort", "reverse", "appendleft"}


# --- reading a module ---


def parts_of(path: Path) -> tuple[str, ...]:
    """("families", "sd3") of families/sd3.py, ("families",) of its __init__.py, () of the package itself."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def is_module(*parts: str) -> bool:
    return bool(parts) and (SOURCE.joinpath(*parts).is_dir() or SOURCE.joinpath(*parts).with_suffix(".py").is_file())


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def walk(node: ast.AST, functions: bool = True) -> Iterator[ast.AST]:
    """All nodes below, without those under `if TYPE_CHECKING:` and, if asked, without those in functions."""
    children = node.orelse if is_type_checking(node) else ast.iter_child_nodes(node)
    for child in children:
        yield child
        if functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from walk(child, functions)


def imports(path: Path, tree: ast.Module, functions: bool = True) -> Iterator[tuple[str, ...]]:
    """Dotted names as tuples, relative ones resolved: `from . import kv` is ("hybridstitch", "kv")."""
    here = ("hybridstitch", *parts_of(path))
    package = here if path.stem == "__init__" else here[:-1]
    for node in walk(tree, functions):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                module = package[: len(package) - node.level + 1] + module
            yield from ((*module, alias.name) for alias in node.names)


# --- the rules: each gives one sentence per fault ---


def room_faults(path: Path, tree: ast.Module) -> Iterator[str]:
    mine = parts_of(path)
    if not mine or (len(mine) == 1 and mine[0] in DOORS):
        return
    if mine[0] not in LEVEL:
        yield f"{mine[0]} is no room: give it a place in ROOMS and in CONTRIBUTING.md"
        return
    for name in imports(path, tree):
        if name[0] != "hybridstitch" or name[1:2] == mine[:1]:
            continue
        target = name[1:]
        if not target or target[0] not in LEVEL:
            # a file without a place complains by itself
            if not is_module(*target[:1]) and target[:1] != ("__version__",):
                yield f"imports {'.'.join(name)}: import from the file that defines it"
        elif LEVEL[target[0]] >= LEVEL[mine[0]]:
            yield f"imports {'.'.join(name)}, which is not below it"


def torch_faults(path: Path, tree: ast.Module) -> Iterator[str]:
    mine = parts_of(path)
    if not mine or mine[0] in LIGHT:
        for name in imports(path, tree, functions=False):
            if name[0] in HEAVY:
                yield f"imports {name[0]} at module level: {' and '.join(LIGHT)} run without it"


def circle_faults() -> Iterator[str]:
    """Files of one room that import each other in a circle, types apart."""
    graph = {parts: set() for path in MODULES if (parts := parts_of(path))}
    for path in MODULES:
        mine = parts_of(path)
        for name in imports(path, ast.parse(path.read_text())) if mine else ():
            target = next((name[1:end] for end in range(len(name), 1, -1) if name[1:end] in graph), None)
            if name[0] == "hybridstitch" and target is not None and target[: len(mine)] != mine:
                graph[mine].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield " -> ".join(".".join(parts) for parts in error.args[1])


def state_faults(path: Path, tree: ast.Module) -> Iterator[str]:
    """A list, dict or set at module level is an UPPER_CASE constant, filled at once and never mutated."""
    constants = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("hybridstitch"))
        for alias in node.names
        if alias.name.isupper()
    }
    for node in module_level(tree):
        if isinstance(node, ast.AugAssign):
            yield f"changes {ast.unparse(node.target)} at module level"
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not is_mutable(node.value):
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            name = ast.unparse(target)
            if name.isupper() and not is_empty(node.value):
                constants.add(name)
            elif name != "__all__":
                yield f"{name} is mutable module state: a tuple, or an UPPER_CASE constant filled at once"
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield f"global {', '.join(node.names)}: pass state, do not share it"
        stored = isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)
        called = isinstance(node, ast.Attribute) and node.attr in MUTATORS
        if (stored or called) and isinstance(node.value, ast.Name) and node.value.id in constants:
            yield f"line {node.lineno} mutates {node.value.id}, a constant of a module"


def module_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements run at import, those inside `if`, `try`, `with` and `for` included, classes left out."""
    stack: list[ast.AST] = [tree]
    while stack:
        for child in ast.iter_child_nodes(stack.pop()):
            if isinstance(child, ast.stmt) and not isinstance(child, ast.FunctionDef | ast.ClassDef):
                yield child
            if isinstance(child, ast.If | ast.Try | ast.With | ast.For | ast.ExceptHandler):
                stack.append(child)


def is_mutable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).split(".")[-1] in MUTABLE_CALLS
    return isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)


def is_empty(value: ast.expr | None) -> bool:
    """Whether it can only be meant to be filled later: `{}`, `[]`, `dict()`, `defaultdict(list)`."""
    if isinstance(value, ast.Call):
        return not (value.args or value.keywords) or "default" in ast.unparse(value.func)
    return (isinstance(value, ast.Dict) and not value.keys) or (isinstance(value, ast.List) and not value.elts)


def shape_faults(path: Path, tree: ast.Module) -> Iterator[str]:
    if path.stem in BANNED_NAMES or path.parent.name in BANNED_NAMES:
        yield "is named for nothing it does: name it for its idea"
    if not (ast.get_docstring(tree) or "").strip():
        yield "has no docstring: say its idea, shapes and units"


def length_faults(path: Path, tree: ast.Module) -> Iterator[str]:
    lines = len(path.read_text().splitlines())
    if lines > LONGEST:
        yield f"has {lines} lines, more than {LONGEST}: make it a folder of several"


@pytest.mark.parametrize("rule", [room_faults, torch_faults, state_faults, shape_faults, length_faults])
def test_every_module_keeps(rule):
    faults = [
        f"{path.relative_to(SOURCE)} {fault}"
        for path in MODULES
        for fault in rule(path, ast.parse(path.read_text(), str(path)))
    ]
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)


def test_a_reader_is_led_through_five_files_of_under_900_lines():
    section = (
        (SOURCE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## The life of a picture")[2]
    )
    route = dict.fromkeys(re.findall(r"`(\w+/\w+\.py)`", section.partition("\n## ")[0]))
    assert len(route) == 5
    assert sum(len((SOURCE / file).read_text(encoding="utf-8").splitlines()) for file in route) < 900


def test_no_files_import_each_other_in_a_circle():
    assert list(circle_faults()) == []


def test_light_rooms_leave_torch_unimported():
    light = [path for path in MODULES if (parts := parts_of(path)) and parts[0] in LIGHT]
    names = ", ".join(["hybridstitch", *(".".join(("hybridstitch", *parts_of(path))) for path in light)])
    code = f"import sys; sys.path.insert(0, {str(SOURCE.parent)!r}); import {names}; "
    code += f"print(*sorted({HEAVY!r} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "", f"import {names} brings {run.stdout.strip()}"


# --- the rules bite ---

FAULTS = [
    (room_faults, "policies/plan.py", "from hybridstitch.drawing import kv", "drawing.kv, which is not below it"),
    (room_faults, "policies/methods.py", "def f():\n    import hybridstitch.drawing.kv", "not below it"),
    (room_faults, "recipe/home.py", "from ..mini.opened import is_mini", "opened.is_mini, which is not below it"),
    (room_faults, "drawing/kv.py", "from hybridstitch import stitch", "import from the file that defines it"),
    (room_faults, "families/sd3.py", "from ..drawing import draw", "not below it"),
    (room_faults, "drawing/draw.py", "if x:\n    from ..pair.stitched import StitchedTransformer", "not below it"),
    (room_faults, "pair/stitching.py", "def f():\n    from ..mini import weights", "not below it"),
    (room_faults, "mini/train/loop.py", "from hybridstitch.cli import main", "not below it"),
    (room_faults, "gadgets.py", "", "is no room"),
    (torch_faults, "policies/latency.py", "import torch.nn as nn", "imports torch"),
    (torch_faults, "__init__.py", "try:\n    from diffusers import X\nfinally: pass", "imports diffusers"),
    (state_faults, "kv.py", "cache = {1: 2}", "cache is mutable module state"),
    (state_faults, "kv.py", "CACHE: dict = dict()", "CACHE is mutable module state"),
    (state_faults, "kv.py", "SEEN = weakref.WeakSet()", "SEEN is mutable module state"),
    (state_faults, "kv.py", "K = {'a': 0}\ndef f():\n    K['a'] = 1", "line 3 mutates K"),
    (state_faults, "kv.py", "K: Final = [0]\nK.append(1)", "line 2 mutates K"),
    (state_faults, "kv.py", "from .plan import K\ndef f():\n    del K['a']", "line 3 mutates K"),
    (state_faults, "kv.py", "def f():\n    global count", "global count"),
    (state_faults, "kv.py", "N = 0\nN += 1", "changes N"),
    (shape_faults, "utils.py", '"""Things."""', "named for nothing"),
    (shape_faults, "kv.py", "import math", "no docstring"),
]
NO_FAULTS = [
    (room_faults, "policies/trace.py", "from hybridstitch.policies.plan import Plan\nfrom ..errors import E"),
    (room_faults, "policies/methods.py", "if TYPE_CHECKING:\n    from hybridstitch.drawing.run import Run"),
    (room_faults, "pair/stitched.py", "from ..drawing import run, draw\nfrom hybridstitch import __version__"),
    (room_faults, "families/sd3.py", "from . import KeysValues\nfrom ..compat import Attention"),
    (room_faults, "opening.py", "def open_pair():\n    from hybridstitch.mini import opened"),
    (room_faults, "__init__.py", "from hybridstitch.cli import main"),
    (torch_faults, "policies/methods.py", "def f():\n    import torch"),
    (torch_faults, "policies/methods.py", "if typing.TYPE_CHECKING:\n    import torch"),
    (state_faults, "policies.py", "POLICIES: dict[str, type] = {'a': A}\nx = POLICIES['a']"),
    (state_faults, "policies.py", "__all__ = ['a']\nNAMES = ('a', 'b')\nM = MappingProxyType({})"),
    (state_faults, "kv.py", "class A:\n    blocks = ['large']\ndef f():\n    x = []\n    x.append(1)"),
]


@pytest.mark.parametrize(("rule", "module", "source", "fault"), FAULTS)
def test_a_fault_is_found(rule, module, source, fault):
    assert fault in "\n".join(rule(SOURCE / module, ast.parse(source)))


@pytest.mark.parametrize(("rule", "module", "source"), NO_FAULTS)
def test_what_is_allowed_is_no_fault(rule, module, source):
    assert list(rule(SOURCE / module, ast.parse(source))) == []


def test_a_circle_is_found(tmp_path, monkeypatch):
    (tmp_path / "pair").mkdir()
    for name, source in (("one", "from .two import b"), ("two", "def f():\n    from hybridstitch.pair import one")):
        (tmp_path / "pair" / f"{name}.py").write_text(source)
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "MODULES", sorted(tmp_path.rglob("*.py")))
    assert ["pair.one" in fault and "pair.two" in fault for fault in circle_faults()] == [True]


def test_a_long_module_is_found(tmp_path):
    (tmp_path / "long.py").write_text("x = 1\n" * (LONGEST + 1))
    assert list(length_faults(tmp_path / "long.py", ast.Module([], [])))
