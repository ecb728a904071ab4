"""The house of CONTRIBUTING.md as a test: floors, sizes and habits, read off the syntax trees of src/."""

import ast
from pathlib import Path

import pytest

import maxaffine

PACKAGE = Path(__file__).parents[1] / "src" / "maxaffine"

# A module (or subpackage) imports only from lower floors. Modules of one subpackage may import each other.
FLOORS = [
    {"errors", "types"},
    {"arguments"},  # what an argument must be
    {"operators"},  # what a spline operator is: knows ATen, knows no network
    {"code", "affine", "polytope", "slice"},  # values: frozen, pure tensors, know no model
    {"program"},  # the captured network as data, compiled into steps, frozen at a code
    {"capture"},  # nn.Module, ONNX, .pt2 -> program, with its self-checks
    {"table"},  # the composition as text
    {"spline"},  # the core
    {"geometry"},
    # leaves: functions of a spline or of its values
    {
        "approximation",
        "architectures",
        "codebook",
        "convexity",
        "data",
        "distributed",
        "explicit",
        "files",
        "margins",
        "penalties",
        "search",
        "templates",
        "tiling",
    },
    {"encoding", "experiment"},  # jobs over data: codes of a data set; networks trained with penalties
    {"callbacks", "demo", "plot", "testing", "view"},
    {"report"},
    {"cli"},
    {"__init__", "__main__"},  # the public names
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
MODULE_LINES, FUNCTION_LINES, CLASS_METHODS, LADDER_RUNGS = 350, 40, 15, 3


def read(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


MODULES = {str(path.relative_to(PACKAGE)): read(path) for path in sorted(PACKAGE.rglob("*.py"))}
each_module = pytest.mark.parametrize(("name", "tree"), MODULES.items(), ids=list(MODULES))


def unit_of(name: str) -> str:
    """The top-level module or subpackage that a file (``capture/graph.py``) belongs to."""
    return Path(name).parts[0].removesuffix(".py")


def imported(name: str, tree: ast.Module) -> set[str]:
    """Dotted names inside maxaffine that a file imports anywhere, lazily or for types only included."""
    package = ("maxaffine", *Path(name).parts[:-1])
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            stem = ".".join(part for part in (base, node.module) if part)
            found |= {f"{stem}.{alias.name}" for alias in node.names}
    return {dotted for dotted in found if dotted.split(".")[0] == "maxaffine"}


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body; its docstring, which explains rather than does, is not counted."""
    code = function.body[1:] if ast.get_docstring(function, clean=False) else function.body
    return function.body[-1].end_lineno - code[0].lineno + 1 if code else 0


def rungs(branch: ast.If) -> int:
    """How many links of an if/elif chain ask for a type."""
    asks = any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance"
        for node in ast.walk(branch.test)
    )
    tail = branch.orelse
    return asks + (rungs(tail[0]) if len(tail) == 1 and isinstance(tail[0], ast.If) else 0)


def calls(tree: ast.AST, name: str) -> list[int]:
    """Lines that call a builtin by its name."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]


def kwargs_passed_on(tree: ast.AST) -> list[str]:
    """Functions that take ``**kwargs`` only to hand them to another call."""
    functions = [
        node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.args.kwarg
    ]
    return [
        function.name
        for function in functions
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg is None and isinstance(keyword.value, ast.Name) and keyword.value.id == function.args.kwarg.arg
    ]


def floor_breaks(name: str, tree: ast.Module) -> list[str]:
    """Imports of a file that do not point down."""
    unit = unit_of(name)
    targets = {dotted.split(".")[1] for dotted in imported(name, tree) if "." in dotted} - {
        unit,
        "__version__",
    }
    return sorted(f"{unit} -> {target}" for target in targets if FLOOR_OF.get(target, 99) >= FLOOR_OF[unit])


@each_module
def test_every_file_has_a_floor(name, tree):
    assert unit_of(name) in FLOOR_OF, f"say in FLOORS on which floor {name} stands"


@each_module
def test_imports_point_down(name, tree):
    assert floor_breaks(name, tree) == []


@each_module
def test_sizes(name, tree):
    assert len((PACKAGE / name).read_text().splitlines()) <= MODULE_LINES
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert body_lines(node) <= FUNCTION_LINES, f"{node.name} has {body_lines(node)} lines"
        if isinstance(node, ast.ClassDef):
            methods = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
            assert len(methods) <= CLASS_METHODS, f"{node.name} has {len(methods)} methods"


@each_module
def test_habits(name, tree):
    nodes = list(ast.walk(tree))
    assert calls(tree, "hasattr") == []
    assert kwargs_passed_on(tree) == []
    assert [node.lineno for node in nodes if isinstance(node, ast.If) and rungs(node) >= LADDER_RUNGS] == []
    assert [node.lineno for node in nodes if isinstance(node, ast.Global)] == []
    stars = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"]
    assert stars == []
    environment = [node for node in nodes if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")]
    assert environment == []


def test_the_import_graph_has_no_cycle():
    files = {name: "maxaffine." + name.removesuffix(".py").replace("/", ".") for name in MODULES}
    dotted = {value.removesuffix(".__init__"): key for key, value in files.items()}
    graph = {
        name: {dotted[stem] for target in imported(name, tree) for stem in prefixes(target) if stem in dotted}
        for name, tree in MODULES.items()
    }
    packages = {name for name in MODULES if name.endswith("__init__.py")}  # a package page imports its own parts
    assert cycle_in({name: targets - packages - {name} for name, targets in graph.items()}) == []


def prefixes(dotted: str) -> list[str]:
    """``a.b.c`` as [``a.b.c``, ``a.b``]: what ``from a.b import c`` may load."""
    return [dotted, dotted.rpartition(".")[0]]


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """What is left when files that import nothing (more) are taken away again and again."""
    left = dict(graph)
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def test_no_module_is_named_like_a_public_function():
    stems = {Path(name).stem for name in MODULES} - {"__init__"}
    functions = {name for name in maxaffine.__all__ if callable(getattr(maxaffine, name))}
    assert stems & functions == set()


# The checks themselves must be able to fail.
METHODS = "    def f(self): ...\n" * 16
LINES = "    x = 1\n" * 50
BAD = f"""
from .capture import graph
from maxaffine.cli import app
import maxaffine.report.page


class Wide:
{METHODS}

def tall(x, **options):
{LINES}
    if isinstance(x, int):
        return f(**options)
    elif isinstance(x, str):
        return hasattr(x, "a")
    elif x is None or isinstance(x, float):
        return 2
"""


def test_the_checks_see_what_they_look_for():
    tree = ast.parse(BAD)
    wide, tall = tree.body[-2:]
    assert floor_breaks("errors.py", tree) == ["errors -> capture", "errors -> cli", "errors -> report"]
    assert floor_breaks("report/html.py", tree) == ["report -> cli"]
    assert body_lines(tall) == 57
    assert calls(tree, "hasattr") and kwargs_passed_on(tree) == ["tall"]
    assert max(rungs(node) for node in ast.walk(tree) if isinstance(node, ast.If)) == LADDER_RUNGS
    for part in (wide, tall):
        with pytest.raises(AssertionError, match=r"(lines|methods)"):
            test_sizes("errors.py", ast.Module([part], []))
    with pytest.raises(AssertionError):
        test_habits("errors.py", tree)
    assert cycle_in({"a": {"b"}, "b": {"a"}, "c": {"a"}, "d": set()}) == ["a", "b", "c"]
