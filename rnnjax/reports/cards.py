"""The card of a cell: equations and paper, costs, what its gradient does at the start, and how it can be run."""

import inspect
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnjax.cells import FAMILIES
from rnnjax.diagnostics.gradient_flow import gradient_flow, gradient_reach, rms_over_batch, total_norm
from rnnjax.diagnostics.lyapunov import lyapunov_spectrum
from rnnjax.engine.unroll import make_taps, unroll
from rnnjax.reports.cells_page import NOTES, costs_table, count_costs
from rnnjax.reports.ways import Subject, ways, ways_table
from rnnjax.training.config import Config, factory_of, make_cell
from rnnjax.training.options import options_of
from rnnjax.training.own_files import short_name
from rnnjax.types import Cell, Gates, Linear, Memory

FEATURES, BATCH, SEEDS = 2, 16, 3


class AtStart(NamedTuple):
    """What an untrained cell does with the past, `[S]` of S seeds."""

    reach: np.ndarray  # steps back from the end over which |dL/dh_t| stays above a thousandth; T if it always does
    exponent: np.ndarray  # the largest Lyapunov exponent


def card(config: Config, sizes: Sequence[int], past: int, seq_len: int) -> str:
    """What there is to know of one cell: equations, paper and options as its docstring has them, and what it measures.

    Args:
      config: names the cell, its options, and the hidden size of what is measured.
      sizes: hidden sizes to count costs for.
      past: steps that a layer that attends has seen.
      seq_len: T of what is measured.

    Raises ValueError for a cell or a size that cannot be.
    """
    name, cell = short_name(config.cell), make_cell(config)
    about = inspect.getdoc(factory_of(config, "cell")) or "No docstring says what it computes."
    table = costs_table(count_costs([config], sizes, past))
    about = about.split("\nRaises ")[0].strip()
    parts = [name, "=" * len(name), "", about, "", table, NOTES.format(past=past)]
    if isinstance(cell, Cell):
        parts += ["", *_start_lines(at_start(cell, seq_len), seq_len, config.hidden_size)]
        xs = jax.random.normal(jax.random.key(0), (seq_len, config.batch_size, FEATURES))
        found = ways(Subject(cell, cell.init(jax.random.key(0), FEATURES), xs))
        parts += ["", f"Ways to run it, forwards and backwards, H = {config.hidden_size}, T = {seq_len}:", ""]
        parts += [ways_table(found).rstrip()]
    return "\n".join(parts) + "\n"


def at_start(cell: Cell, seq_len: int, seeds: int = SEEDS) -> AtStart:
    """What a cell does before it is trained, on standard normal inputs, `FEATURES` numbers a step.

    The loss is a random sum of the last output; reach as in `gradient_reach`, the exponent along one sequence without
    its first quarter.
    """

    def one(key):
        key_init, key_x, key_loss = jax.random.split(key, 3)
        params = cell.init(key_init, FEATURES)
        xs = jax.random.normal(key_x, (seq_len, BATCH, FEATURES))

        def loss(taps):
            last = unroll(cell, params, xs, taps=taps)[1][-1]
            return jnp.mean(last @ jax.random.normal(key_loss, last.shape[-1:]))

        flow = gradient_flow(loss, make_taps(cell, params, seq_len, (BATCH,)))
        profile = total_norm(rms_over_batch(flow.norm, BATCH))
        spectrum = lyapunov_spectrum(cell, params, xs[:, 0], k=1, transient=seq_len // 4, batches=2)
        return gradient_reach(profile), spectrum.exponents[0]

    # One after the other: the QRs of orthogonal starts and of spectra, side by side, can lock up XLA on a CPU.
    found = jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(jax.random.key(0), seeds))
    return AtStart(*map(np.asarray, found))


def count_starts(configs: Sequence[Config], seq_len: int) -> list[dict[str, Any]]:
    """A row for each config's cell, but one that attends: medians over seeds of `at_start`. Raises ValueError."""
    rows = []
    for config in configs:
        cell = make_cell(config)
        if isinstance(cell, Cell):
            found = at_start(cell, seq_len)
            row = {"cell": short_name(config.cell), "hidden_size": config.hidden_size, "seq_len": seq_len}
            rows.append(row | {"reach": float(np.median(found.reach)), "exponent": float(np.median(found.exponent))})
    return rows


def starts_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: how far back the gradient of each untrained cell reaches, and its largest Lyapunov exponent."""
    size, seq_len = rows[0]["hidden_size"], rows[0]["seq_len"]
    lines = [f"At the start, H = {size}, T = {seq_len}, standard normal inputs, the median of {SEEDS} seeds:", ""]
    lines += ["| cell | gradient reach, steps | largest Lyapunov exponent |", "|---|---:|---:|"]
    lines += [f"| {row['cell']} | {_reach(row['reach'], seq_len)} | {row['exponent']:+.3g} |" for row in rows]
    return "\n".join(lines) + "\n"


def catalogue() -> str:
    """Markdown: a table for each family, with a line a cell: what it is, its paper, its form and its options."""
    lines = []
    for family, factories in FAMILIES.items():
        lines += [f"### {family}", "", "| name | what it is | source | form | options |", "|---|---|---|---|---|"]
        for factory in factories:
            first = (inspect.getdoc(factory) or "").split("\n", 1)[0].rstrip(".")
            options = ", ".join(f"`{option}`" for option in options_of(factory))
            name, form = factory.__name__, form_of(factory(8))
            lines.append(f"| `{name}` | {first} | {source_of(factory)} | {form} | {options} |")
        lines.append("")
    return "\n".join(lines)


def source_of(factory: object) -> str:
    """Who published a cell, as its docstring first says it: `Elman (1990)`."""
    text = " ".join((inspect.getdoc(factory) or "").split("\nArgs:")[0].split())
    names = r"(?:[Vv]an der |[Vv]on )?[A-Z][\w'-]+"
    found = re.search(rf"({names}(?:(?:, | & | and )(?:{names}))*(?: et al\.)?) \(?((?:19|20)\d\d)", text)
    return f"{found[1]} ({found[2]})" if found else ""


def form_of(cell: Cell) -> str:
    """What the engine knows of a cell: "gates", "linear", "memory" or "free"."""
    forms = {Gates: "gates", Linear: "linear", Memory: "memory"}
    return forms.get(type(cell.form), "free")


def _start_lines(found, seq_len, hidden_size):
    reach = ", ".join(_reach(r, seq_len) for r in found.reach)
    exponent = ", ".join(f"{e:+.3g}" for e in found.exponent)
    return [
        f"At the start, H = {hidden_size}, T = {seq_len}, {len(found.reach)} seeds, standard normal inputs:",
        "",
        f"- The gradient reaches back {reach} steps: from there it is below a thousandth of that of the last step.",
        f"- The largest Lyapunov exponent is {exponent} a step: below 0 the past is forgotten, above 0 it is chaos.",
    ]


def _reach(reach, seq_len):
    return f">= {seq_len}" if reach == seq_len else "none" if np.isnan(reach) else f"{reach:.0f}"
