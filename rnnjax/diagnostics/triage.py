"""Triage: what ails a recurrent network, where it begins, and what to try."""

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
from rnnjax.keys import Purpose, purpose_key
from rnnjax.norms import norm
from rnnjax.types import Array, Cell, Params

VERDICTS = ("NaN", "dead", "exploding", "saturated", "vanishing", "healthy")  # the first that holds is the verdict
EXPLODED, VANISHED = 1e2, 1e-3  # of |dh_T/dh_t|_F / sqrt(n), which an isometry keeps at 1
MOST_SATURATED, MOST_DEAD = 0.5, 0.8  # shares; an IRNN starts with up to half of its units dead, and learns
STILL = 1e-6  # a state that moves less than this over steps and sequences carries nothing


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


class Diagnosis(NamedTuple):
    """A verdict and why. `str` of it is a paragraph to print."""

    verdict: str  # one of VERDICTS
    layer: int | None  # the first bad layer; None where none is, or what is bad lies outside them
    step: int | None  # the first bad step, an index into xs; going back from the end, where a gradient is at fault
    reasons: tuple[str, ...]
    cure: str
    evidence: tuple[Evidence, ...]  # one a layer, as NumPy arrays

    def __str__(self):
        where = "" if self.layer is None else f" in layer {self.layer}"
        where += "" if self.step is None else f", from step {self.step}"
        return (
            f"{self.verdict.capitalize() if self.verdict != 'NaN' else 'NaN'}{where}: {'; '.join(self.reasons)}. "
            + (f"Try: {self.cure}.")
        )


def diagnose(
    loss: Callable[[Any], Array],
    taps: Any,
    layers: Sequence[Layer],
    *,
    key: Array | None = None,
    probes: int = 8,
    sequences: int = 8,
) -> Diagnosis:
    """What ails this network on this batch, by fixed rules on arrays that `gather` collects and `judge` reads.

        model = SequenceModel(...)
        taps = model.make_taps(T, (B,))
        print(diagnose(lambda taps: task.loss(model(batch.inputs, taps=taps), batch), taps, layers))

    Vanishing and exploding are judged by |dh_T/dh_t|, that is for any loss at the end: a loss at every step gives
    every state a gradient, however short the memory. For what they mean see Bengio, Simard & Frasconi (1994) and
    Pascanu, Mikolov & Bengio (2013, arXiv:1211.5063).

    Args:
      loss: taps -> scalar, a mean over the B sequences, as in `gradient_flow`.
      taps: a sequence with the zeros of each layer, leaves `[T, B, H]`; where bidirectional, pairs of them.
      layers: as many, the first layer first; see `stack_layers`. Where bidirectional, the forward direction of each.
      key: draws the probes; a fixed one by default.
      probes, sequences: how many to measure |dh_T/dh_t| with, at most; each probe costs about one gradient.

    Raises ValueError where taps and layers differ in number.
    """
    if len(taps) != len(layers):
        raise ValueError(f"there are taps of {len(taps)} layers, and {len(layers)} layers")
    cells = [layer.cell for layer in layers]
    arrays = [(layer.params, layer.xs) for layer in layers]
    key = purpose_key(Purpose.PROBES) if key is None else key

    @jax.jit
    def collect(taps, arrays, key):
        built = [Layer(cell, *a) for cell, a in zip(cells, arrays, strict=True)]
        return gather(loss, taps, built, key, probes=probes, sequences=sequences)

    return judge(*jax.device_get(collect(taps, arrays, key)))


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


def gather(
    loss: Callable[[Any], Array],
    taps: Any,
    layers: Sequence[Layer],
    key: Array,
    *,
    probes: int = 8,
    sequences: int = 8,
) -> tuple[Array, tuple[Evidence, ...]]:
    """(the loss, the evidence on each layer), arguments as in `diagnose`; pure, and jits."""
    flow = gradient_flow(loss, taps)
    return flow.loss, tuple(
        _evidence(layer, norms, key, probes, sequences) for layer, norms in zip(layers, flow.norm, strict=True)
    )


def judge(loss: Array, evidence: Sequence[Evidence]) -> Diagnosis:
    """The verdict on what `gather` collected. Of two that hold the one nearer the head of VERDICTS is named."""
    evidence = tuple(jax.tree.map(np.asarray, e) for e in evidence)
    found = _first_found(evidence, _not_finite, _bad_gradient)
    if found is None and not np.isfinite(loss):
        reasons = ("the loss is not finite, though all recurrent layers are",)
        found = Diagnosis("NaN", None, None, reasons, "look at the readout's parameters and at the targets", evidence)
    found = found or _first_found(evidence, _dead, _exploding, _saturated, _vanishing)  # these read finite numbers
    if found is not None:
        return found
    keeps = [f"|dh_T/dh_0| is {_power(e.log_sensitivity[0])} in layer {layer}" for layer, e in enumerate(evidence)]
    cure = "nothing in the recurrence; look at the task and the optimiser"
    return Diagnosis("healthy", None, None, tuple(keeps), cure, evidence)


def _first_found(evidence: tuple[Evidence, ...], *rules: Callable) -> Diagnosis | None:
    for rule in rules:
        for layer, e in enumerate(evidence):
            found = rule(e)
            if found is not None:
                verdict, step, reasons, cure = found
                return Diagnosis(verdict, layer, step, tuple(reasons), cure, evidence)
    return None


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


# The rules: evidence of a layer -> (verdict, first bad step, reasons, cure), or None.


def _not_finite(e: Evidence):
    if not e.params_finite:
        return "NaN", 0, ["its parameters are not all finite"], "go back to an earlier checkpoint; lower lr; clip"
    bad_input, bad_state = _first(~e.inputs_finite), _first(~e.states_finite)
    if bad_input is not None and (bad_state is None or bad_input <= bad_state):
        return "NaN", bad_input, [f"its input is not finite at step {bad_input}"], "look at the data and at the encoder"
    if bad_state is not None:
        before = e.state_size[:bad_state]
        if before.size > 1 and before[-1] > EXPLODED * max(before[0], 1):
            reason = f"its state grows from {before[0]:.2g} until it overflows at step {bad_state}"
            return "exploding", bad_state, [reason], _calm(None)
        return "NaN", bad_state, [f"its state is not finite at step {bad_state}"], "look at step and the initial carry"
    return None


def _bad_gradient(e: Evidence):
    if not np.isfinite(e.gradient).all():
        step = _last(~np.isfinite(e.gradient))
        reason = f"its states are finite, but dL/dh_t is not at step {step} (going back)"
        return "NaN", step, [reason], "look for a division by zero, sqrt(0) or log(0) in the loss or in step; clip"
    step = _last(np.isnan(e.log_sensitivity) | (e.log_sensitivity == np.inf))
    if step is not None:
        reason = f"its states are finite, but the derivative of the step from one to the next is not at step {step}"
        return "NaN", step, [reason], "look for a division by zero, sqrt(0) or log(0) in step"
    return None


def _dead(e: Evidence):
    if e.dead >= MOST_DEAD:
        reason = f"{e.dead:.0%} of its ReLU units are zero at every step of every sequence"
        return "dead", 0, [reason], "a positive bias, a lower lr, an identity or orthogonal W_h, or tanh"
    if e.movement < STILL:
        reason = f"its state moves by {e.movement:.1g} over all steps and sequences, so nothing passes through it"
        return "dead", 0, [reason], "larger input weights; if it has an input or output gate, a higher bias there"
    return None


def _exploding(e: Evidence):
    step = _last(e.log_sensitivity > np.log(EXPLODED))
    if step is None:
        return None
    rate = _rate(e.log_sensitivity, step)
    reasons = [f"|dh_T/dh_t| reaches {_power(np.max(e.log_sensitivity))}, by {rate:.3g} a step", _gradient(e)]
    return "exploding", max(step - 1, 0), reasons, _calm(rate)


def _saturated(e: Evidence):
    name = max(e.saturated, key=e.saturated.get, default=None)
    step = _lost(e)
    if step is None or name is None or e.saturated[name] < MOST_SATURATED:
        return None
    reasons = [f"{e.saturated[name]:.0%} of the values of {name} are on its flat part", *_decay(e, step)]
    cure = f"smaller input weights or inputs, a lower gain of W_h, and a bias that opens {name}"
    return "saturated", max(step - 1, 0), reasons, cure


def _vanishing(e: Evidence):
    step = _lost(e)
    if step is None:
        return None
    rate, T = _rate(e.log_sensitivity, step), e.log_sensitivity.size - 1
    cure = (
        f"a higher bias of the gate that keeps the state (chrono initialisation: T_max = {T})"
        if e.timescale > 1
        else "an orthogonal W_h" + (f", or a gain {1 / rate:.3g} times as large" if rate > 0 else "") + "; a gated cell"
    )
    return "vanishing", max(step - 1, 0), _decay(e, step), cure


def _lost(e: Evidence) -> int | None:
    return _last(e.log_sensitivity < np.log(VANISHED))


def _decay(e: Evidence, step: int) -> list[str]:
    T = e.log_sensitivity.size - 1
    rate = _rate(e.log_sensitivity, step)
    reasons = [f"|dh_T/dh_t| is below {VANISHED:g} from {T - step} steps back on ({rate:.3g} a step), of {T}"]
    if e.timescale > 1:
        reasons.append(f"half of its units forget within {e.timescale:.3g} steps")
    return [*reasons, _gradient(e)]


def _gradient(e: Evidence) -> str:
    first, last = (f"{g:.1e}" if g else f"0 (below {np.finfo(g.dtype).tiny:.0e})" for g in e.gradient[[0, -1]])
    return f"|dL/dh_t| is {first} at the first step and {last} at the last"


def _rate(logs: np.ndarray, step: int) -> float:
    """The factor a step by which |dh_T/dh_t| changed from T back to `step`."""
    return float(np.exp(logs[step] / (logs.size - 1 - step)))


def _calm(rate: float | None) -> str:
    gain = "a lower gain of W_h" if rate is None else f"a gain of W_h {1 / rate:.2g} times as large"
    return f"clip by global norm; {gain}, or an orthogonal W_h; a lower lr"


def _power(log: float) -> str:
    return "0" if log == -np.inf else f"{np.exp(log):.1e}" if abs(log) < 80 else f"10^{log / np.log(10):.0f}"


def _first(bad: np.ndarray) -> int | None:
    return int(np.argmax(bad)) if bad.any() else None


def _last(bad: np.ndarray) -> int | None:
    return int(np.flatnonzero(bad)[-1]) if bad.any() else None
