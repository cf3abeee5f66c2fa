"""What cells cost: closed forms, XLA's own count, and a state that does or does not grow with what was read."""

import json
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from rnnjax.cells import CELLS, linear
from rnnjax.diagnostics.costs import product_flops
from rnnjax.reports import costs
from rnnjax.reports.cards import at_start, card, catalogue, source_of, starts_table
from rnnjax.reports.cells_page import all_cells, count_costs, time_texts, write_cells
from rnnjax.reports.costs import layer_costs, time_writing
from rnnjax.runs import RunRefused
from rnnjax.training.config import Config, make_cell

GATES = {"rnn": 1, "irnn": 1, "lstm": 4, "gru": 3, "gru_cho": 3, "mgu": 2}
SECOND_BIAS = {"gru": 1, "mgu": 1}  # within the reset gate's reach


@pytest.mark.parametrize("H", [8, 24])
@pytest.mark.parametrize("cell", GATES)
def test_the_costs_of_gates_are_those_of_the_closed_form(cell, H):
    G = GATES[cell]
    found = layer_costs(Config(cell=cell, hidden_size=H), past=7)
    assert found.parameters == G * H * (2 * H + 1) + SECOND_BIAS.get(cell, 0) * H
    assert found.state == H * (1 + (cell == "lstm"))
    assert found.flops == 2 * G * H * (H + H)


@pytest.mark.parametrize("past", [16, 40])
def test_the_costs_of_attention_are_those_of_the_closed_form_and_grow_with_what_it_sees(past):
    H = 16
    found = layer_costs(Config(cell="transformer", hidden_size=H), past)
    maps = 4 * H * H + 2 * 4 * H * H  # query, key, value, mix; to 4 H and back
    assert found.parameters == maps + (4 + 4 + 1) * H + 2 * 2 * H  # with biases, and two norms
    assert found.state == 2 * past * H
    assert found.flops == 2 * maps + 2 * 2 * past * H  # q . k, and the sum of values


def test_a_linear_recurrence_multiplies_in_and_out_alone():
    H = 8
    found = layer_costs(Config(cell="lru", hidden_size=H), past=7)
    assert found.state == 2 * H  # complex
    assert found.flops == 2 * 2 * H * H + 2 * 2 * H * H + 2 * H * H  # B x, Re(C h), D x


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_xla_counts_the_same_products_and_little_beside(cell):
    H = 64
    made = make_cell(Config(cell=cell, hidden_size=H))
    weights = made.weights(made.init(jax.random.key(0), H))

    def step(weights, carry, x):
        return made.step(weights, carry, made.project(weights, x))

    carry, x = made.initial_carry(weights, ()), jnp.ones(H)
    xla = jax.jit(step).lower(weights, carry, x).compile().cost_analysis()["flops"]
    counted = layer_costs(Config(cell=cell, hidden_size=H), past=1).flops
    assert counted <= xla < 1.05 * counted


def test_products_in_loops_branches_and_complex_numbers_are_counted():
    a, b = jnp.ones((3, 5)), jnp.ones((5, 7))
    assert product_flops(jnp.matmul, a, b) == 2 * 3 * 5 * 7
    assert product_flops(jnp.matmul, jnp.ones((4, 3, 5)), b) == 4 * 2 * 3 * 5 * 7
    assert product_flops(lambda a: jnp.einsum("bij,bjk->bik", a, a), jnp.ones((4, 3, 3))) == 4 * 2 * 3**3
    assert product_flops(jnp.matmul, a.astype(complex), b.astype(complex)) == 8 * 3 * 5 * 7
    square = jnp.ones((3, 3))
    loop = lambda m: jax.lax.scan(lambda c, _: (c @ m, None), m, length=10)[0]  # noqa: E731
    assert product_flops(loop, square) == product_flops(jax.jit(loop), square) == 10 * 2 * 27
    branch = lambda m: jax.lax.cond(m[0, 0] > 0, lambda m: m @ m @ m, lambda m: m @ m, m)  # noqa: E731
    assert product_flops(branch, square) == 2 * 2 * 27
    assert product_flops(jnp.tanh, square) == 0
    with pytest.raises(ValueError, match="a while loop multiplies matrices"):
        product_flops(lambda m: jax.lax.while_loop(lambda c: c[0, 0] < 9, lambda c: c @ m, m), square)


def test_the_state_of_what_is_written_grows_for_attention_alone(monkeypatch):
    monkeypatch.setattr(costs, "LEAST_SECONDS", 0)
    rnn, lstm, attention = (
        time_writing(Config(cell=cell, hidden_size=8), [4, 12]) for cell in ("rnn", "lstm", "transformer")
    )
    assert [w.state_bytes for w in rnn] == [4 * 8] * 2 and [w.state_bytes for w in lstm] == [4 * 16] * 2
    assert [w.state_bytes for w in attention] == [4 * (2 * length * 8 + 1) for length in (4, 12)]  # and a clock
    assert all(w.seconds > 0 and (w.working_bytes is None or w.working_bytes >= 0) for w in rnn + lstm + attention)


def test_a_leak_reaches_as_far_as_its_powers_and_its_exponent_is_its_logarithm():
    found = at_start(leak(3), 24, seeds=2)
    assert found.reach.tolist() == [10, 10]  # 0.5^10 is the first below a thousandth
    assert found.exponent == pytest.approx(math.log(0.5))
    rows = [{"cell": "leak", "hidden_size": 3, "seq_len": 24, "reach": 10.0, "exponent": math.log(0.5)}]
    assert "| leak | 10 | -0.693 |" in starts_table([*rows, rows[0] | {"cell": "all", "reach": 24.0}])
    assert "| all | >= 24 |" in starts_table([*rows, rows[0] | {"cell": "all", "reach": 24.0}])


def leak(hidden_size):
    return linear(
        init=lambda key, size: {"W": jax.random.normal(key, (size, hidden_size))},
        initial_carry=lambda weights, batch_shape: jnp.zeros((*batch_shape, hidden_size)),
        coefficients=lambda weights, z: (jnp.full(hidden_size, 0.5), z),
        project=lambda weights, x, key=None: x @ weights["W"],
    )


@pytest.mark.parametrize(
    ("docstring", "source"),
    [
        ("A net.\n\n    h = x\n\nElman (1990), Finding.", "Elman (1990)"),
        ("A net.\n\nVan der Westhuizen & Lasenby (2018, arXiv:1804.04849).", "Van der Westhuizen & Lasenby (2018)"),
        ("A net.\n\nLe, Jaitly & Hinton (2015), A simple way. After Saxe et al. (2014).", "Le, Jaitly & Hinton (2015)"),
        ("A net of mine.\n\nArgs:\n  a: of Elman (1990).", ""),
    ],
)
def test_the_source_is_the_first_that_a_docstring_names(docstring, source):
    def factory():
        pass

    factory.__doc__ = docstring
    assert source_of(factory) == source


def test_every_cell_has_a_line_and_a_source_in_the_catalogue():
    rows = [line.split("|")[1:-1] for line in catalogue().splitlines() if line.startswith("| `")]
    rows = [[part.strip() for part in row] for row in rows]
    assert [row[0] for row in rows] == [f"`{name}`" for name in CELLS]
    assert all(re.fullmatch(r".+ \((19|20)\d\d\)", row[2]) and row[1] for row in rows)
    forms = {row[0]: row[3] for row in rows}
    assert [forms[f"`{name}`"] for name in ("lstm", "lru", "gru_cho")] == ["gates", "linear", "free"]


def test_the_page_of_cells_has_the_catalogue():
    page = (pathlib.Path(__file__).parents[1] / "docs/cells.md").read_text("utf-8")
    assert catalogue() in page, "put in what python experiments/cells.py --list prints"
    reached = page[page.index("## What they reach") : page.index("## Run one")]
    assert set(re.findall(r"^\| (\w+) \|", reached, re.M)) >= set(CELLS)


@pytest.mark.slow
def test_the_page_has_every_cell_at_every_size(tmp_path):
    cells = all_cells()
    assert cells[: len(CELLS)] == list(CELLS) and "transformer" in cells
    counted = count_costs([Config(cell=cell) for cell in cells], [8, 16], past=4)
    written = [{"cell": cell, "hidden_size": 8, "length": n, "seconds": 1e-5 * n, "state_bytes": 32 * n}
               for cell in cells for n in (4, 8)]  # fmt: skip
    text = write_cells(counted, written, tmp_path / "cells")
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert re.sub(r"\s+", " ", lines["lstm"]).startswith("| lstm | 10 / 128 | 10 / 256 |")  # the later of two tables
    assert "| lstm | 544 / 16 / 1.02k | 2.11k / 32 / 4.1k |" in text and set(cells) < set(lines)
    stored = json.loads((tmp_path / "cells" / "cells.json").read_text())
    assert stored == {"costs": counted, "writing": written}
    assert {"costs.png", "writing_dark.png", "costs.csv"} < {path.name for path in (tmp_path / "cells").iterdir()}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("")
    with pytest.raises(RunRefused, match="not of this program"):
        write_cells(counted, written, tmp_path / "mine")


def test_the_card_of_a_cell_has_its_equations_its_paper_its_costs_and_its_start(monkeypatch):
    monkeypatch.setattr(costs, "LEAST_SECONDS", 0)
    text = card(Config(cell="lstm", hidden_size=4, batch_size=2), [8], past=4, seq_len=16)
    assert "c_t = f_t c_{t-1} + i_t g_t" in text and "Hochreiter & Schmidhuber (1997)" in text
    assert "forget_bias: b_f at the start" in text and "Raises" not in text and "| lstm | 544 / 16 / 1.02k |" in text
    assert re.search(r"reaches back (>= 16|\d+), (>= 16|\d+), (>= 16|\d+) steps", text)
    methods = re.findall(r"^\| \**([a-z:]+)\** \| [\d.]+ \|", text, re.M)  # the quickest is bold
    assert methods == ["scan", "deferred", "newton", "newton:diagonal", "auto"]
    assert "At the start" not in card(Config(cell="transformer", hidden_size=8), [8], past=4, seq_len=16)
    with pytest.raises(ValueError, match="unknown cell 'lsmt'; did you mean 'lstm'"):
        card(Config(cell="lsmt"), [8], past=4, seq_len=16)
    with pytest.raises(ValueError, match="heads=4"):
        time_texts([Config(cell="transformer", hidden_size=6)], [4])
