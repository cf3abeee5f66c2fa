"""README and docs: their code runs, their commands exist and run in small, and what they link to is there."""

import contextlib
import importlib.util
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from command_line import BadSetting, define_config, define_options, load_config

from rnnjax.cells import CELLS
from rnnjax.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
TUTORIAL = "docs/tutorial.md"
# Whose code trains for many seconds; what they use has tests of its own.
LONG = tuple(f"docs/{page}.md" for page in ("attention", "cells", "lengths", "parallel", "python", "series", "tasks"))
COMMAND = re.compile(r"python (experiments/\w+\.py)((?:[ ]+(?:\\\n\s*)?--(?:\"[^\"]*\"|[^\s`])+)*)")
SMALL = {"steps": 2, "eval_every": 1, "eval_batch": 4, "batch_size": 4, "hidden_size": 4, "seq_len": 12}
TINY = {  # what makes a command small, put after its own flags; a launcher of many minutes has tests of its own
    "train": [f"--config.{name}={value}" for name, value in SMALL.items()],
    "sweep": [f"--config.{name}={value}" for name, value in SMALL.items()],
    "gradient_flow": ["--seq_len=8", "--hidden_size=4", "--batch_size=4", "--seeds=2"],
    "diagnose": [],
    "forecast": [],
    "report": [],
    "write": ["--length=8"],
    "compare": [*(f"--config.{name}={value}" for name, value in (SMALL | {"hidden_size": 8}).items()), "--seeds=1"],
    "cells": ["--hidden_sizes=8", "--hidden_size=8", "--lengths=4"],
    "ways": ["--seq_len=8", "--hidden_size=4", "--batch_size=2"],
}

FEW = {"--cells=all": "--cells=rnn,lru,transformer"}  # what runs over every cell, over a few


SHORT = {  # what a page's runs become, which print nothing that it shows
    "docs/python.md": {"steps=300, eval_every=100": "steps=4, eval_every=2", "resume(steps=300)": "resume(steps=4)"}
}


def blocks(text):
    return [code for code, _ in blocks_and_outputs(text)]


def blocks_and_outputs(text):
    """(code, what the page says that it prints, "" if nothing) of every block of Python."""
    return re.findall(r"^```python\n(.*?)^```$(?:\n\n```\n(.*?)^```$)?", text, re.S | re.M)


def commands(text):
    """(launcher, its flags) of every command on a page, in order."""
    return [(script, shlex.split(rest.replace("\\\n", " "))) for script, rest in COMMAND.findall(text)]


COMMANDS = sorted({(script, *arguments) for text in PAGES.values() for script, arguments in commands(text)})


@pytest.fixture
def tables(monkeypatch):
    """CELLS and TASKS, put back afterwards as they were."""
    for table in (CELLS, TASKS):
        for name in ("leaky", "odd", "rnn_gaussian"):
            monkeypatch.setitem(table, name, None)
            del table[name]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow) if page in LONG else page
        for page, text in PAGES.items()
        if blocks(text) and page != TUTORIAL
    ],
)
def test_code_blocks_run_in_order(page, tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where they write
    shows_numbers = page not in SHORT and any(expected for _, expected in blocks_and_outputs(PAGES[page]))
    with contextlib.nullcontext() if shows_numbers else unoptimised():
        names = run(page)
    if page == "README.md":  # whose taps stop at the sequences' length
        gradient = jax.grad(names["loss"])(names["layer"].make_taps(100, (32,)))
        assert np.all(np.asarray(gradient.h[80:]) == 0) and np.all(np.asarray(gradient.h[79]).any(-1))


def test_the_tutorial_s_notebook_is_its_page():
    stored = (ROOT / TUTORIAL).with_suffix(".ipynb").read_text("utf-8")
    make = runpy.run_path(str(ROOT / "docs/make_notebook.py"))["notebook"]
    assert stored == make(PAGES[TUTORIAL]), "run python docs/make_notebook.py"
    code = ["".join(cell["source"]) for cell in json.loads(stored)["cells"] if cell["cell_type"] == "code"]
    assert [c.strip() for c in code] == [b.strip() for b in blocks(PAGES[TUTORIAL])]


@pytest.mark.slow
def test_the_tutorial_runs_and_prints_what_it_shows(tables):
    run(TUTORIAL)


@contextlib.contextmanager
def unoptimised():
    """Programs that are compiled in half the time, for runs of a few steps."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def run(page):
    """The names that the page's blocks leave; what they print is what it says."""
    names = {}
    for i, (block, expected) in enumerate(blocks_and_outputs(PAGES[page])):
        for long, short in SHORT.get(page, {}).items():
            block = block.replace(long, short)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(compile(block, f"{page}, block {i}", "exec"), names)
        if expected:
            compare(said.getvalue(), expected)
    return names


NUMBER = re.compile(r"\d+\.\d+(?:e[+-]\d+)?")


def compare(said, expected):
    """The same words and integers; other numbers within 20 %, as processors differ in last bits."""
    assert NUMBER.sub("N", said) == NUMBER.sub("N", expected)
    for a, b in zip(NUMBER.findall(said), NUMBER.findall(expected), strict=True):
        assert float(a) == pytest.approx(float(b), rel=0.2), f"{said!r} against {expected!r}"


def test_the_map_shows_every_room():
    page = PAGES["docs/architecture.md"]
    assert [
        room.stem
        for room in sorted((ROOT / "rnnjax").glob("[a-z]*"))
        if f" {room.stem}" not in page and room.name != "py.typed"
    ] == []


def test_the_cell_in_the_readme_is_the_config():
    own_cell = (ROOT / "configs/own_cell.py").read_text()
    assert own_cell.split('"""\n', 1)[1].strip() == blocks(PAGES["README.md"])[0].strip()


def test_every_page_has_what_is_looked_for():
    assert all(long in PAGES[page] for page, texts in SHORT.items() for long in texts) and set(LONG) < set(PAGES)
    assert set(FEW) <= {argument for _, *arguments in COMMANDS for argument in arguments}
    assert len(COMMANDS) > 20 and len(PAGES) >= 15
    assert len((ROOT / "README.md").read_bytes()) <= 8000
    assert PAGES["README.md"].index(". .venv/bin/activate") < PAGES["README.md"].index("python experiments/")


@pytest.mark.parametrize(
    "script, arguments", [(c[0], c[1:]) for c in COMMANDS if len(c) > 1], ids=lambda value: str(value)
)
def test_commands_exist_with_their_flags(script, arguments, tables, monkeypatch):
    parts = (ROOT / "experiments" / f"{Path(script).stem}s").rglob("*.py")  # of a launcher with a folder of its own
    source = "".join(path.read_text() for path in [ROOT / script, *parts])
    settings = [a for a in arguments if re.match(r"--config[.=]", a)]
    for argument in set(arguments) - set(settings):
        name = argument.removeprefix("--").split("=")[0]
        assert re.search(rf"(DEFINE|define)_\w+\(\s*\"{name}\"", source), argument
    assert not settings or "define_config" in source
    monkeypatch.chdir(ROOT)
    values = flags.FlagValues()
    define_config(values)
    if any("task.path" in a for a in settings):  # a file that is not here, and what is said of its columns
        settings = [a for a in settings if not a.startswith("--config.task.")]
    define_options(settings, values)
    values(["", *settings])
    try:
        load_config(values)
    except BadSetting as error:
        assert "which is not installed" in str(error)  # a series of a package that is an extra


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    prose = re.sub(r"```.*?```", "", PAGES[page], flags=re.S)
    for path in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", prose):
        if not path.startswith(("http://", "https://")):
            assert ((ROOT / page).parent / path).exists(), path


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if commands(text)])
def test_commands_run_in_small(page, tmp_path):
    (tmp_path / "my_book.txt").write_text("It was a dark and stormy night. " * 40)
    rows = "".join(f"2024-{1 + i // 28:02}-{1 + i % 28:02},{i % 7},{i % 5},{i % 2}\n" for i in range(320))
    for name in ("sales.csv", "new_sales.csv"):
        (tmp_path / name).write_text("date,sales,price,promo\n" + rows)
    for script, arguments in commands(PAGES[page]):
        without_ray = "--executor=ray" in arguments and not shutil.which("ray")
        extra = {"configs/temperature.py", "configs/shares.py"} & {a.removeprefix("--config=") for a in arguments}
        without_data = extra and importlib.util.find_spec("vega_datasets") is None
        if Path(script).stem in TINY and arguments and not without_ray and not without_data:
            start(script, arguments, tmp_path)


def start(script, arguments, folder):
    """Starts a launcher as a user does, small, in a folder that has the configs and nothing else of the checkout."""
    if not (folder / "configs").exists():
        (folder / "configs").symlink_to(ROOT / "configs")
    small = [] if "--help" in arguments[0] else TINY[Path(script).stem]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    few = [FEW.get(argument, argument) for argument in arguments]
    command = [sys.executable, str(ROOT / script), *few, *small]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr[-2000:]}"
