"""Every contender's work: h_T of a sequence xs `[T, B, I]` against a fixed target `[B, H]`, mean squared error."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from absl import app

CELLS = ("rnn", "lstm", "gru")
GATES = {"rnn": 1, "lstm": 4, "gru": 3}  # columns: i f g o, and r z n
LEARNING_RATE = 1e-3  # of plain SGD


class Case(NamedTuple):
    """A cell and the sizes of batch, time, input and hidden state."""

    cell: str
    B: int
    T: int
    I: int
    H: int


class Contender(NamedTuple):
    """A layer that is ready to run. `run(n)` does n of them in a row and returns when the last is done."""

    check: Callable[[], tuple[float, float]]  # the loss, and the norm of its gradient by W_x and W_h together
    forward: dict[str, Callable[[int], None]]  # way -> run; "call" is a call a pass, "scan" one call for all
    step: dict[str, Callable[[int], None]]


def flops(case: Case) -> int:
    """Floating-point operations of the matmuls of one forward pass; a training step counts three times as many."""
    return 2 * case.B * case.T * (case.I + case.H) * GATES[case.cell] * case.H


def make_weights(case: Case, seed: int = 0) -> dict[str, np.ndarray]:
    """W_x [I, G H] (Glorot), W_h [H, G H] (orthogonal gate by gate) and b [G H] (forget gate about 1)."""
    draw, gates = np.random.default_rng(seed), GATES[case.cell]
    bound = np.sqrt(6 / (case.I + case.H))
    orthogonal = [np.linalg.qr(draw.normal(size=(case.H, case.H)))[0] for _ in range(gates)]
    b = draw.normal(size=gates * case.H) / 10
    if case.cell == "lstm":
        b[case.H : 2 * case.H] += 1
    W_x = draw.uniform(-bound, bound, (case.I, gates * case.H))
    return {k: v.astype("f") for k, v in (("W_x", W_x), ("W_h", np.concatenate(orthogonal, 1)), ("b", b))}


def make_data(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """xs [T, B, I] and the target [B, H]."""
    draw = np.random.default_rng(1)
    return draw.normal(size=(case.T, case.B, case.I)).astype("f"), draw.normal(size=(case.B, case.H)).astype("f")


def parse_named(text: str, flag: str = "shape") -> Case:
    """The case that CELL:BxTxIxH names, such as lstm:32x200x2x64. Raises UsageError in one line."""
    cell, _, shape = text.partition(":")
    if cell not in CELLS:
        raise app.UsageError(f"--{flag}={text}: allowed: CELL:BxTxIxH with CELL one of {', '.join(CELLS)}")
    return parse_case(cell, shape, flag)


def parse_case(cell: str, shape: str, flag: str = "shape") -> Case:
    """The case of a cell at the shape that BxTxIxH names. Raises UsageError in one line."""
    sizes = shape.split("x")
    if len(sizes) != 4 or not all(size.isdigit() and int(size) > 0 for size in sizes):
        raise app.UsageError(f"--{flag}={shape}: allowed: BxTxIxH, four whole numbers above 0, such as 32x200x2x64")
    return Case(cell, *map(int, sizes))


def case_of_row(row: dict) -> Case:
    """The case of a row of the results."""
    return Case(*(row[k] for k in Case._fields))


def title(case: Case) -> str:
    """As tables name it: lstm (32, 200, 2, 64)."""
    return f"{case.cell} ({case.B}, {case.T}, {case.I}, {case.H})"
