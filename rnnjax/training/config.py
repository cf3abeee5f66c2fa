"""Every setting of a training run, documented where it is defined, and which of them a compiled program can vary."""

import dataclasses
import difflib
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from rnnjax.cells import CELLS
from rnnjax.cells.check import check_cell
from rnnjax.engine.unroll import METHODS
from rnnjax.gradients.methods import check_gradient
from rnnjax.gradients.penalties import PENALTIES, orthogonal
from rnnjax.tasks import TASKS, check_causal
from rnnjax.training.options import REQUIRED, Option, Options, options_of
from rnnjax.types import Cell, Gates, Task

OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "exponential")
DTYPES = ("float32", "bfloat16", "float64")


def _field(default, doc: str):
    return dataclasses.field(default=default, metadata={"doc": doc})


@dataclasses.dataclass(frozen=True)
class Config:
    """A training run: what every run has, and the options of its own cell and task.

    `Config(cell="lstm", cell_options={"peepholes": True})`; which options there are, says the cell's factory.
    """

    task: str = _field("adding", "a name in TASKS: " + ", ".join(TASKS))
    task_options: Mapping[str, Any] = _field(Options(), "of the task: see its factory")
    seq_len: int = _field(100, "T, the length of a sequence (copy: of the delay)")
    min_seq_len: int | None = _field(None, "draw each sequence's length from [min_seq_len, seq_len]")

    cell: str = _field("lstm", "a name in CELLS: " + ", ".join(CELLS))
    cell_options: Mapping[str, Any] = _field(Options(), "of the cell: see its factory")
    hidden_size: int = _field(128, "H, units a layer")
    num_layers: int = _field(1, "L, stacked layers")
    bidirectional: bool = _field(False, "run each layer in both directions and concatenate")
    residual: bool = _field(False, "add each layer's input to its output where widths agree")
    dropout: float = _field(0.0, "probability of dropping a unit between layers")
    embedding_size: int | None = _field(None, "width of the encoder; tokens default to hidden_size, reals to none")

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

    def __post_init__(self):
        for kind in OWNERS:
            name = f"{kind}_options"
            try:
                object.__setattr__(self, name, Options(getattr(self, name)))
            except (TypeError, ValueError):
                raise TypeError(f"{name}={getattr(self, name)!r}; allowed: a dict of options by name") from None


def _known_names_only(init):
    """The dataclass's own `__init__`, which says of a name that it does not know where that may be set."""

    @functools.wraps(init)
    def checked_init(self, *args, **settings):
        for name in settings:
            if name not in Config.__dataclass_fields__:
                raise TypeError(unknown_setting(name))
        init(self, *args, **settings)

    return checked_init


# What has options of its own, and the table of all there are.
OWNERS: dict[str, dict[str, Callable[..., Any]]] = {"cell": CELLS, "task": TASKS}
FIELDS = {f.name: f for f in dataclasses.fields(Config) if f.name not in ("cell_options", "task_options")}
setattr(Config, "__init__", _known_names_only(Config.__init__))  # noqa: B010
DEFAULTS = Config()
ALLOWED = {bool: "true or false", int: "an integer", float: "a number", str: "a string", types.NoneType: "none"}
COUNTS = ("seq_len", "hidden_size", "num_layers", "batch_size", "steps", "eval_every", "eval_batch", "segments")
TINY, HUGE, IN_FLOAT32 = 2.0**-126, (2 - 2.0**-23) * 2.0**127, "as float32 holds them (1.2e-38 to 3.4e38)"

_ONLINE = lambda gradient: gradient in ("rtrl", "snap1", "uoro")  # noqa: E731
IDLE = (  # a setting, the other one that makes it idle, at which of that one's values, and what that one must be
    ("momentum", "optimizer", lambda v: v not in ("momentum", "rmsprop"), "momentum or rmsprop"),
    ("final_lr", "schedule", lambda v: v == "constant", "cosine or exponential"),
    ("dropout", "num_layers", lambda v: v == 1, "2 or more"),
    ("method", "gradient", _ONLINE, "bptt or tbptt:K"),
    ("segments", "gradient", _ONLINE, "bptt or tbptt:K"),
    ("cotangent_clip", "gradient", _ONLINE, "bptt or tbptt:K"),
)
"""Refused once changed from its default, as a sweep over it would run equal trials."""

TRACED = ("seed", "lr", "weight_decay", "clip")
"""Fields that one compiled program can vary from lane to lane, as it can a cell's options that are `traced`."""


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
    if config.embedding_size is not None:
        _require(config, "embedding_size", lambda v: 1 <= v < 2**31, "1 or more, below 2^31")
    if config.min_seq_len is not None:
        _require(config, "min_seq_len", lambda v: 1 <= v <= config.seq_len, f"in [1, seq_len={config.seq_len}]")
    for kind in OWNERS:
        _check_options(kind, config)
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
    has_gates = _has_gates(factory_of(config, "cell"), dataclasses.replace(config, seed=0, lr=1.0), width)
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
    return _call("task", config, (config.seq_len,), task_arguments(config))


def task_arguments(config: Config) -> dict[str, Any]:
    """The arguments of the task's factory besides seq_len."""
    lowest = {} if config.min_seq_len is None else {"min_seq_len": config.min_seq_len}
    return dict(config.task_options) | lowest


def make_cell(config: Config, **traced: Any) -> Cell:
    """The `Cell` that the config names; `traced` overrides its options, and may hold tracers."""
    return _call("cell", config, (config.hidden_size,), dict(config.cell_options) | traced)


def factory_of(config: Config, kind: str) -> Callable:
    """The factory of the config's "cell" or "task". Raises ValueError for a name that is not in the table."""
    name, table = getattr(config, kind), OWNERS[kind]
    _one_of(kind, name, table)
    return table[name]


def known_options(config: Config, kind: str) -> dict[str, Option]:
    """The options that the config's "cell" or "task" has, by name; none of one that is not in the table."""
    name = getattr(config, kind)
    return options_of(OWNERS[kind][name]) if name in OWNERS[kind] else {}


def resolved_options(config: Config, kind: str) -> dict[str, Any]:
    """All options of the config's "cell" or "task" as they are given or, the others, by default."""
    defaults = {name: option.default for name, option in known_options(config, kind).items()}
    given = getattr(config, f"{kind}_options")
    return {name: value for name, value in (defaults | given).items() if value is not REQUIRED}


def traced_options(config: Config) -> dict[str, float]:
    """Those options of the cell that one compiled program can vary, and are not None."""
    known = known_options(config, "cell")
    values = resolved_options(config, "cell")
    return {n: float(v) for n, v in values.items() if n in known and known[n].traced and v is not None}


def hyperparameters(config: Config) -> dict[str, float]:
    """The traced settings that training uses, by name, such as `lr` and `cell.gain`; without the seed."""
    values = {name: float(getattr(config, name)) for name in TRACED if name != "seed"}
    return values | {f"cell.{name}": value for name, value in traced_options(config).items()}


def unknown_setting(name: str, config: Config | None = None) -> str:
    """That there is no such setting, and which one may be meant: a field, or an option of the config's cell or task."""
    config = config or DEFAULTS
    kind, dot, option = name.partition(".")
    if dot and kind in OWNERS:
        known = known_options(config, kind)
        hint = nearest(option, known) or f"; options: {', '.join(known) or 'none'}"
        others = [other for other, factory in OWNERS[kind].items() if option in options_of(factory)]
        hint += f" ({option!r} is one of {', '.join(others)})" if others else ""
        return f"{kind} {getattr(config, kind)!r} has no option {option!r}{hint}"
    dotted = {n: f"{kind}.{n}" for kind in OWNERS for factory in OWNERS[kind].values() for n in options_of(factory)}
    close = _closest(name, [*dotted, *FIELDS])
    if close in dotted and close not in FIELDS:
        kind = dotted[close].partition(".")[0]
        spelled = f"{kind}_options={{{close!r}: ...}}"
        return f"unknown setting config.{name}; did you mean {dotted[close]!r}, that is {spelled}?"
    return f"unknown setting config.{name}" + (nearest(name, FIELDS) or f"; settings: {', '.join(FIELDS)}")


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'lstm'?` where a name is close to `name` but for its case, else nothing."""
    close = _closest(name, names)
    return f"; did you mean {close!r}?" if close else ""


def _closest(name, names):
    lower = {other.lower(): other for other in names}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return lower[close[0]] if close else None


@functools.lru_cache(maxsize=1024)
def _has_gates(factory, config, width):
    """Whether the cell has gates. Raises ValueError where the cell breaks a promise of `Cell`."""
    cell = make_cell(config)
    try:
        check_cell(cell, width)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cell {config.cell!r}: {error}") from error
    return isinstance(cell.form, Gates)


def _check_options(kind, config):
    """Raises ValueError for an option that the factory has not, of another type, or that float32 does not hold."""
    factory_of(config, kind)
    known = known_options(config, kind)
    for name, value in getattr(config, f"{kind}_options").items():
        if name not in known:
            raise ValueError(unknown_setting(f"{kind}.{name}", config))
        option = known[name]
        if option.choices and value is not None:
            _one_of(f"{kind}.{name}", value, option.choices)
        if type(value) not in option.kinds and not (float in option.kinds and type(value) is int):
            raise ValueError(f"{kind}.{name}={value!r}: allowed: {kinds_in_words(option.kinds)}")
        if kind == "cell" and option.traced and value is not None and value and not TINY <= abs(value) <= HUGE:
            raise ValueError(f"{kind}.{name}={value!r}; allowed: 0, or a finite number, {IN_FLOAT32}")


def kinds_in_words(kinds: tuple[type, ...]) -> str:
    """What kinds of value a setting takes, in words."""
    return " or ".join(ALLOWED[kind] for kind in reversed(kinds))


def _call(kind, config, args, options):
    name, factory = getattr(config, kind), factory_of(config, kind)
    try:
        if "min_seq_len" in options and "min_seq_len" not in inspect.signature(factory).parameters:
            raise ValueError(f"min_seq_len={options['min_seq_len']!r} does not apply to {kind} {name!r}")
        return factory(*args, **options)
    except (ValueError, OSError):
        raise  # a line of its own
    except Exception as error:  # whatever a user's factory may raise
        raise ValueError(f"{kind} {name!r} raises {type(error).__name__}: {error}") from error


def _one_of(name, value, allowed):
    if value not in allowed:
        hint = nearest(str(value), allowed) or ";"
        raise ValueError(f"unknown {name} {value!r}{hint} allowed: {', '.join(allowed)}")


def _require(config, name, test, allowed):
    value = getattr(config, name)
    if not test(value):
        raise ValueError(f"{name}={value!r}; allowed: {allowed}")
