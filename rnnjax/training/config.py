"""Every setting of a training run, documented where it is defined, and which of them a compiled program can vary."""

import dataclasses
import functools
import inspect
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

from rnnjax.cells import CELLS
from rnnjax.cells.wrappers import WRAPPERS
from rnnjax.engine.runners import METHODS
from rnnjax.nn.attention import LAYERS, Transformer
from rnnjax.nn.block_parts import PRESETS, BlockParts, inner_width
from rnnjax.tasks import TASKS
from rnnjax.training import blocking, own_files, wrapping
from rnnjax.training.options import REQUIRED, Option, Options, options_of
from rnnjax.training.parameter_groups import canonical_factors, canonical_names
from rnnjax.training.refusals import closest, nearest, one_of
from rnnjax.types import Array, Cell, Task

OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "exponential")
DTYPES = ("float32", "bfloat16", "float64")

Hyperparameters = dict[str, Array]  # the traced settings by name, such as lr and cell.gain: see `hyperparameters`


def _field(default, doc: str):
    return dataclasses.field(default=default, metadata={"doc": doc})


@dataclasses.dataclass(frozen=True)
class Config:
    """A training run: what every run has, and the options of its own cell and task.

    `Config(cell="lstm", cell_options={"peepholes": True})`; which options there are, says the cell's factory.
    """

    task: str = _field("adding", ", ".join(TASKS) + "; or FILE.py:NAME of your own")
    task_options: Mapping[str, Any] = _field(Options(), "of the task: see its factory")
    seq_len: int = _field(100, "T, the length of a sequence (copy: of the delay)")
    min_seq_len: int | None = _field(None, "draw each sequence's length from [min_seq_len, seq_len]")
    curriculum: float = _field(0.0, "fraction of the steps in which drawn lengths grow from min_seq_len to seq_len")
    eval_lengths: tuple[int, ...] = _field((), "lengths to score the trained model at, such as 100,200,400")

    cell: str = _field("lstm", ", ".join([*CELLS, *LAYERS]) + "; or FILE.py:NAME of your own")
    cell_options: Mapping[str, Any] = _field(Options(), "of the cell: see its factory")
    wrap: str = _field("", "what is put around the cell, such as zoneout:0.1,layernorm: " + ", ".join(WRAPPERS))
    block: str = _field(
        "",
        "what stands around each recurrence, such as norm,conv:4,gate,mlp:2, or a paper's: " + ", ".join(PRESETS),
    )
    hidden_size: int = _field(128, "H, units a layer; with a block, the width of the model")
    num_layers: int = _field(1, "L, stacked layers")
    bidirectional: bool = _field(False, "run each layer in both directions and concatenate")
    residual: bool = _field(False, "add each layer's input to its output where widths agree")
    dropout: float = _field(0.0, "probability of dropping a unit between layers")
    embedding_size: int | None = _field(
        None, "width of the encoder; tokens and blocks default to hidden_size, reals to none"
    )

    optimizer: str = _field("adam", ", ".join(OPTIMIZERS))
    lr: float = _field(1e-3, "learning rate [traced]")
    lr_of: str = _field("", "factors of the lr of parameters by name, such as W_h:0.1,theta:0.1")
    schedule: str = _field("constant", "of the learning rate: " + ", ".join(SCHEDULES))
    final_lr: float = _field(0.1, "where cosine and exponential end, as a fraction of lr")
    momentum: float = _field(0.9, "of momentum and rmsprop's decay")
    weight_decay: float = _field(0.0, "decoupled in adamw, L2 elsewhere [traced]")
    no_decay: str = _field("", "parameters without weight decay, by name, such as b,theta")
    clip: float = _field(1.0, "largest global norm of the gradient; 0 does not clip [traced]")
    gradient: str = _field("bptt", "of the recurrence: bptt, tbptt:K, rtrl, snap1 or uoro")
    cotangent_clip: float = _field(0.0, "largest |dL/dh_t| passed on from step to step; 0 does not clip")
    omega: float = _field(0.0, "weight of Pascanu's regulariser (2013): errors keep their norm on the way back")
    flossing: float = _field(0.0, "weight of gradient flossing (Engelken 2023): Lyapunov exponents near zero")
    orthogonality: float = _field(0.0, "weight of |W^T W - I|^2 of the matrices that the state is multiplied by")
    jacobian: float = _field(0.0, "weight of (|J_t v| - 1)^2 for random v: steps keep lengths")
    batch_size: int = _field(32, "B, sequences a step")
    steps: int = _field(5000, "training steps")
    eval_every: int = _field(250, "steps between evaluations, compiled as one scan")
    eval_batch: int = _field(512, "validation sequences an evaluation, the same each time")
    stateful: bool = _field(False, "read on where the last batch ended and keep the state, for tasks with a stream")
    gradient_flow: bool = _field(True, "record |dL/dh_t| for every t while training")
    seed: int = _field(0, "of data, initial weights and dropout [traced]")

    dtype: str = _field("float32", "what to compute in: " + ", ".join(DTYPES))
    method: str = _field("auto", "how to differentiate time: " + ", ".join(METHODS))
    segments: int | str = _field(1, "pieces of time that are run again in the backward pass, to save memory; or auto")

    def __post_init__(self):
        if isinstance(self.eval_lengths, list):  # as JSON has it
            object.__setattr__(self, "eval_lengths", tuple(self.eval_lengths))
        if isinstance(self.wrap, str):
            object.__setattr__(self, "wrap", wrapping.canonical(self.wrap))
        if isinstance(self.block, str):
            object.__setattr__(self, "block", blocking.canonical(self.block))
        for name, canonical in (("lr_of", canonical_factors), ("no_decay", canonical_names)):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, canonical(getattr(self, name)))
        for kind, table in OWNERS.items():
            if isinstance(own := getattr(self, kind), str) and own not in table:
                object.__setattr__(self, kind, own_files.full_name(own))
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
OWNERS: dict[str, Mapping[str, Callable[..., Any]]] = {"cell": ChainMap(LAYERS, CELLS), "task": TASKS}
FIELDS = {f.name: f for f in dataclasses.fields(Config) if f.name not in ("cell_options", "task_options")}
setattr(Config, "__init__", _known_names_only(Config.__init__))  # noqa: B010
DEFAULTS = Config()
TRACED = ("seed", "lr", "weight_decay", "clip")
"""Fields that one compiled program can vary from lane to lane, as it can a cell's options that are `traced`."""


def make_task(config: Config) -> Task:
    """The `Task` that the config names."""
    task = _call("task", config, (config.seq_len,), task_arguments(config))
    if not isinstance(task, Task):
        raise ValueError(f"task {config.task!r} returns {type(task).__name__}; allowed: a Task, see rnnjax.types")
    return task


def task_arguments(config: Config) -> dict[str, Any]:
    """The arguments of the task's factory besides seq_len."""
    lowest = {} if config.min_seq_len is None else {"min_seq_len": config.min_seq_len}
    return dict(config.task_options) | lowest


def make_cell(config: Config, **traced: Any) -> Cell | Transformer:
    """The `Cell` in its wrappers, or the layer that attends, of the config.

    traced: options of the cell instead of the config's; they may hold tracers.
    """
    parts, H = make_parts(config), config.hidden_size
    width = H if parts is None else inner_width(parts, H)
    cell = _call("cell", config, (width,), dict(config.cell_options) | traced)
    if not config.wrap or not isinstance(cell, Cell):
        return cell
    return wrapping.wrapped(cell, config.wrap) if traced else wrapping.wrapped_once(cell, config.wrap)


def make_parts(config: Config) -> BlockParts | None:
    """The parts of the block around each cell of the config; None without one."""
    return blocking.parts_of(config.block)


def factory_of(config: Config, kind: str) -> Callable:
    """The factory of the config's "cell" or "task". Raises ValueError for a name that is in no table and no file."""
    name, table = getattr(config, kind), OWNERS[kind]
    if name not in table and own_files.is_own(name):
        return own_files.find(kind, name)
    one_of(kind, name, [*table, "FILE.py:NAME"])
    return table[name]


def known_options(config: Config, kind: str) -> dict[str, Option]:
    """The options that the config's "cell" or "task" has, by name; none of a name that is in no table.

    Raises BadSetting where it is in a file, and cannot be found there.
    """
    name = getattr(config, kind)
    is_known = name in OWNERS[kind] or own_files.is_own(name)
    return options_of(factory_of(config, kind)) if is_known else {}


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
    close = closest(name, [*dotted, *FIELDS])
    if close in dotted and close not in FIELDS:
        kind = dotted[close].partition(".")[0]
        spelled = f"{kind}_options={{{close!r}: ...}}"
        return f"unknown setting config.{name}; did you mean {dotted[close]!r}, that is {spelled}?"
    return f"unknown setting config.{name}" + (nearest(name, FIELDS) or f"; settings: {', '.join(FIELDS)}")


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
