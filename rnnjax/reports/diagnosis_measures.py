"""Every measure of a subject: its numbers and its figures.

Of stacked layers it is of the first (forwards, if it has two directions); the verdict and the gradient are of all.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnjax.diagnostics.credit import credit_matrix
from rnnjax.diagnostics.gradient_flow import gradient_flow, rms_over_batch, total_norm
from rnnjax.diagnostics.horizon import measured_horizon
from rnnjax.diagnostics.jacobians import jacobian_statistics, product_spectrum, step_jacobians
from rnnjax.diagnostics.lyapunov import lyapunov_spectrum
from rnnjax.diagnostics.paths import flow_by_path
from rnnjax.diagnostics.recurrent_matrix import gate_blocks, recurrent_matrix
from rnnjax.diagnostics.sensitivity import frobenius_sensitivity, spectral_sensitivity
from rnnjax.diagnostics.units import record_units, summarise_units
from rnnjax.engine.steps import carry_names, flatten, layer_names
from rnnjax.figures import diagnostic_plots as plots
from rnnjax.gradients.compare import compare_gradients
from rnnjax.keys import Purpose, purpose_key
from rnnjax.norms import rms
from rnnjax.reports.diagnosis_subject import B, Subject, first_inputs, loss_above, loss_of_taps
from rnnjax.tasks.common import cross_entropy
from rnnjax.types import Gates

SPECTRA_WORK = 4e9  # T n^3 at most: beyond it the spectra are those of the first steps alone
CREDIT_STEPS = 256  # T backward passes beyond this take too long
ONLINE_WORK = 3e10  # n^2 N T B at most: beyond it SnAp-1 is left out


class Section(NamedTuple):
    """One measure: its numbers for diagnostics.json, and its figures as (caption, draw(dark=...))."""

    numbers: dict[str, Any]
    figures: list[tuple[str, Callable]]
    left_out: str = ""


def sections_of(subject: Subject, finite: bool = True) -> dict[str, Section]:
    """Every measure by name; only the gradient where numbers are not `finite`, with the horizon of what attends."""
    measures = MEASURES if finite else {"gradient": MEASURES["gradient"]}
    if not subject.layers:
        measures = {name: measure for name, measure in measures.items() if name in ("gradient", "horizon")}
    return {name: function(subject) for name, function in measures.items()}


def _gradient(s: Subject) -> Section:
    T = s.batch.inputs.shape[0]
    norms = jax.jit(lambda taps: gradient_flow(loss_of_taps(s), taps).norm)(s.model.make_taps(T, (B,)))
    names = [name.replace("layer", "layer ").replace(".", " ") for name in layer_names(norms, s.config.bidirectional)]
    profiles = [np.asarray(rms_over_batch(leaf, B)) for leaf in jax.tree.leaves(norms)]
    lines = dict(zip(names, profiles, strict=True))
    letter, of = ("h", "each state") if s.layers else ("x", "what enters each layer at each position")
    draw = lambda **o: plots.lines_over_steps(lines, ylabel=f"$|dL/d{letter}_t|$, rms over sequences", **o)  # noqa: E731
    return Section(lines, [(f"Gradient of the task's loss by {of}", draw)])


def _sensitivity(s: Subject) -> Section:
    cell, params, xs = s.layers[0]
    key, n, T = purpose_key(Purpose.PROBES), _size(cell, params), s.steps
    starts = np.unique(np.linspace(0, T - 1, 12).astype(int))

    @jax.jit
    def run(params, xs):
        frobenius = frobenius_sensitivity(cell, params, xs, key=key, probes=min(16, n)).log_norm
        return frobenius, spectral_sensitivity(cell, params, xs, key=key, starts=starts, iterations=10).log_norm

    frobenius, spectral = map(np.asarray, run(params, xs[:, 0]))
    draw = lambda **o: plots.sensitivity(frobenius, starts, spectral, **o)  # noqa: E731
    numbers = {"log_frobenius": frobenius, "starts": starts, "log_spectral": spectral}
    return Section(numbers, [("End-to-end sensitivity: what any loss at the end can keep of step t", draw)])


def _jacobians(s: Subject) -> Section:
    cell, params, xs = s.layers[0]
    n = _size(cell, params)
    T = min(s.steps, max(int(SPECTRA_WORK / n**3), 16))
    T -= T % 4 if T >= 4 else 0
    left_out = "" if s.steps - T < 4 else f"The spectra are those of the first {T} of {s.steps} steps."
    quarter = T // 4 if T >= 4 else T

    @jax.jit
    def run(params, xs):
        statistics = jacobian_statistics(step_jacobians(cell, params, xs))
        return statistics, product_spectrum(cell, params, xs, every=quarter)

    statistics, product = jax.device_get(run(params, xs[:T, 0]))
    numbers = {
        "singular_values_min_median_max": np.quantile(statistics.singular_values, [0, 0.5, 1], axis=1),
        "mean_square": statistics.mean_square,
        "variance_square": statistics.variance_square,
        "condition": statistics.condition,
        "product_steps": product.steps,
        "product_log_singular_values": product.log_singular_values,
    }
    figures = [
        (
            "How a step stretches: singular values of J_t",
            lambda **o: plots.step_spectra(statistics.singular_values, **o),
        ),
        (
            "How many steps stretch: singular values of the product from the start to t",
            lambda **o: plots.product_spectra(product.steps, product.log_singular_values, **o),
        ),
    ]
    return Section(numbers, figures, left_out)


def _lyapunov(s: Subject) -> Section:
    cell, params, xs = s.layers[0]
    n = _size(cell, params)
    T = min(s.steps, max(int(SPECTRA_WORK / n**3), 16))
    if T < 4:
        return Section({}, [], "Lyapunov exponents need four steps.")
    transient = T // 5
    batches = min(10, T - transient)
    spectrum = jax.jit(
        lambda params, xs: lyapunov_spectrum(cell, params, xs, k=min(n, 128), transient=transient, batches=batches)
    )(params, xs[:T, 0])
    spectrum = jax.device_get(spectrum)
    draw = lambda **o: plots.exponents(spectrum.exponents, spectrum.standard_error, **o)  # noqa: E731
    caption = f"Lyapunov exponents (Kaplan-Yorke dimension {spectrum.kaplan_yorke:.3g})"
    return Section(spectrum._asdict(), [(caption, draw)])


def _credit(s: Subject) -> Section:
    cell, params, xs = s.layers[0]
    if s.steps > CREDIT_STEPS:
        return Section({}, [], f"The credit matrix was left out: {s.steps} steps are more than {CREDIT_STEPS}.")
    every = s.model.steps_read == "every" and jnp.issubdtype(s.batch.targets.dtype, jnp.integer)
    if every and s.config.num_layers == 1 and not s.config.bidirectional:

        def losses(ys):
            outputs = s.model(s.batch.inputs[: s.steps], first_outputs=ys)
            return cross_entropy(outputs, s.batch.targets[: s.steps])

        name, caption = "$|dL_t/dh_s|$", "Credit: how the loss of step t reaches the state of step s"
        left_out = ""
    else:
        # E_v |v dy_t/dh_s|^2 = |dy_t/dh_s|_F^2 for random signs v, one draw a sequence
        weights = cell.weights(params)
        shown = jax.eval_shape(
            lambda: cell.output(weights, cell.initial_carry(weights, (B,)), cell.project(weights, xs[0]))
        ).shape
        signs = jax.random.rademacher(purpose_key(Purpose.PROBES), shown, xs.dtype)

        def losses(ys):
            return jnp.sum(signs * ys, axis=-1) / math.sqrt(shown[-1])

        name, caption = "$|dy_t/dh_s|_F/\\sqrt{H}$", "Sensitivity of what the layer shows at t to its state at s"
        left_out = (
            "No step has a loss that depends on the first layer's output of that step alone, so that dy_t/dh_s "
            "stands for the credit matrix."
        )
    credit = jax.device_get(jax.jit(lambda params, xs: credit_matrix(cell, params, xs, losses))(params, xs))
    matrix = np.asarray(rms(credit.matrix, -1))
    draw = lambda **o: plots.time_by_time(matrix, label=name, rows="step $t$", columns="state of step $s$", **o)  # noqa: E731
    return Section({"by_lag": credit.by_lag}, [(caption, draw)], left_out)


def _paths(s: Subject) -> Section:
    if s.config.bidirectional:
        return Section({}, [], "Flow by path and other gradients were left out: they need one direction.")
    cell, params, xs = s.layers[0][0], s.layers[0][1], first_inputs(s)
    loss = loss_above(s)
    flow = jax.jit(lambda params, xs: flow_by_path(cell, params, xs, loss))(params, xs)
    profile = lambda tree: np.asarray(rms_over_batch(total_norm(tree), B))  # noqa: E731
    lines = {"all paths": profile(flow.full)} | {f"{name} alone": profile(tree) for name, tree in flow.alone.items()}
    without = {f"without {name}": profile(tree) for name, tree in flow.without.items()}
    draw = lambda **o: plots.lines_over_steps(lines, ylabel="$|dL/dh_t|$, rms over sequences", **o)  # noqa: E731
    return Section(
        lines | without, [("Flow by path: the gradient with every other way back through time closed", draw)]
    )


def _units(s: Subject) -> Section:
    cell, params, xs = s.layers[0]
    summary = jax.device_get(jax.jit(lambda params, xs: summarise_units(record_units(cell, params, xs)))(params, xs))
    names = carry_names(summary.timescale)
    timescale = dict(zip(names, jax.tree.leaves(summary.timescale), strict=True))
    remembers = {name: share for name, share in timescale.items() if share[0] < 0.999}  # the others are overwritten
    figures = []
    if summary.histogram:
        draw = lambda **o: plots.histograms(summary.histogram, summary.edges, xlabel="value of the gate", **o)  # noqa: E731
        figures.append(("Gates: how far each is open", draw))
    if remembers:
        options: dict[str, Any] = {
            "xlabel": "timescale $\\tau = -1/\\log f_t$ (steps)",
            "log": True,
            "mark": {f"T = {s.steps}": s.steps},
        }
        draw_tau = lambda **o: plots.histograms(remembers, summary.timescale_edges, **options, **o)  # noqa: E731
        figures.append(("How long a unit remembers by itself; what lies beyond is in the end bins", draw_tau))
    left_out = "" if remembers else "No unit keeps its state by itself, so there is no figure of timescales."
    numbers = summary._asdict() | {"timescale": timescale}
    return Section(numbers, figures, left_out)


def _recurrent_matrix(s: Subject) -> Section:
    cell, params, _ = s.layers[0]
    weights = jax.jit(cell.weights)(params)  # where W_h is made of other parameters, that which acts
    W = weights.get("W_h") if isinstance(weights, dict) else None
    rows, columns = W.shape if W is not None and W.ndim == 2 else (1, 0)
    names = cell.form.of_state if isinstance(cell.form, Gates) else [f"block {k}" for k in range(columns // rows)]
    if rows == columns and len(names) > 1:
        names = ["W_h"]  # a map of the whole state, such as that of its real and imaginary parts
    if columns == 0 or columns != rows * len(names):
        return Section({}, [], "There is no W_h of shape [H, G H], so that its spectrum was left out.")
    cpu = jax.local_devices(backend="cpu")[0]  # where eigenvalues can be had
    found = jax.device_get(jax.jit(recurrent_matrix)(jax.device_put(gate_blocks(W), cpu)))
    blocks = dict(zip(names, found.eigenvalues, strict=True))
    numbers = found._asdict() | {"names": list(names)}
    numbers["eigenvalues"] = np.stack([found.eigenvalues.real, found.eigenvalues.imag], axis=-1)
    draw = lambda **o: plots.eigenvalues(blocks, **o)  # noqa: E731
    return Section(numbers, [("Eigenvalues of each recurrent matrix, and the unit circle", draw)])


def _horizon(s: Subject) -> Section:
    if s.batch.lengths is not None:
        return Section({}, [], "The measured horizon was left out: sequences end at different steps.")
    T, every = s.batch.inputs.shape[0], s.model.steps_read == "every"
    lags = np.arange(T) if T <= 128 else np.unique(np.linspace(0, T - 1, 100).astype(int))

    def last(inputs, taps=None):
        outputs = s.model(inputs, taps=taps)
        return outputs[-1] if every else outputs

    signs = jax.random.rademacher(purpose_key(Purpose.PROBES), jax.eval_shape(last, s.batch.inputs).shape, jnp.float32)

    @jax.jit
    def run(inputs, taps):
        change = measured_horizon(
            last, lambda y: jnp.mean(jnp.square(y)), inputs, purpose_key(Purpose.PROBES, 1), lags=lags
        )
        flow = gradient_flow(lambda taps: jnp.mean(jnp.sum(signs * last(inputs, taps), axis=-1)), taps)
        first = flow.norm[0][0] if s.config.bidirectional and s.layers else flow.norm[0]
        return change, rms_over_batch(total_norm(first), B)

    change, gradient = jax.device_get(run(s.batch.inputs, s.model.make_taps(T, (B,))))
    lines = {
        "change of the last output, input swapped": (lags, change.output_change),
        f"gradient of the last output by {'the state' if s.layers else 'what enters'}": (np.arange(T), gradient[::-1]),
    }
    numbers = {"lags": lags, "output_change": change.output_change, "gradient_by_lag": gradient[::-1]}
    steps = f"{change.horizon:.0f} steps" if np.isfinite(change.horizon) else "unknown: some outputs are not finite"
    caption = f"Measured horizon ({steps}) over gradient: does memory end where the gradient does?"
    return Section(numbers | {"horizon": change.horizon}, [(caption, lambda **o: plots.by_lag(lines, **o))])


def _gradients(s: Subject) -> Section:
    if s.config.bidirectional:
        return Section({}, [])
    cell, params, xs = s.layers[0][0], s.layers[0][1], first_inputs(s)
    T, n, N = xs.shape[0], _size(cell, params), sum(p.size for p in params.values())
    methods = [f"tbptt:{K}" for K in (1, 4, 16, 64) if K < T] + ["uoro"]
    left_out = "RTRL was left out: its gradient is that of BPTT."
    if n * n * N * T * B <= ONLINE_WORK:
        methods.insert(-1, "snap1")
    else:
        left_out += f" So was SnAp-1: {n} states and {N} parameters are too many for an exact influence matrix."
    loss, key = loss_above(s), purpose_key(Purpose.PROBES)
    errors = jax.jit(
        lambda params, xs: compare_gradients(cell, params, xs, loss, key, methods=tuple(methods), draws=8)
    )(params, xs)
    errors = jax.device_get(errors)
    draw = lambda **o: plots.gradient_errors(methods, errors.cosine, errors.norm_ratio, **o)  # noqa: E731
    caption = "Other gradients of the layer's parameters: truncated BPTT, forward mode"
    return Section(errors._asdict() | {"methods": methods}, [(caption, draw)], left_out)


def _size(cell, params) -> int:
    return flatten(cell.initial_carry(cell.weights(params), ()))[0].size


MEASURES = {
    "gradient": _gradient,
    "sensitivity": _sensitivity,
    "jacobians": _jacobians,
    "lyapunov": _lyapunov,
    "credit": _credit,
    "paths": _paths,
    "units": _units,
    "recurrent_matrix": _recurrent_matrix,
    "horizon": _horizon,
    "gradients": _gradients,
}
