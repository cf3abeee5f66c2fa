"""The wheel is the library and nothing else, and far from any checkout it does what docs/python.md says first."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_every_folder_of_the_library_is_a_package():
    """Others would not be found by setuptools, and would lack in the wheel."""
    folders = {path.parent for path in (ROOT / "rnnjax").rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


@pytest.mark.slow
def test_the_wheel_alone_runs_the_first_script_of_the_python_page(tmp_path):
    source, site, folder = (tmp_path / name for name in ("source", "site", "elsewhere"))
    for name in ("rnnjax", "experiments", "tests", "configs", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(command, check=True)  # it fetches setuptools
    with zipfile.ZipFile(next(tmp_path.glob("rnnjax-*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        wheel.extractall(site)
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "rnnjax").rglob("*.py")}
    assert names == wanted | {"rnnjax/py.typed"}
    script = re.search(r"^```python\n(.*?)^```$", (ROOT / "docs/python.md").read_text("utf-8"), re.S | re.M)[1]
    folder.mkdir()
    (folder / "script.py").write_text(f"{script}\nassert rnnjax.__file__.startswith({str(site)!r})\n")
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "script.py"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "\n600 0." in done.stdout and (folder / "runs" / "gru" / "result.json").is_file()
