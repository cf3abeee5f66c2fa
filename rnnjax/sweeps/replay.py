"""One trial of a sweep again, alone: is it the same, and where did it go wrong?"""

import dataclasses
import re
from pathlib import Path

import jax

from rnnjax import runs
from rnnjax.sweeps import grid as sweep
from rnnjax.training import make_train, outputs
from rnnjax.training.config import Config, Hyperparameters
from rnnjax.training.settings import BadSetting, checked
from rnnjax.training.train import TrainState


def replay(workdir: str, trial: str, debug_nans: bool) -> int:
    """Runs a trial of a sweep again, alone; returns the exit code. Writes nothing.

    With `debug_nans`, the step at which it diverged is run operation by operation under JAX's checks, so that the
    traceback ends at the first operation whose result is not finite.
    """
    path = Path(workdir or "", "trials", trial)
    if not workdir or not re.fullmatch("[0-9a-f]{16}", trial) or not (path / "config.json").exists():
        raise BadSetting(f"--replay={trial}: allowed: the name of a directory in --workdir={workdir}/trials")
    config = checked(outputs.trained_config(path))
    with jax.enable_x64(config.dtype == "float64"):
        before, values, rows = replay_until_diverged(config, runs.read_rows(path))
        if rows[-1]["diverged"] < 0:
            print("it did not diverge")
            return runs.EXIT_DONE
        print(f"diverged at step {rows[-1]['diverged']}: {rows[-1]['blame']} not finite")
        if debug_nans:
            one = make_train(dataclasses.replace(config, eval_every=1))
            step, data = jax.jit(one.chunk), one.task.data
            while int(before.step) < rows[-1]["diverged"]:
                before, _ = step(before, values, data)
            with jax.debug_nans(True), jax.debug_infs(True), jax.disable_jit():
                one.chunk(before, values, data)
            print("no operation of that step is not finite when it is run by itself")
    return runs.EXIT_DONE


def replay_until_diverged(config: Config, stored: list[dict]) -> tuple[TrainState, Hyperparameters, list[dict]]:
    """Prints each row beside whether it is the stored one. Returns the state before the last, hyperparameters, rows."""
    train = make_train(config)
    key, values = jax.tree.map(lambda leaf: leaf[0], sweep.lane_inputs([config]))
    rows: list[dict] = []
    state, chunk = jax.jit(train.init)(key, values), jax.jit(train.chunk)
    while not rows or (rows[-1]["step"] < config.steps and rows[-1]["diverged"] < 0):
        before = state
        state, record = chunk(state, values, train.task.data)
        row = outputs.metrics_row(jax.device_get(record))
        before_too = runs.json_text(row) == runs.json_text(stored[len(rows)]) if len(rows) < len(stored) else None
        print(f"{runs.json_text(row)}  { {True: 'as before', False: 'not as before', None: 'new'}[before_too] }")
        rows.append(row)
    return before, values, rows
