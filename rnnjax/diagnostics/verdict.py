"""The verdict of a triage: fixed rules on the evidence of each layer, each with its reasons and a cure."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from rnnjax.diagnostics.evidence import Evidence
from rnnjax.types import Array

VERDICTS = ("NaN", "dead", "exploding", "saturated", "vanishing", "healthy")  # the first that holds is the verdict
EXPLODED, VANISHED = 1e2, 1e-3  # of |dh_T/dh_t|_F / sqrt(n), which an isometry keeps at 1
MOST_SATURATED, MOST_DEAD = 0.5, 0.8  # shares; an IRNN starts with up to half of its units dead, and learns
STILL = 1e-6  # a state that moves less than this over steps and sequences carries nothing


class Diagnosis(NamedTuple):
    """A verdict and why. `str` of it is a paragraph to print."""

    verdict: str  # one of VERDICTS; "no verdict" of a model without a recurrence
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
