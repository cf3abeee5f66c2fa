"""How far back the gradient of a task's own loss reaches in each cell, at initialisation and after training.

    python experiments/gradient_flow.py --cells=rnn,lstm,gru --seq_len=200
    python experiments/gradient_flow.py --runs=runs/demo --task=adding
    python experiments/gradient_flow.py --cells=my_cell.py:leaky,rnn      # beside a cell of your own

Prints a table and writes gradient_flow.png and gradient_flow.npz into --out. All of it is |dL/dh_t| of the first layer
(forwards, if it has two directions; of a transformer, |dL/dx_t| of what enters it), over all parts of its carry, rms
over a batch; the median over seeds or runs.
"""

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from command_line import (
    BadSetting,
    checked,
    define_config,
    define_path,
    define_paths,
    given_settings,
    load_config,
    main_with_errors,
)
from rich.console import Console
from rich.table import Table

from rnnjax import intervals, runs
from rnnjax.diagnostics.gradient_flow import gradient_fault, gradient_flow, gradient_reach, rms_over_batch, total_norm
from rnnjax.figures import plotting
from rnnjax.keys import Purpose, purpose_key
from rnnjax.reports.settings import best_settings, find_runs, summarise
from rnnjax.runs.read import group_by_setting
from rnnjax.sweeps.tracing import errors_in_one_line
from rnnjax.tasks import draw
from rnnjax.training import make_train, outputs
from rnnjax.training.checks import check
from rnnjax.training.config import OWNERS, Config, hyperparameters
from rnnjax.training.devices import prepare_devices
from rnnjax.training.dotted import with_fitting_options
from rnnjax.training.own_files import full_name, look_again, short_name
from rnnjax.training.refusals import nearest


class Compared(NamedTuple):
    """One cell, and where its gradient goes."""

    cell: str
    initial: np.ndarray  # |dL/dh_t| [S, T] of S seeds
    trained: np.ndarray | None  # [S', T] of S' runs


def compare(
    cells: list[str] | None, config: Config, seeds: int, trained: dict[str, list[tuple[Config, Path]]]
) -> list[Compared]:
    """The gradient over time of each cell.

    Args:
      cells: names of cells, or FILE.py:NAME; None: those of `trained`.
      config: of the cells that were not trained.
      seeds: how many initialisations of each.
      trained: cell -> its runs, which differ in the seed alone; their own config then holds for the cell.
    """
    compared = []
    for cell in cells or trained:
        found = trained.get(short_name(full_name(cell)), [])
        own = found[0][0] if found else with_cell(config, cell)
        with jax.enable_x64(own.dtype == "float64"):
            initial, after = make_profile(own)
            compared.append(
                Compared(
                    short_name(own.cell),
                    np.stack([initial(seed) for seed in range(seeds)]),
                    np.stack([after(c.seed, path) for c, path in found]) if found else None,
                )
            )
    return compared


def with_cell(config: Config, cell: str) -> Config:
    """The config with this cell, and those of its options that the cell has."""
    return with_fitting_options(dataclasses.replace(config, cell=cell), ["cell"])


def make_profile(config: Config):
    """Two functions that return |dL/dh_t| `[T]`: initial(seed), and trained(seed, run directory).

    The same seed gives both the same batch, drawn from the validation split.
    """
    train = make_train(config)
    values = {name: jnp.float32(value) for name, value in hyperparameters(config).items()}
    init = jax.jit(lambda key: train.init(key, values).params)

    @jax.jit
    def profile(params, key, data):
        batch = draw(train.task, key, config.batch_size, "validation", data)
        model = train.model(params)
        T = batch.inputs.shape[0]

        def loss(taps):
            return train.task.loss(model(batch.inputs, lengths=batch.lengths, taps=taps), batch)

        first = gradient_flow(loss, model.make_taps(T, (config.batch_size,))).norm[0]
        norm = total_norm(first[0] if config.bidirectional and type(first) is tuple else first)
        if batch.lengths is not None:  # let all sequences end together, so that a step back is the same for all
            source = jnp.arange(T)[:, None] - (T - batch.lengths)
            norm = jnp.where(source >= 0, jnp.take_along_axis(norm, jnp.maximum(source, 0), axis=0), 0)
        return rms_over_batch(norm, config.batch_size)

    data = jax.tree.map(jnp.asarray, train.task.data)
    with errors_in_one_line(config):
        key = jax.random.key(0)
        jax.eval_shape(profile, jax.eval_shape(init, key), key, data)

    def initial(seed):
        return np.asarray(profile(init(jax.random.key(seed)), purpose_key(Purpose.DIAGNOSIS, seed), data))

    def trained(seed, path):
        params = runs.load_params(path, like=jax.eval_shape(init, jax.random.key(0)))
        return np.asarray(profile(params, purpose_key(Purpose.DIAGNOSIS, seed), data))

    return initial, trained


def arrays_of(compared: list[Compared]) -> dict[str, np.ndarray]:
    """The profiles by name, such as `lstm.initial`, `lstm.trained`, and `my_cell.py.leaky.initial` of a user's own."""
    named = {c.cell.replace(":", "."): c for c in compared}
    arrays = {f"{name}.initial": c.initial for name, c in named.items()}
    return arrays | {f"{name}.trained": c.trained for name, c in named.items() if c.trained is not None}


def find_trained(paths: list[str], task: str | None, seq_len: int | None) -> dict[str, list[tuple[Config, Path]]]:
    """cell -> (config, directory) of its runs with the best setting, of the task and length asked for.

    Raises ValueError where no run fits, or runs of several tasks or lengths do.
    """
    found, _ = find_runs(paths)
    fit = [r for r in found if task in (None, r.config["task"]) and seq_len in (None, r.config["seq_len"])]
    problems = sorted({f"--task={r.config['task']} --seq_len={r.config['seq_len']}" for r in fit or found})
    if not fit or len(problems) > 1:
        raise ValueError(f"--runs={','.join(paths)}: allowed: one problem at a time, of {' or '.join(problems)}")
    best = best_settings([summarise(group) for group in group_by_setting(fit)])
    return {s.config["cell"]: [(_config(run), run.path) for run in s.runs] for s in best}


def table(compared: list[Compared]) -> Table:
    """The medians as a table, a row a cell."""
    T = compared[0].initial.shape[-1]
    shown = Table(
        title=f"Gradient over time, T = {T}",
        caption="on a validation batch a seed: the median, and from the lowest to the highest seed; "
        "reach: steps back until |dL/dh_t| is below 1/1000 of its last value",
    )
    when = ["at start", "trained"] if any(c.trained is not None for c in compared) else ["at start"]
    shown.add_column("cell", no_wrap=True)
    for name in ("reach", "|dL/dh_1|/|dL/dh_T|"):
        for w in when:
            shown.add_column(f"{name}\n{w}", justify="right", no_wrap=name != "reach")
    for c in compared:
        profiles = [c.initial, c.trained][: len(when)]
        cells = [_over_seeds(p, value, show) for value, show in ((reach, _reach), (ratio, _ratio)) for p in profiles]
        shown.add_row(c.cell, *cells)
    return shown


def reach(profiles: np.ndarray) -> float:
    """The median gradient reach of profiles `[S, T]`; NaN where it hangs on one without any."""
    return intervals.median(np.asarray(gradient_reach(jnp.asarray(profiles))).tolist())


def ratio(profiles: np.ndarray) -> float:
    """The median of |dL/dh_1| / |dL/dh_T| over profiles `[S, T]`, T the last step that has a gradient; NaN as above."""
    ends = [(p[0], p[np.flatnonzero(p)[-1]]) if p.any() else (np.nan, 1) for p in np.asarray(profiles, float)]
    with np.errstate(invalid="ignore"):
        return intervals.median([first / last for first, last in ends])


def _over_seeds(profiles, value, show):
    """The median, and below it the lowest and the highest seed where they differ; one that is no number is highest."""
    if profiles is None or len(profiles) == 1:
        return show(profiles)
    alone = [profiles[k : k + 1] for k in range(len(profiles))]
    ordered = sorted(alone, key=lambda one: (math.isnan(value(one)), value(one)))
    ends = [show(ordered[0]), show(ordered[-1])]
    return show(profiles) if ends[0] == ends[1] else f"{show(profiles)}\n{ends[0]} to {ends[1]}"


def _reach(profiles):
    if profiles is None:
        return "–"
    value = reach(profiles)
    if math.isnan(value):
        return gradient_fault(profiles)
    return f">= {value:g}" if value >= profiles.shape[-1] else f"{value:g}"


def _ratio(profiles):
    if profiles is None:
        return "–"
    value = ratio(profiles)
    if math.isnan(value):
        return gradient_fault(profiles)
    return f"{value:.1e}" if value else f"0 (below {np.finfo(profiles.dtype).tiny:.0e})"


def _config(run):
    return checked(outputs.trained_config(run.path))


def main(_) -> int:
    base = load_config()  # with --runs too: the file may hold their cell
    cells = CELLS_FLAG.value
    for cell in cells or ():
        if cell not in (known := OWNERS["cell"]) and ":" in cell:
            look_again("cell", full_name(cell))
        elif cell not in known:
            raise BadSetting(f"--cells={cell}: unknown cell{nearest(cell, known) or ';'} cells: {', '.join(known)}")
    try:
        trained = find_trained(RUNS.value, TASK.value, SEQ_LEN.value) if RUNS.value else {}
        config = _base_config(base, trained)
        out = runs.check_own_directory(OUT.value, "gradient_flow")
        named = flags.FLAGS["config"].present or flags.FLAGS["config.cell"].present
        cells = cells or list(trained) or ([base.cell] if named else DEFAULT_CELLS)
        for cell in cells:
            if cell not in trained:
                check(with_cell(config, cell))
    except ValueError as error:
        raise BadSetting(str(error)) from error
    prepare_devices(config)
    compared = compare(cells, config, SEEDS.value, trained)
    runs.own_directory(out, "gradient_flow")
    plotting.gradient_profiles({c.cell: (c.initial, c.trained) for c in compared}, out / "gradient_flow.png")
    runs.save_arrays(out / "gradient_flow.npz", arrays_of(compared))
    Console().print(table(compared))
    print(f"figure: {out / 'gradient_flow.png'}")
    return runs.EXIT_DONE


def _base_config(base, trained):
    """Of the cells that were not trained: --config and the flags, or else the problem and size of the runs."""
    given = {"task": TASK.value, "seq_len": SEQ_LEN.value, "hidden_size": HIDDEN_SIZE.value, "batch_size": BATCH.value}
    given = {name: value for name, value in given.items() if value is not None}
    if not trained:
        return dataclasses.replace(base, **given)
    like, _ = next(iter(trained.values()))[0]
    set_ = {name: given[name] for name in ("hidden_size", "batch_size") if name in given}
    set_ |= {f"config.{name}": value for name, value in given_settings().items()}
    for name, value in set_.items():
        raise ValueError(f"--{name}={value}: allowed: without --runs, which have their own")
    return dataclasses.replace(like, cell_options={})


DEFAULT_CELLS = ["rnn", "lstm", "gru"]

if __name__ == "__main__":
    define_config()
    CELLS_FLAG = flags.DEFINE_list(
        "cells", None, "cells to compare; by default those of --runs, or that of --config, or rnn,lstm,gru"
    )
    TASK = flags.DEFINE_string("task", None, "--config.task, or which of the runs")
    SEQ_LEN = flags.DEFINE_integer("seq_len", None, "--config.seq_len, or which of the runs")
    HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", None, "--config.hidden_size; runs have their own")
    BATCH = flags.DEFINE_integer("batch_size", None, "--config.batch_size; runs have their own")
    SEEDS = flags.DEFINE_integer("seeds", 5, "initialisations a cell", lower_bound=1)
    RUNS = define_paths("runs", "trained: run directories, sweeps or parents of them; the best setting a cell")
    OUT = define_path("out", "runs/gradient_flow", "the directory for the figure and the arrays")
    main_with_errors(main)
