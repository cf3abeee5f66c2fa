"""metrics.jsonl: a row of scalars an evaluation, one JSON object a line, which only ever grows by whole rows."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rnnjax.runs.directories import OpenRun
from rnnjax.runs.files import RunRefused, json_object, json_text, printable


def append_rows(run: OpenRun, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends each row of scalars (or small arrays) to metrics.jsonl: all of them durably, or none and an OSError.

    Call it before the checkpoint that follows: a checkpoint keeps a copy of the log.
    """
    left = memoryview("".join(json_text(row) + "\n" for row in rows).encode())
    with open(run.path / "metrics.jsonl", "ab", buffering=0) as file:
        size = file.tell()
        try:
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(size)
            raise


def read_rows(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, without a torn last line. Raises RunRefused for damage elsewhere."""
    path = Path(workdir, "metrics.jsonl")
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):  # after the last \n: torn or empty
        try:
            rows.append(json_object(line))
        except (ValueError, RecursionError) as error:
            raise RunRefused(f"{path} line {number} is damaged: {printable(str(error))}") from None
    return rows
