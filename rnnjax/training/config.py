"""Every setting of a training run, documented where it is defined, and which of them a compiled program can vary."""

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Iterable
from typing import Any

import jax

from rnnjax.cells import CELLS
from rnnjax.cells.check import check_cell
from rnnjax.gradients.methods import check_gradient
from rnnjax.gradients.penalties import orthogonal
from rnnjax.tasks import TASKS, check_causal
from rnnjax.types import Cell, Gates, Task

OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "exponential")
DTYPES = ("float32", "bfloat16", "float64")
METHODS = ("auto", "scan", "deferred")
PENALTIES = ("omega", "flossing", "orthogonality", "jacobian")  # added to the loss, each with its weight


def _field(default, doc: str):
    return dataclasses.field(default=default, metadata={"doc": doc})


@dataclasses.dataclass(frozen=True)
class Config:
    """A training run. `None` leaves a cell's own default."""

    task: str = _field("adding", "a name in TASKS: " + ", ".join(TASKS))
    variant: str | None = _field(None, "adding: arjovsky, pascanu, hochreiter; copy: arjovsky, recall")
    seq_len: int = _field(100, "T, the length of a sequence (copy: of the delay)")
    min_seq_len: int | None = _field(None, "draw each sequence's length from [min_seq_len, seq_len]")
    text_path: str | None = _field(None, "text: a UTF-8 file; by default the prose in Python's own library")

    cell: str = _field("lstm", "a name in CELLS: " + ", ".join(CELLS))
    hidden_size: int = _field(128, "H, units a layer")
    num_layers: int = _field(1, "L, stacked layers")
    bidirectional: bool = _field(False, "run each layer in both directions and concatenate")
    residual: bool = _field(False, "add each layer's input to its output where widths agree")
    dropout: float = _field(0.0, "probability of dropping a unit between layers")
    embedding_size: int | None = _field(None, "width of the encoder; tokens default to hidden_size, reals to none")
    activation: str | None = _field(None, "rnn: tanh, relu or sigmoid")
    peepholes: bool | None = _field(None, "lstm: gates see the memory")
    coupled: bool | None = _field(None, "lstm: the input gate is one minus the forget gate")
    chrono: bool = _field(False, "lstm: chrono initialisation with T_max = seq_len")
    gain: float | None = _field(None, "scale of the recurrent matrix at the start [traced]")
    forget_bias: float | None = _field(None, "bias of the forget gate at the start [traced]")

    optimizer: str = _field("adam", ", ".join(OPTIMIZERS))
    lr: float = _field(1e-3, "learning rate [traced]")
    schedule: str = _field("constant", "of the learning rate: " + ", ".join(SCHEDULES))
    final_lr: float = _field(0.1, "where cosine and exponential end, as a fraction of lr")
    momentum: float = _field(0.9, "of momentum and rmsprop's decay")
    weight_decay: float = _field(0.0, "decoupled in adamw, L2 elsewhere [traced]")
    clip: float = _field(1.0, "largest global norm of the gradient; 0 does not clip [traced]")
    gradient: str = _field("bptt", "of the recurrence: bptt, tbptt:K, rtrl, snap1 or uoro")
    cotangent_clip: float = _field(0.0, "largest |dL/dh_t| passed on from step to step; 0 does not clip")
    omega: float = _field(0.0, "weight of Pascanu's regulariser (2013): errors keep their norm on the way back")
    flossing: float = _field(0.0, "weight of gradient flossing (Engelken 2023): Lyapunov exponents near zero")
    orthogonality: float = _field(0.0, "weight of |W_h^T W_h - I|^2")
    jacobian: float = _field(0.0, "weight of (|J_t v| - 1)^2 for random v: steps keep lengths")
    batch_size: int = _field(32, "B, sequences a step")
    steps: int = _field(5000, "training steps")
    eval_every: int = _field(250, "steps between evaluations, compiled as one scan")
    eval_batch: int = _field(512, "validation sequences an evaluation, the same each time")
    gradient_flow: bool = _field(True, "record |dL/dh_t| for every t while training")
    seed: int = _field(0, "of data, initial weights and dropout [traced]")

    dtype: str = _field("float32", "what to compute in: " + ", ".join(DTYPES))
    method: str = _field("auto", "how to differentiate time: " + ", ".join(METHODS))
    segments: int = _field(1, "pieces of time that are run again in the backward pass, to save memory")


DEFAULTS = Config()
COUNTS = ("seq_len", "hidden_size", "num_layers", "batch_size", "steps", "eval_every", "eval_batch", "segments")
TINY, HUGE, IN_FLOAT32 = 2.0**-126, (2 - 2.0**-23) * 2.0**127, "as float32 holds them (1.2e-38 to 3.4e38)"

_ONLINE = lambda gradient: gradient in ("rtrl", "snap1", "uoro")  # noqa: E731
IDLE = (  # a setting, the other one that makes it idle, at which of that one's values, and what that one must be
    ("momentum", "optimizer", lambda v: v not in ("momentum", "rmsprop"), "momentum or rmsprop"),
    ("final_lr", "schedule", lambda v: v == "constant", "cosine or exponential"),
    ("forget_bias", "chrono", lambda v: v, "False"),
    ("dropout", "num_layers", lambda v: v == 1, "2 or more"),
    ("method", "gradient", _ONLINE, "bptt or tbptt:K"),
    ("segments", "gradient", _ONLINE, "bptt or tbptt:K"),
    ("cotangent_clip", "gradient", _ONLINE, "bptt or tbptt:K"),
)
"""Refused once changed from its default, as a sweep over it would run equal trials."""

TRACED = ("seed", "lr", "weight_decay", "clip", "gain", "forget_bias")
"""Fields that one compiled program can vary from lane to lane; all others are part of the program."""


def check(config: Config) -> None:
    """Raises ValueError with one line that names the field, its value and what is allowed."""
    _one_of("task", config.task, TASKS)
    _one_of("cell", config.cell, CELLS)
    _one_of("optimizer", config.optimizer, OPTIMIZERS)
    _one_of("schedule", config.schedule, SCHEDULES)
    _one_of("dtype", config.dtype, DTYPES)
    _one_of("method", config.method, METHODS)
    for name in COUNTS:
        _require(config, name, lambda v: 1 <= v < 2**31, "1 or more, below 2^31")
    for name in ("lr", "final_lr"):
        _require(config, name, lambda v: TINY <= v <= HUGE, f"a finite number above 0, {IN_FLOAT32}")
    for name in ("weight_decay", "clip", "cotangent_clip", *PENALTIES):
        _require(config, name, lambda v: v == 0 or TINY <= v <= HUGE, f"0, or a finite number above, {IN_FLOAT32}")
    for name in ("dropout", "momentum"):
        _require(config, name, lambda v: 0 <= v < 1, "in [0, 1)")
    _require(config, "seed", lambda v: 0 <= v < 2**32, "in [0, 2^32)")
    for name in ("gain", "forget_bias"):
        if getattr(config, name) is not None:
            _require(config, name, lambda v: v == 0 or TINY <= abs(v) <= HUGE, f"0, or a finite number, {IN_FLOAT32}")
    if config.embedding_size is not None:
        _require(config, "embedding_size", lambda v: 1 <= v < 2**31, "1 or more, below 2^31")
    if config.min_seq_len is not None:
        _require(config, "min_seq_len", lambda v: 1 <= v <= config.seq_len, f"in [1, seq_len={config.seq_len}]")
    changed = [name for name in PENALTIES if getattr(config, name)]
    if config.bidirectional and changed:
        raise ValueError(f"{changed[0]}={getattr(config, changed[0])!r} reads forwards; allowed: bidirectional=False")
    for setting, other, idle, allowed in IDLE:
        if getattr(config, setting) != getattr(DEFAULTS, setting) and idle(getattr(config, other)):
            raise ValueError(
                f"{setting}={getattr(config, setting)!r} changes nothing with {other}={getattr(config, other)!r}; "
                f"allowed: {other}={allowed}, or no {setting}"
            )
    task = make_task(config)  # a task knows what lengths it can have
    check_causal(task, config.task, bidirectional=config.bidirectional)
    width = config.embedding_size or (config.hidden_size if task.tokens else task.input_size)
    has_gates = _has_gates(CELLS[config.cell], dataclasses.replace(config, seed=0, lr=1.0), width)
    if config.method == "deferred" and (not has_gates or config.cotangent_clip):
        why = "cotangent_clip changes each step" if has_gates else f"cell {config.cell!r} has no gates"
        raise ValueError(f"method='deferred' is not for this run, as {why}; allowed: auto, scan")
    if config.residual and config.num_layers == 1 and width != config.hidden_size * (1 + config.bidirectional):
        raise ValueError(
            f"residual=True changes nothing with num_layers=1 and inputs {width} wide; allowed: num_layers of 2 or more"
        )
    options = {name: getattr(config, name) for name in ("method", "segments", "cotangent_clip", "bidirectional")}
    check_gradient(config.gradient, **options)
    if config.orthogonality:
        cell = make_cell(config)
        jax.eval_shape(lambda key: orthogonal(cell, cell.init(key, 1)), jax.random.key(0))  # which matrices it has


def make_task(config: Config) -> Task:
    """The `Task` that the config names."""
    return _call("task", TASKS[config.task], config.task, (config.seq_len,), task_options(config))


def task_options(config: Config) -> dict:
    """The arguments of the task's factory besides seq_len."""
    options = {"variant": config.variant, "min_seq_len": config.min_seq_len, "path": config.text_path}
    return {name: value for name, value in options.items() if value is not None}


def make_cell(config: Config, **traced: Any) -> Cell:
    """The `Cell` that the config names; `traced` overrides `gain` and `forget_bias`, and may hold tracers."""
    names = ("activation", "peepholes", "coupled", "gain", "forget_bias")
    options = {name: getattr(config, name) for name in names} | traced
    options["chrono_t_max"] = float(max(config.seq_len, 3)) if config.chrono else None
    options = {name: value for name, value in options.items() if value is not None}
    return _call("cell", CELLS[config.cell], config.cell, (config.hidden_size,), options)


def hyperparameters(config: Config) -> dict[str, float]:
    """The traced settings that training uses, by name: those of TRACED that are set, without the seed."""
    values = {name: getattr(config, name) for name in TRACED if name != "seed"}
    return {name: float(value) for name, value in values.items() if value is not None}


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'lstm'?` where a name is close to `name` but for its case, else nothing."""
    lower = {other.lower(): other for other in names}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return f"; did you mean {lower[close[0]]!r}?" if close else ""


@functools.lru_cache(maxsize=1024)
def _has_gates(factory, config, width):
    """Whether the cell has gates. Raises ValueError where the cell breaks a promise of `Cell`."""
    cell = make_cell(config)
    try:
        check_cell(cell, width)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cell {config.cell!r}: {error}") from error
    return isinstance(cell.form, Gates)


def _call(kind, factory, name, args, options):
    try:
        known = inspect.signature(factory).parameters
        unknown = [option for option in options if option not in known]
        if not unknown:
            return factory(*args, **options)
    except (ValueError, OSError):
        raise  # a line of its own
    except Exception as error:  # whatever a user's factory may raise
        raise ValueError(f"{kind} {name!r} raises {type(error).__name__}: {error}") from error
    spelled = {"path": "text_path", "chrono_t_max": "chrono"}.get(unknown[0], unknown[0])
    raise ValueError(f"{spelled}={options[unknown[0]]!r} does not apply to {name!r}")


def _one_of(name, value, allowed):
    if value not in allowed:
        hint = nearest(str(value), allowed) or ";"
        raise ValueError(f"unknown {name} {value!r}{hint} allowed: {', '.join(allowed)}")


def _require(config, name, test, allowed):
    value = getattr(config, name)
    if not test(value):
        raise ValueError(f"{name}={value!r}; allowed: {allowed}")
