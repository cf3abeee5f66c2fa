"""The README's code runs, its commands exist with the flags that it gives them, and its files are there."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from rnnjax.cells import CELLS
from rnnjax.training.config import Config

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)
COMMANDS = re.findall(r"python (experiments/\w+\.py)((?: [^\n]*?(?:\\\n)?)*)$", README, re.M)


def test_python_blocks_run(monkeypatch):
    monkeypatch.setitem(CELLS, "leaky", None)  # put back as it was afterwards
    assert len(BLOCKS) >= 2
    names = {}
    for block in BLOCKS:
        exec(block, names)
    gradient = jax.grad(names["loss"])(names["layer"].make_taps(100, (32,)))
    assert np.all(np.asarray(gradient.h[80:]) == 0) and np.all(np.asarray(gradient.h[79]).any(-1))


def test_the_cell_in_the_readme_is_the_config():
    assert BLOCKS[0].strip() in (ROOT / "configs/own_cell.py").read_text()


@pytest.mark.parametrize("script, arguments", COMMANDS)
def test_commands_exist_with_their_flags(script, arguments):
    source = (ROOT / script).read_text()
    flags = re.findall(r"--([\w.]+)(?:=(\S+))?", arguments)
    assert flags
    for name, value in flags:
        if name.startswith("config."):
            assert name.removeprefix("config.") in {field.name for field in dataclasses.fields(Config)}
        elif name == "config":
            assert (ROOT / value).is_file()
        else:
            assert re.search(rf"(DEFINE|define)_\w+\(\s*\"{name}\"", source), name


def test_files_that_the_readme_names_are_there():
    for path in re.findall(r"\]\(([\w/.]+)\)", README):
        assert (ROOT / path).exists(), path
