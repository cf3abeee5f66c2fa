"""Whether the settings of a run go together: one line for each that cannot be."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from rnnjax.cells.check import check_cell, draws_noise
from rnnjax.engine.runners import check_method
from rnnjax.gradients.methods import check_gradient
from rnnjax.gradients.penalties import PENALTIES, orthogonal
from rnnjax.nn.attention import OF_A_RECURRENCE, Transformer, check_plain
from rnnjax.nn.block_parts import check_parts, inner_width
from rnnjax.nn.rnn import shown_features
from rnnjax.tasks import check_causal
from rnnjax.training.config import (
    DEFAULTS,
    DTYPES,
    OPTIMIZERS,
    OWNERS,
    SCHEDULES,
    Config,
    factory_of,
    known_options,
    make_cell,
    make_parts,
    make_task,
    unknown_setting,
)
from rnnjax.training.curriculum import check_curriculum
from rnnjax.training.lengths import check_lengths
from rnnjax.training.model import encoder_width, make_model
from rnnjax.training.options import kinds_in_words
from rnnjax.training.parameter_groups import check_known, read_factors, read_names
from rnnjax.training.refusals import one_of
from rnnjax.training.stateful import check_stateful
from rnnjax.training.wrapping import read

COUNTS = ("seq_len", "hidden_size", "num_layers", "batch_size", "steps", "eval_every", "eval_batch")
TINY, HUGE, IN_FLOAT32 = 2.0**-126, (2 - 2.0**-23) * 2.0**127, "as float32 holds them (1.2e-38 to 3.4e38)"

_ONLINE = lambda gradient: gradient in ("rtrl", "snap1", "uoro")  # noqa: E731
IDLE = (  # a setting, the other one that makes it idle, at which of that one's values, and what that one must be
    ("momentum", "optimizer", lambda v: v not in ("momentum", "rmsprop"), "momentum or rmsprop"),
    ("final_lr", "schedule", lambda v: v == "constant", "cosine or exponential"),
    ("no_decay", "weight_decay", lambda v: v == 0, "above 0"),
    ("dropout", "num_layers", lambda v: v == 1, "2 or more"),
    ("method", "gradient", _ONLINE, "bptt or tbptt:K"),
    ("segments", "gradient", _ONLINE, "bptt or tbptt:K"),
    ("cotangent_clip", "gradient", _ONLINE, "bptt or tbptt:K"),
)
"""Refused once changed from its default, as a sweep over it would run equal trials."""


def check(config: Config) -> None:
    """Raises ValueError with one line that names the field, its value and what is allowed."""
    for kind in OWNERS:
        factory_of(config, kind)  # raises where there is none
    one_of("optimizer", config.optimizer, OPTIMIZERS)
    one_of("schedule", config.schedule, SCHEDULES)
    one_of("dtype", config.dtype, DTYPES)
    check_method(config.method)
    for name in COUNTS:
        _require(config, name, lambda v: 1 <= v < 2**31, "1 or more, below 2^31")
    _require(config, "segments", lambda v: v == "auto" or (type(v) is int and v >= 1), "auto, or 1 or more")
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
    read(config.wrap)  # raises where it cannot be
    _check_block(config)
    changed = [name for name in PENALTIES if getattr(config, name)]
    if config.bidirectional and changed:
        raise ValueError(f"{changed[0]}={getattr(config, changed[0])!r} reads forwards; allowed: bidirectional=False")
    for setting, other, idle, allowed in IDLE:
        if setting == "dropout" and config.block:  # it acts inside each layer
            continue
        if getattr(config, setting) != getattr(DEFAULTS, setting) and idle(getattr(config, other)):
            raise ValueError(
                f"{setting}={getattr(config, setting)!r} changes nothing with {other}={getattr(config, other)!r}; "
                f"allowed: {other}={allowed}, or no {setting}"
            )
    task = make_task(config)  # a task knows what lengths it can have
    check_causal(task, config.task, bidirectional=config.bidirectional)
    if config.stateful:
        check_stateful(task, config.task, bidirectional=config.bidirectional, min_seq_len=config.min_seq_len)
    check_curriculum(task, config)
    check_lengths(config)
    width = encoder_width(config, task) or task.input_size
    if isinstance(make_cell(config), Transformer):
        check_plain(**{name: getattr(config, name) for name in OF_A_RECURRENCE})
    else:
        _check_recurrence(config, width)
    _check_groups(config, task)


def _check_groups(config, task):
    """Raises ValueError for a name of `lr_of` or `no_decay` that the model has no parameter of."""
    groups = {"lr_of": read_factors(config.lr_of), "no_decay": read_names(config.no_decay)}
    if any(groups.values()):
        params = nnx.state(nnx.eval_shape(lambda: make_model(config, task, jax.random.key(0))), nnx.Param)
        for setting, names in groups.items():
            check_known(f"{setting}={getattr(config, setting)!r}", names, params)


def _check_recurrence(config, width):
    """Raises ValueError for a cell that breaks a promise, and for settings that do not go together with it."""
    parts = make_parts(config)
    if parts is not None and parts.up:
        width = inner_width(parts, config.hidden_size)
    noisy = _check_cell(factory_of(config, "cell"), dataclasses.replace(config, seed=0, lr=1.0), width)
    if parts is not None:
        _check_fit(config, parts, width)
    if config.residual and config.num_layers == 1 and width != config.hidden_size * (1 + config.bidirectional):
        raise ValueError(
            f"residual=True changes nothing with num_layers=1 and inputs {width} wide; allowed: num_layers of 2 or more"
        )
    options = {name: getattr(config, name) for name in ("method", "segments", "cotangent_clip", "bidirectional")}
    check_gradient(config.gradient, **options, noise=noisy)
    if config.orthogonality:
        cell = make_cell(config)
        inputs = jnp.zeros((1, 1))
        jax.eval_shape(lambda key: orthogonal(cell, cell.init(key, 1), inputs), jax.random.key(0))  # what it has


@functools.lru_cache(maxsize=1024)
def _check_cell(factory, config, width):
    """Whether the cell draws noise; ValueError where it breaks a promise of `Cell`, or cannot be run by the method."""
    cell = make_cell(config)
    try:
        check_cell(cell, width)
        check_method(config.method, cell)
        return draws_noise(cell, width)
    except (TypeError, ValueError) as error:
        within = f" in wrap={config.wrap!r}" if config.wrap else ""
        raise ValueError(f"cell {config.cell!r}{within}: {error}") from error


def _check_block(config):
    """Raises ValueError for a block that cannot be, and for what contradicts it."""
    if make_parts(config) is None:
        return
    if config.residual:
        raise ValueError(
            f"residual=True with block={config.block!r}, which adds each layer's input itself; allowed: one of them"
        )
    if config.embedding_size not in (None, config.hidden_size):
        raise ValueError(
            f"embedding_size={config.embedding_size} with block={config.block!r}: the model is hidden_size wide; "
            f"allowed: {config.hidden_size}, or none"
        )


def _check_fit(config, parts, width):
    """Raises ValueError where the parts of a block do not go with what its cell, of inputs so wide, shows."""
    try:
        check_parts(parts, config.hidden_size, shown_features(make_cell(config), width), config.bidirectional)
    except ValueError as error:
        raise ValueError(f"block={config.block!r}: {error}") from None


def _check_options(kind, config):
    """Raises ValueError for an option that the factory has not, of another type, or that float32 does not hold."""
    known = known_options(config, kind)
    for name, value in getattr(config, f"{kind}_options").items():
        if name not in known:
            raise ValueError(unknown_setting(f"{kind}.{name}", config))
        option = known[name]
        if option.choices and value is not None:
            one_of(f"{kind}.{name}", value, option.choices)
        if type(value) not in option.kinds and not (float in option.kinds and type(value) is int):
            raise ValueError(f"{kind}.{name}={value!r}: allowed: {kinds_in_words(option.kinds)}")
        if kind == "cell" and option.traced and value is not None and value and not TINY <= abs(value) <= HUGE:
            raise ValueError(f"{kind}.{name}={value!r}; allowed: 0, or a finite number, {IN_FLOAT32}")


def _require(config, name, test, allowed):
    value = getattr(config, name)
    if not test(value):
        raise ValueError(f"{name}={value!r}; allowed: {allowed}")
