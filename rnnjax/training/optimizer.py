"""What becomes of a gradient: it is clipped, and an optimiser makes an update of it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rnnjax.norms import scaled_norm
from rnnjax.training.config import Config, Hyperparameters
from rnnjax.training.parameter_groups import map_by_name, read_factors, read_names
from rnnjax.types import Array


def make_optimizer(config: Config, hyperparameters: Hyperparameters) -> optax.GradientTransformation:
    """The optax optimiser that `config` names, with learning rate and weight decay as they stand in
    `hyperparameters`, tracers allowed.

    Weight decay is decoupled for adamw (Loshchilov & Hutter 2019) and an L2 penalty's gradient elsewhere. An array
    without a gradient, such as a fixed reservoir, does not decay, nor does one of `config.no_decay`. `config.lr_of`
    multiplies the whole update of an array, decoupled decay included.
    """
    lr, decay = hyperparameters["lr"], hyperparameters["weight_decay"]

    def schedule(count):
        done = jnp.minimum(count / config.steps, 1.0)
        if config.schedule == "cosine":
            return lr * (config.final_lr + (1 - config.final_lr) * 0.5 * (1 + jnp.cos(jnp.pi * done)))
        if config.schedule == "exponential":
            return lr * config.final_lr**done
        return lr

    rescale = {
        "sgd": optax.identity(),
        "momentum": optax.trace(config.momentum),
        "rmsprop": optax.scale_by_rms(decay=config.momentum),
        "adam": optax.scale_by_adam(),
        "adamw": optax.scale_by_adam(),
    }[config.optimizer]
    decayed = _decayed(decay, read_names(config.no_decay))
    order = (rescale, decayed) if config.optimizer == "adamw" else (decayed, rescale)
    factors = read_factors(config.lr_of)
    own_rates = (_multiplied(factors),) if factors else ()
    return optax.chain(*order, optax.scale_by_learning_rate(schedule), *own_rates)


def _decayed(decay: Array, kept: Mapping[str, bool]) -> optax.GradientTransformation:
    """Adds `decay` times the parameters to the updates of those arrays whose update is not 0, but for the `kept`."""

    def one(is_kept, update, param):
        return update if is_kept else update + jnp.where(jnp.any(update != 0), decay, 0) * param

    return optax.stateless(lambda updates, params: map_by_name(one, kept, False, updates, params))


def _multiplied(factors: Mapping[str, float]) -> optax.GradientTransformation:
    """The updates, those of the named arrays times their factor."""

    def one(factor, update):
        return update if factor == 1 else (factor * update).astype(update.dtype)

    return optax.stateless(lambda updates, params: map_by_name(one, factors, 1.0, updates))


class Clipped(NamedTuple):
    """A gradient that is no longer than the clip."""

    gradient: Any
    norm: Array  # what it was before; inf where that overflows
    size: Array  # as `norm`, but for a power of two: finite wherever the gradient is
    shortened: Array  # bool, whether it was longer


def clip_by_norm(gradient: Any, clip: Array) -> Clipped:
    """The gradient, shortened to norm `clip` where it is longer; 0 does not clip."""
    size, scale = scaled_norm(gradient)
    norm = size * scale
    longer = (clip > 0) & (norm > clip)
    gradient = jax.tree.map(lambda g: jnp.where(longer, g * (1 / scale) * (clip / size), g).astype(g.dtype), gradient)
    return Clipped(gradient, norm, size, longer)
