"""A training run as Python sees it: what it learned, how it went, and what can be done with it next."""

import base64
import dataclasses
import html
import io
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnjax import runs
from rnnjax.figures import plotting
from rnnjax.keys import Purpose, purpose_key
from rnnjax.nn import SequenceModel
from rnnjax.runs.identity import Sources, changed_sources, source_record
from rnnjax.runs.read import RunData
from rnnjax.tasks import SPLITS, generate
from rnnjax.tasks.common import unknown
from rnnjax.training import outputs
from rnnjax.training.config import Config
from rnnjax.training.devices import device_info
from rnnjax.training.dotted import changed_settings, flat_settings
from rnnjax.training.lengths import evaluate
from rnnjax.training.own_files import short_name
from rnnjax.training.refusals import BadSetting
from rnnjax.training.settings import checked
from rnnjax.training.tracing import run_inputs, traced_run
from rnnjax.training.train import Train, TrainState, check_precision, make_train
from rnnjax.types import Forecast, Report


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TrainedRun:
    """A run, finished or not, as `fit` and `load` return it. It does not change: `resume` returns another."""

    config: Config
    train: Train  # its pure functions, and its `task`
    params: Any  # the model's nnx.Param state
    metrics: list[dict[str, Any]]  # a row an evaluation
    gradient_flow: dict[str, np.ndarray]  # "step" [E], and |dL/dh_t| [E, T] by layer and carry part; {} if not recorded
    result: dict[str, Any] | None  # what was reached; None while steps are left
    workdir: Path | None = None
    state: TrainState | None = None  # all that training goes on from; None for a trial of a sweep, which keeps none
    seconds: float = 0.0  # of training
    shards: int = 1
    sources: Sources = dataclasses.field(default_factory=dict)  # of its own cell or task, and of its data

    @property
    def model(self) -> SequenceModel:
        """The model with its trained parameters, without dropout."""
        return self.train.model(self.params)

    @property
    def steps(self) -> int:
        """How many steps it was trained for so far."""
        return self.metrics[-1]["step"] if self.metrics else 0

    def evaluate(
        self,
        split: str = "test",
        seq_len: int | None = None,
        *,
        batch_size: int | None = None,
        batches: int | None = None,
    ) -> dict[str, float]:
        """The loss and the task's metrics, means over `batches` fresh batches, the same at every call.

        With `stateful` and no `seq_len`, over as many windows that are read on from each other, as validation is.

        Args:
          split: train, validation or test.
          seq_len: the length of the sequences, whatever was trained on; by default what was.
          batch_size: by default 256, and fewer where `seq_len` is more than 256.
          batches: by default 4, and as many as make 1024 sequences where `batch_size` is left out.

        Raises ValueError for a split or a length that the task has not.
        """
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        for name, value in (("batch_size", batch_size), ("batches", batches)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value!r}; allowed: 1 or more")
        check_precision(self.config)
        return evaluate(self.train, self.params, split, seq_len, batch_size, batches)

    def report(self) -> Report | None:
        """What the task says of the model beside its score, such as a text that it writes; None if it says nothing."""
        check_precision(self.config)
        return outputs.task_report(self.config, self.train, self.params)

    def forecast(self, steps: int, path: str | os.PathLike | None = None) -> Forecast:
        """What the model expects of the `steps` after the end of the run's own data, or of those in the file `path`.

        Raises ValueError where the task forecasts nothing, and as it does for a file that it cannot go on from.
        """
        check_precision(self.config)
        if self.train.task.forecast is None:
            name = short_name(self.config.task)
            raise ValueError(f"task {name!r} forecasts nothing; allowed: a task with Task.forecast, such as 'series'")
        check_count("steps", steps)
        return self.train.task.forecast(self.train.model, self.params, steps, path)

    def write(
        self, prompt: str = "", length: int = 500, *, temperature: float = 0.7, top_p: float = 1.0, seed: int = 0
    ) -> str:
        """The prompt, and what the model writes after it, `length` characters or whatever else it was trained on.

        Nothing is written that stands for what the run's own text does not have. A model that attends sees as many of
        the last characters as it was trained on.

        Args:
          prompt: by default the beginning that the task names, if it does.
          temperature, top_p: see `rnnjax.tasks.generate`.
          seed: another one, another text.

        Raises ValueError where the task has no text or the prompt is empty, and as `generate` does.
        """
        check_precision(self.config)
        codec = self.train.task.codec
        if codec is None:
            name = short_name(self.config.task)
            raise ValueError(f"task {name!r} has no text to write; allowed: a task with Task.codec, such as 'text'")
        prompt = prompt or codec.start
        ids = np.asarray(codec.encode(prompt))
        if not ids.size:
            raise ValueError(f"prompt={prompt!r} has nothing to go on from; allowed: one character or more")
        how = {"context": self.config.seq_len, "top_p": top_p, "forbidden": codec.unknown}

        def write(params, key):
            return generate(self.train.model(params), ids, length, key, temperature, **how)

        return prompt + codec.decode(np.asarray(jax.jit(write)(self.params, purpose_key(Purpose.WRITING, seed))))

    def resume(self, steps: int | None = None, **how: Any) -> "TrainedRun":
        """The run after `steps` more training steps, or at the end that its config says; in its directory, if any.

        More steps with a constant learning rate are those of a run that was longer from the start, bit for bit.

        Args:
          how: `progress`, `stop` and `save_seconds` of `fit`, and in a directory `accept_changes` and `shards`.

        Raises ValueError where it cannot go on: a schedule that has ended, a run that diverged, a trial of a sweep.
        """
        from rnnjax.training.fit import Begun, fit, run_info, train_on  # which are made of this

        config = self.config
        if steps is not None:
            if steps < 1:
                raise ValueError(f"steps={steps!r}; allowed: 1 or more")
            config = checked(dataclasses.replace(config, steps=self.steps + steps))
        self._check_resumable(config)
        check_precision(config)
        if self.workdir is not None:
            if config != self.config:
                settings, sources = outputs.config_dict(self.config), outputs.sources(config)
                info = run_info(config, self.workdir, how.get("shards", 0))
                with runs.open_run(self.workdir, settings, info, sources, how.get("accept_changes", False)):
                    pass  # what is refused is refused before the run loses its end
                runs.lengthen_run(self.workdir, settings, outputs.config_dict(config))
            return fit(config, self.workdir, **how)
        now = outputs.sources(config)
        if changed := changed_sources(source_record(self.sources), source_record(now)):
            raise BadSetting(f"{'; '.join(changed)}; allowed: fit, from the start")
        flow = outputs.unstack_rows(self.gradient_flow)
        begun = Begun(self.state, list(self.metrics), flow, self.seconds)
        return train_on(config, traced_run(config, self.shards), self.shards, begun, **how)

    def save(self, path: str | os.PathLike) -> Path:
        """Writes a run directory, as training with `workdir=path` leaves it; `load` reads it. Returns its path.

        Raises RunRefused for a directory that is not new or empty.
        """
        path = runs.check_directory(path)
        if path.exists() and any(path.iterdir()):
            raise runs.RunRefused(f"{path} is not empty; give a directory that is new")
        info = device_info()
        info["numbers"]["shards"] = self.shards
        with runs.open_run(path, outputs.config_dict(self.config), info, self.sources) as run:
            runs.append_rows(run, self.metrics)
            if self.gradient_flow:
                runs.save_arrays(run.path / "gradient_flow.npz", self.gradient_flow)
            if self.state is not None:
                runs.save_checkpoint(run, self.steps, (self.state, jnp.float32(self.seconds)))
            if self.result is not None:
                trained = self.config, self.train, self.params
                outputs.write_trained(run, *trained, self.gradient_flow, self.seconds, self.result.get("stopped"))
                outputs.complete_result(run, *trained, figures=True)
        return path

    def __repr__(self) -> str:
        return f"<TrainedRun {', '.join(f'{name} {value}' for name, value in self._facts().items())}>"

    def _repr_html_(self) -> str:
        cells = "".join(f"<tr><th>{name}</th><td>{html.escape(v)}</td></tr>" for name, v in self._facts().items())
        return f"<div><table>{cells}</table>{self._curve()}</div>"

    def _facts(self):
        """What to know of a run at first sight, as text by name."""
        config, task, changed = self.config, self.train.task, changed_settings(self.config)
        changed = [f"{name}={value}" for name, value in changed.items() if name not in ("cell", "task", "steps")]
        named = {kind: short_name(getattr(config, kind)) for kind in ("cell", "task")}
        facts = named | {"settings": " ".join(changed) or "defaults"}
        facts["steps"] = f"{self.steps} of {config.steps}"
        if self.metrics:
            row = self.metrics[-1]
            facts[f"validation {task.score}"] = f"{row[f'eval_{task.score}']:.4g} (without memory {task.baseline:.4g})"
            if row["diverged"] >= 0:
                facts["diverged"] = f"at step {row['diverged']}: {row['blame']} not finite"
        if self.result is not None and self.result["solved_at"] is not None:
            facts["solved"] = f"at step {self.result['solved_at']}"
        return facts | ({"directory": str(self.workdir)} if self.workdir is not None else {})

    def _curve(self):
        if not self.metrics:
            return ""
        task = self.train.task
        about = self.result or {"score_name": task.score, "higher_is_better": task.higher_is_better}
        data = RunData(
            self.workdir or Path("run"), flat_settings(self.config), self.metrics, self.gradient_flow, about, {}
        )
        file = io.BytesIO()
        plotting.learning_curve([data]).savefig(file, format="png")
        return f'<img alt="learning curve" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'

    def _check_resumable(self, config):
        if self.state is None:
            raise BadSetting(f"{self.workdir} keeps no state to go on from, as it is a trial of a sweep; allowed: fit")
        if self.metrics and self.metrics[-1]["diverged"] >= 0:
            raise BadSetting(f"the run diverged at step {self.metrics[-1]['diverged']} and is frozen there")
        if config.steps != self.config.steps and config.curriculum:
            raise BadSetting(
                f"curriculum={config.curriculum!r} is a fraction of {self.config.steps} steps in all; allowed: "
                "curriculum=0.0, or no `steps`, to end as planned"
            )
        if config.steps != self.config.steps and config.schedule != "constant":
            raise BadSetting(
                f"schedule={config.schedule!r} is for {self.config.steps} steps in all; allowed: schedule='constant', "
                "or no `steps`, to end as planned"
            )


def check_count(name: str, value: object) -> None:
    """Raises ValueError unless the value is an integer of 1 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r}; allowed: an integer, 1 or more")


def load(workdir: str | os.PathLike, own_file: str | os.PathLike | None = None) -> TrainedRun:
    """The run in a directory, finished or under way. Nothing in it is executed or written.

    Args:
      workdir: the run's.
      own_file: where the file of its own cell or task is now, if no longer where it was. It is run, as the other would
        be, if it has the text that the run was made with.

    Raises RunRefused, a ValueError, in one line that names the file, where it is damaged or no run, or where its cell
    or task is a user's own that is not there or has changed; ValueError where JAX's float64 mode is not the run's.
    """
    if not Path(workdir, "config.json").is_file():
        raise runs.RunRefused(f"{workdir} is no run directory: it has no config.json")
    return read_trained(workdir, checked(outputs.trained_config(workdir, own_file)))


def read_trained(workdir: str | os.PathLike, config: Config) -> TrainedRun:
    """The run of `config` in a directory, whatever its sources are now."""
    path, train = Path(workdir), make_train(config)
    like = jax.eval_shape(train.init, *run_inputs(config))
    found = runs.read_checkpoint(path, (like, jnp.float32(0)))
    result, rows = runs.read_result(path), runs.read_rows(path)
    if result is None and found is None:
        raise runs.RunRefused(f"{path} holds neither a result nor a checkpoint yet")
    step, (state, seconds) = found or (rows[-1]["step"], (None, result["seconds"]))
    flow_path = path / "gradient_flow.npz"
    flow = runs.load_arrays(flow_path) if flow_path.exists() else {}
    if result is None:  # what came after the checkpoint is not of its parameters
        rows = [row for row in rows if row["step"] <= step]
        flow = {name: array[flow["step"] <= step] for name, array in flow.items()}
        params = state.params
    else:
        params = jax.tree.map(jnp.asarray, runs.load_params(path, like.params))
        state = state if step == rows[-1]["step"] else None
    shards = runs.read_config(path).get("numbers", {}).get("shards", 1)
    sources = outputs.sources(config)
    return TrainedRun(config, train, params, rows, flow, result, path, state, float(seconds), shards, sources)
