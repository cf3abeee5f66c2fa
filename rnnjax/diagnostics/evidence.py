"""The evidence of a triage: what each layer's states, nonlinearities and gradients say, in one pure function."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from rnnjax.diagnostics.gradient_flow import gradient_flow, rms_over_batch, total_norm
from rnnjax.diagnostics.sensitivity import frobenius_sensitivity
from rnnjax.diagnostics.units import Units, record_units
from rnnjax.engine.steps import carries_around, flatten, inexact
from rnnjax.norms import norm
from rnnjax.types import Array, Cell, Params


class Layer(NamedTuple):
    """One recurrent layer, and the inputs that it sees."""

    cell: Cell
    params: Params
    xs: Array  # [T, B, D]


class Evidence(NamedTuple):
    """What one layer's states, nonlinearities and gradients say."""

    params_finite: Array  # []
    inputs_finite: Array  # [T]
    states_finite: Array  # [T]
    state_size: Array  # [T], root mean square of the carry's numbers
    movement: Array  # [], how much these vary over steps and sequences (standard deviation, rms over units)
    gradient: Array  # [T], |dL/dh_t|, rms over sequences
    log_sensitivity: Array  # [T + 1], log(|dh_T/dh_t|_F / sqrt(n)), t = 0 (the initial carry) .. T
    dead: Array  # [], share of ReLU units that are zero at every step of every sequence
    saturated: dict[
        str, Array
    ]  # by nonlinearity: share of values on a flat part, those of units that remember left out
    timescale: Array  # [], steps in which half of the units forget, whatever runs through the matmuls; inf: they do not


def gather(
    loss: Callable[[Any], Array],
    taps: Any,
    layers: Sequence[Layer],
    key: Array,
    *,
    probes: int = 8,
    sequences: int = 8,
) -> tuple[Array, tuple[Evidence, ...]]:
    """(the loss, the evidence on each layer), arguments as in `triage.diagnose`; pure, and jits."""
    flow = gradient_flow(loss, taps)
    return flow.loss, tuple(
        _evidence(layer, norms, key, probes, sequences) for layer, norms in zip(layers, flow.norm, strict=True)
    )


def stack_layers(model: Any, inputs: Array, lengths: Array | None = None, steps: int | None = None) -> list[Layer]:
    """The recurrent layers of a `Stack` or `SequenceModel`, each with what it read in one pass over `inputs`.

    Of two directions the forward one. All are cut to `steps`, by default to the shortest of `lengths`, which must then
    be known: so that no padding counts.
    """
    *_, read = model(inputs, lengths=lengths, return_inputs=True)
    if steps is None:
        steps = inputs.shape[0] if lengths is None else int(np.min(lengths))
    layers = []
    for layer, xs in zip(getattr(model, "stack", model).layers, read, strict=True):
        forward = getattr(layer, "forward_rnn", layer)
        params = {name: value[...] for name, value in forward.parameters.items()}
        layers.append(Layer(forward.cell, params, xs[:steps]))
    return layers


def _evidence(layer: Layer, flow: Any, key: Array, probes: int, sequences: int) -> Evidence:
    cell, params, xs = layer
    B = xs.shape[1]
    _, after = carries_around(cell, params, xs)
    units = record_units(cell, params, xs)
    n = flatten(cell.initial_carry(cell.weights(params), ()))[0].size

    def sensitivity(xs):
        return frobenius_sensitivity(cell, params, xs, key=key, probes=min(probes, n)).log_norm

    logs = jax.vmap(sensitivity, in_axes=1)(xs[:, :sequences])
    states = jnp.concatenate([_real(a) for a in inexact(after)], axis=-1)  # [T, B, n]: a clock is no memory
    mean = jnp.sum(states / (states.shape[0] * B), axis=(0, 1))
    return Evidence(
        params_finite=jnp.all(jnp.stack([jnp.all(jnp.isfinite(p)) for p in jax.tree.leaves(params)])),
        inputs_finite=jnp.all(jnp.isfinite(xs), axis=(1, 2)),
        states_finite=jnp.all(jnp.isfinite(states), axis=(1, 2)),
        state_size=norm(states, 1) / states[0].size ** 0.5,
        movement=norm(states - mean) / states.size**0.5,
        gradient=rms_over_batch(total_norm(flow), B),
        log_sensitivity=(logsumexp(2 * logs, axis=0) - jnp.log(logs.shape[0])) / 2,
        dead=_dead_share(units),
        saturated=_saturated_shares(units),
        timescale=_timescale(units),
    )


def _real(a: Array) -> Array:
    a = a.reshape(*a.shape[:2], -1)  # a part of the carry may be a matrix, or one number
    return jnp.concatenate([a.real, a.imag], axis=-1) if jnp.iscomplexobj(a) else a


def _dead_share(units: Units) -> Array:
    zero = [jnp.all(a == 0, axis=(0, 1)) for a in units.relu.values()]
    return jnp.mean(jnp.concatenate(zero)) if zero else jnp.zeros(())


def _saturated_shares(units: Units) -> dict[str, Array]:
    def remembers(a):  # the units that keep nine tenths of their value: a gate that is open for that is no fault
        kept = [jnp.abs(r) for r in jax.tree.leaves(units.retention) if r.shape == a.shape]
        return jnp.max(jnp.stack(kept), axis=0) > 0.9 if kept else jnp.zeros(a.shape, bool)

    flat = {name: (a < 0.1) | (a > 0.9) for name, a in units.sigmoid.items()}
    flat |= {name: jnp.abs(a) > 0.99 for name, a in units.tanh.items()}
    return {name: jnp.mean(mask & ~remembers(mask)) for name, mask in flat.items()}


def _timescale(units: Units) -> Array:
    medians = [jnp.nanmedian(tau) for tau in jax.tree.leaves(units.timescale)]
    return jnp.max(jnp.stack(medians))
