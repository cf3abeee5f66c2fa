"""Imports only run down the floors of the library, and every public name says what it is."""

import ast
import inspect
import pathlib
import re

import pytest

from rnnjax.cells import CELLS
from rnnjax.tasks import TASKS

ROOT = pathlib.Path(__file__).parents[1]

# From the ground up. A file or folder may import itself and any floor below, and nothing beside it: so a task never
# imports a cell.
FLOORS = (
    ("plots", "intervals"),
    ("types",),
    ("keys", "norms"),
    ("initializers",),
    ("tasks", "cells"),
    ("engine",),
    ("gradients", "readouts"),
    ("diagnostics",),
    ("nn", "interop"),
    ("runs",),
    ("figures",),
    ("training",),
    ("sweeps",),
    ("reports", "reproductions"),
)
HEIGHT = {name: height for height, names in enumerate(FLOORS) for name in names}
OF_FILES_ALONE = {"intervals", "plots", "runs", "figures"}  # these know no model: they may import each other only
COMMAND_LINE = ("absl", "argparse", "click", "ml_collections")


def test_every_import_runs_down():
    assert forbidden_imports(sources("rnnjax")) == []


LONG: dict[str, str] = {}  # functions above 60 lines without their docstring, and why
LARGE: dict[str, str] = {}  # files above 300 lines, and why


def test_no_function_is_above_60_lines_but_for_a_stated_reason():
    assert [name for name in long_functions(sources("rnnjax")) if name not in LONG] == []
    assert long_functions({"rnnjax/new.py": "def f():\n" + "    x = 1\n" * 60}) == ["new.py: f"]
    assert long_functions({"rnnjax/new.py": "def f():\n" + "    x = 1\n" * 59}) == []
    documented = 'def f():\n    """A line.\n\n    And another.\n    """\n'
    assert long_functions({"rnnjax/new.py": documented + "    x = 1\n" * 60}) == ["new.py: f"]
    assert long_functions({"rnnjax/new.py": documented + "    x = 1\n" * 59}) == []


def test_no_file_is_above_300_lines_but_for_a_stated_reason():
    assert [name for name in large_files(sources("rnnjax")) if name not in LARGE] == []
    assert large_files({"rnnjax/new.py": "x = 1\n" * 301, "rnnjax/cells/new.py": "x = 1\n" * 300}) == ["new.py"]


def test_every_public_name_has_a_docstring():
    assert missing_docstrings(sources("rnnjax")) == []


def test_shared_code_asks_for_no_task_by_name():
    files = sources("rnnjax") | sources("experiments")
    assert [line for path, source in files.items() if "/tasks/" not in path for line in asked_for(source, path)] == []
    assert asked_for('if config.task == "text" or "copy" in (task, x): pass\nx = "text"', "a.py") == [
        "a.py:1: text",
        "a.py:1: copy",
    ]


def test_every_public_function_is_annotated():
    assert missing_annotations(sources("rnnjax")) == []


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_names_its_source(name):
    assert names_a_year(inspect.getdoc(CELLS[name])), f"{name}: say who published it, as in 'Elman (1990)'"


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("cells/new.py", "from rnnjax.engine.unroll import unroll", "cells may not import engine"),
        ("cells/new.py", "from rnnjax import initializers, engine", "cells may not import engine"),
        ("cells/new.py", "from .. import engine", "cells may not import engine"),
        ("cells/new.py", "from ..engine import make_taps", "cells may not import engine"),
        ("cells/new.py", "import rnnjax.engine.unroll as engine", "cells may not import engine"),
        ("diagnostics/deep/new.py", "from ...nn.modules import RNN", "diagnostics may not import nn"),
        ("diagnostics/new.py", "def f():\n    import rnnjax.nn.rnn", "diagnostics may not import nn"),
        ("gradients/new.py", "from rnnjax.diagnostics.triage import diagnose", "gradients may not import diagnostics"),
        ("tasks/new.py", "from rnnjax.cells import lstm", "tasks may not import cells"),
        ("cells/new.py", "from rnnjax.tasks import TASKS", "cells may not import tasks"),
        ("nn/new.py", "from rnnjax.training import Config", "nn may not import training"),
        ("training/new.py", "from rnnjax import sweeps", "training may not import sweeps"),
        ("runs/new.py", "from rnnjax.nn import RNN", "runs may not import nn"),
        ("figures/new.py", "from rnnjax.training import make_train", "figures may not import training"),
        ("figures/new.py", "from rnnjax.engine import unroll", "figures may not import engine"),
        ("training/new.py", "from experiments import flags", "training may not import experiments"),
        ("training/new.py", "from absl import flags", "training may not import absl"),
        ("cells/__init__.py", "from .new import unroll", None),
        ("cells/__init__.py", "from . import new", None),
        ("cells/new.py", "from ..types import Cell", None),
        ("engine/deferred.py", "from rnnjax.cells.gated import split", None),
        ("engine/unroll.py", "from rnnjax.engine.deferred import deferred", None),
        ("figures/new.py", "from rnnjax.runs import read_rows", None),
        ("training/new.py", "from rnnjax.figures.plotting import learning_curve", None),
        ("brand_new.py", "", "rnnjax/brand_new.py: give 'brand_new' a floor in tests/test_structure.py"),
        ("types.py", "from rnnjax.nn import RNN", "types may not import nn"),
    ],
)
def test_a_planted_import_is_judged_rightly(file, line, complaint):
    found = forbidden_imports({f"rnnjax/{file}": line})
    assert found == [] if complaint is None else len(found) == 1 and complaint in found[0]


def test_planted_gaps_in_docstrings_are_found():
    source = '''"""A module."""
def bare(x): return x
def _helper(x): return x
def documented(x):
    """Says what."""
class Model:
    """A model."""
    def run(self): ...
    def __init__(self): ...
    def __call__(self, x): ...
    def _helper(self): ...
'''
    found = missing_docstrings({"rnnjax/new.py": source, "rnnjax/bare.py": "x = 1", "rnnjax/empty/__init__.py": ""})
    assert found == [
        "rnnjax/bare.py",
        "rnnjax/new.py: bare",
        "rnnjax/new.py: Model.run",
        "rnnjax/new.py: Model.__call__",
    ]
    found = missing_annotations({"rnnjax/new.py": source + "    def typed(self, *, x: int, **rest) -> int: ..."})
    unfinished = ["bare: x, return", "documented: x, return", "Model.run: return", "Model.__call__: x, return"]
    assert found == [f"rnnjax/new.py: {line}" for line in [*unfinished, "Model.typed: rest"]]
    assert names_a_year("Elman (1990), Finding structure in time.")
    assert names_a_year("the gate (Gers & Schmidhuber 2000)")
    assert not names_a_year("the gate (arXiv:2004.01234), from h [2000] in about 1997")


def sources(folder):
    """Path from the root -> source, for every file of a folder."""
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in sorted((ROOT / folder).rglob("*.py"))}


def long_functions(files, lines=60):
    """file: name of every function with more lines, those of its docstring left out."""
    return [
        f"{path.removeprefix('rnnjax/')}: {node.name}"
        for path, source in files.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and length(node) > lines
    ]


def length(function):
    """The lines of a function from `def` on, without its docstring."""
    docstring = function.body[0] if ast.get_docstring(function) is not None else None
    return function.end_lineno - function.lineno + 1 - (docstring.end_lineno - docstring.lineno + 1 if docstring else 0)


def large_files(files, lines=300):
    """Every file with more lines."""
    return [path.removeprefix("rnnjax/") for path, source in files.items() if len(source.splitlines()) > lines]


def forbidden_imports(files):
    """One line for each import of `files` (path -> source) that does not run down."""
    found = []
    for path, source in files.items():
        importer = floor_name(module_name(path))
        if importer and importer not in HEIGHT:
            found.append(f"{path}: give {importer!r} a floor in tests/test_structure.py")
            continue
        targets = {(line, target) for line, module in imported_modules(path, source) if (target := judged(module))}
        found += [
            f"{path}:{line}: {importer or 'rnnjax'} may not import {target}"
            for line, target in sorted(targets)
            if not allowed(importer, target)
        ]
    return found


def allowed(importer, target):
    if importer == target or not importer:  # the package itself shows what all of them offer
        return True
    if target not in HEIGHT or (importer in OF_FILES_ALONE and target not in OF_FILES_ALONE):
        return False
    return HEIGHT[target] < HEIGHT[importer]


def judged(module):
    """The floor that `module` stands on; its first name where that has no place in the library; None for the rest."""
    first = module.split(".")[0]
    if first == "rnnjax":
        return floor_name(module)
    return first if first in ("experiments", "configs", "tests", *COMMAND_LINE) else None


def imported_modules(path, source):
    """(line, full dotted name) of all that a file imports, at its top, inside functions, or relative to itself."""
    package = path.split("/")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            # `from rnnjax import unroll` names a module, `from rnnjax.unroll import make_taps` a function of one
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def module_name(path):
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def floor_name(module):
    """rnnjax.cells.lstm -> cells; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def missing_docstrings(files):
    """The modules, public functions and classes, and public methods of these, that have no docstring."""
    found = []
    for path, source in files.items():
        tree = ast.parse(source)
        if tree.body and not ast.get_docstring(tree):
            found.append(path)
        found += [f"{path}: {name}" for name, node in public(tree.body) if not ast.get_docstring(node)]
    return sorted(found, key=lambda line: line.split(":")[0])


def asked_for(source, path):
    """One line for each task's name that a file compares something with."""
    compared = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Compare)]
    names = [part for node in compared for part in ast.walk(node) if isinstance(part, ast.Constant)]
    return [f"{path}:{name.lineno}: {name.value}" for name in names if name.value in TASKS]


def missing_annotations(files):
    """The arguments of public functions and methods that have no annotation, and `return`."""
    found = []
    for path, source in files.items():
        for name, node in public(ast.parse(source).body):
            if isinstance(node, ast.ClassDef):
                continue
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            bare = [arg.arg for arg in given if arg and arg.arg not in ("self", "cls") and arg.annotation is None]
            bare += ["return"] if node.returns is None else []
            found += [f"{path}: {name}: {', '.join(bare)}"] if bare else []
    return found


def public(body, prefix=""):
    """(dotted name, node) of what does not start with an underscore, `__call__` apart."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name.startswith("_") and node.name != "__call__":
                continue
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, node.name + ".")


def names_a_year(docstring):
    """Whether it holds a year in parentheses, alone or after names; the digits of an arXiv id are not one."""
    return re.search(r"\([^()]*(?<![\d:.])(19|20)\d\d(?![\d.]\d)[^()]*\)", docstring or "") is not None
