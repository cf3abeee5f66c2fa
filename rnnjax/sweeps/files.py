"""The trials of a sweep on disk: which are there, whether they are of today's sources, and how one is published."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rnnjax import runs
from rnnjax.runs.identity import Sources, changed_config, changed_sources, source_record
from rnnjax.sweeps import grid as sweep
from rnnjax.training import Train, outputs
from rnnjax.training.config import Config
from rnnjax.training.devices import device_info

_LOG = logging.getLogger(__name__)
TABLES = ("anatomy", "compare", "cures")  # what writes into the directory of its sweep


class Store(NamedTuple):
    """A sweep's directory."""

    workdir: Path
    sources: Mapping[str, Sources]  # of each bucket, by its id, as they were when the sweep began
    early: bool  # trials that were stopped early count as done
    failures: list[runs.RunFailed]  # of what followed training

    def sources_of(self, trial: Config) -> Sources:
        """What the trial is computed from beside its config."""
        return self.sources[sweep.bucket_id(trial)]

    def is_done(self, trial: Config) -> bool:
        """Whether nothing is left to do for a trial."""
        return is_done(self.workdir, trial, self.early)


def open_store(
    workdir: str | os.PathLike, trials: Sequence[Config], early: bool = False, accept_changes: bool = False
) -> tuple[Store, list[Config]]:
    """A sweep's directory, and those of the trials that it lacks. Writes nothing.

    A damaged file is named in a warning, and its trial is missing. Raises RunRefused for a directory that no sweep
    made, and, unless `accept_changes`, where the results of trials are of other sources or defaults than there are now.
    """
    workdir = runs.check_own_directory(workdir, "sweep", *TABLES)
    sources = {sweep.bucket_id(bucket.config): outputs.sources(bucket.config) for bucket in sweep.buckets(trials)}
    now = {name: source_record(found) for name, found in sources.items()}
    store, missing, others = Store(workdir, sources, early, []), [], {}
    for trial in trials:
        stored, result = _stored(workdir, trial, _LOG.warning)
        if result is not None:  # made with other defaults it has this id too
            changed = changed_config(stored, outputs.config_dict(trial))
            if changed := changed + changed_sources(stored, now[sweep.bucket_id(trial)]):
                others[sweep.trial_id(trial)] = changed
        if not store.is_done(trial):
            missing.append(trial)
    if others and not accept_changes:
        name, changed = next(iter(others.items()))
        raise runs.RunRefused(
            f"{workdir} holds {len(others)} trials, such as {name}, and {'; '.join(changed)}. Give another --workdir, "
            "or, to sweep.py, --accept_changes: it goes on with what is missing"
        )
    return store, missing


def trial_directory(workdir: str | Path, trial: Config) -> Path:
    """Where a trial's run directory is."""
    return Path(workdir) / "trials" / sweep.trial_id(trial)


def is_done(workdir: str | Path, trial: Config, early: bool = False) -> bool:
    """Whether a trial's result is there, and all that follows training.

    A trial that was stopped early is done for a sweep that stops trials early too.
    """
    _, result = _stored(workdir, trial)
    return result is not None and result.get("complete", True) and (early or result.get("stopped") is None)


def publish(
    store: Store,
    trial: Config,
    train: Train,
    params: Any,
    records: Sequence[dict],
    seconds: float,
    stopped: str | None,
    history: Sequence[dict],
) -> None:
    """Writes one trial's run directory. A trial half published before starts anew; one published meanwhile stands.

    Args:
      records: one a chunk.
      stopped: why it ended before its steps.
      history: changes that were accepted while it was under way.
    """
    path, info = trial_directory(store.workdir, trial), device_info()
    info |= {"history": list(history)} if history else {}
    done = lambda: store.is_done(trial)  # noqa: E731
    with runs.publish_run(path, done, outputs.config_dict(trial), info, store.sources_of(trial)) as run:
        if run is None:
            return
        runs.append_rows(run, [outputs.metrics_row(record) for record in records])
        flow = outputs.stack_rows([row for record in records if (row := outputs.flow_row(record, trial.bidirectional))])
        if flow:
            runs.save_arrays(run.path / "gradient_flow.npz", flow)
        outputs.write_trained(run, trial, train, params, flow, seconds, stopped)
        _complete(store, run, trial, train, params)


def complete(store: Store, trial: Config, train: Train) -> bool:
    """Goes on after the training of a trial whose rest failed, if there is such a one. Whether there was."""
    path = trial_directory(store.workdir, trial)
    stored, result = _stored(store.workdir, trial)
    if result is None or result.get("complete", True) or not (store.early or result.get("stopped") is None):
        return False
    changed = changed_config(stored, outputs.config_dict(trial))
    changed += changed_sources(stored, source_record(store.sources_of(trial)))
    if changed or not (path / "params.npz").exists():
        return False
    key, values = jax.tree.map(lambda leaf: leaf[0], sweep.lane_inputs([trial]))
    params = runs.load_params(path, like=jax.eval_shape(train.init, key, values).params)
    config, info = outputs.config_dict(trial), device_info()
    with runs.open_run(path, config, info, store.sources_of(trial), accept_changes=True) as run:
        _complete(store, run, trial, train, jax.tree.map(np.asarray, params))
    return True


def _complete(store, run, trial, train, params):
    try:
        outputs.complete_result(run, trial, train, params)
    except runs.RunFailed as error:
        store.failures.append(error)


def _stored(workdir, trial, warn: Callable = lambda *_: None) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A trial's record and result; no result where it is not there, or where one of the two is damaged."""
    path = trial_directory(workdir, trial)
    if not (path / "config.json").exists() and not (path / "result.json").exists():
        return {}, None
    try:
        return runs.read_config(path), runs.read_result(path)
    except (runs.RunRefused, FileNotFoundError) as error:
        warn("%s; the trial is run again", error)
        return {}, None
