"""Writes docs/tutorial.ipynb, the tutorial as a notebook: a cell for each block of Python and for the text between.

python docs/make_notebook.py
"""

import json
import re
from pathlib import Path

TUTORIAL = Path(__file__).with_name("tutorial.md")


def notebook(text: str) -> str:
    """The notebook (format 4.5), as JSON, of a page in Markdown; its outputs are empty."""
    cells = [
        cell(kind, part.strip(), f"cell-{i}")
        for i, part in enumerate(re.split(r"^```python\n(.*?)^```$", text, flags=re.S | re.M))
        for kind in (("markdown", "code")[i % 2],)
        if part.strip()
    ]
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    page = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(page, indent=1, ensure_ascii=False) + "\n"


def cell(kind: str, source: str, name: str) -> dict:
    """One cell of it."""
    content = {"cell_type": kind, "id": name, "metadata": {}, "source": source.splitlines(keepends=True)}
    return content | ({"execution_count": None, "outputs": []} if kind == "code" else {})


if __name__ == "__main__":
    TUTORIAL.with_suffix(".ipynb").write_text(notebook(TUTORIAL.read_text("utf-8")), "utf-8")
