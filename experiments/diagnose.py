"""What ails one recurrent network: every diagnostic on one page, of a run or at initialisation.

    python experiments/diagnose.py --workdir=runs/x
    python experiments/diagnose.py --config.cell=lstm --config.seq_len=200 --out=runs/diagnostics
    python experiments/diagnose.py --workdir=runs/leaky --config=configs/own_cell.py      # a run of your own cell

Writes index.html (one file that loads nothing) and diagnostics.json into --out, by default RUN/diagnostics. Of stacked
layers the page shows the first (forwards, if it has two directions); the verdict and the gradient are of all.
"""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import outputs
from experiments.flags import BadSetting, checked, define_config, load_config, main_with_errors
from experiments.report import PAGE, _e, _figures, _table
from rnnjax import diagnostic_plots as plots
from rnnjax import runs
from rnnjax.config import Config, hyperparameters
from rnnjax.diagnostics.credit import credit_matrix
from rnnjax.diagnostics.forward_mode import compare_gradients
from rnnjax.diagnostics.gradient_flow import gradient_flow, rms_over_batch, total_norm
from rnnjax.diagnostics.horizon import measured_horizon
from rnnjax.diagnostics.jacobians import flatten, jacobian_statistics, product_spectrum, step_jacobians
from rnnjax.diagnostics.lyapunov import lyapunov_spectrum
from rnnjax.diagnostics.paths import flow_by_path
from rnnjax.diagnostics.recurrent_matrix import gate_blocks, recurrent_matrix
from rnnjax.diagnostics.sensitivity import frobenius_sensitivity, spectral_sensitivity
from rnnjax.diagnostics.triage import Diagnosis, Layer, diagnose
from rnnjax.diagnostics.units import carry_names, record_units, summarise_units
from rnnjax.tasks.common import cross_entropy
from rnnjax.training import Train, make_train
from rnnjax.types import Batch

B = 8  # sequences to measure on
SPECTRA_WORK = 4e9  # T n^3 at most: beyond it the spectra are those of the first steps alone
CREDIT_STEPS = 256  # T backward passes beyond this take too long
ONLINE_WORK = 3e10  # n^2 N T B at most: beyond it SnAp-1 is left out


class Subject(NamedTuple):
    """A model with its parameters, a batch, and its recurrent layers."""

    config: Config
    train: Train
    model: Any
    batch: Batch
    layers: list[Layer]
    steps: int  # the shortest sequence: what spectra are measured over, so that no padding counts


class Section(NamedTuple):
    """One measure: its numbers for diagnostics.json, and its figures as (caption, draw(dark=...))."""

    numbers: dict[str, Any]
    figures: list[tuple[str, Callable]]
    left_out: str = ""


def make_subject(config: Config, workdir: str | Path | None = None) -> Subject:
    """The model of a run directory, or one as the config initialises it. Raises ValueError for a bad directory."""
    train = make_train(config)
    return subject_of(config, train, find_params(config, train, workdir), sample(config, train))


def find_params(config: Config, train: Train, workdir: str | Path | None) -> Any:
    """The parameters of a run directory, or fresh ones of the config's seed."""
    values = {name: jnp.float32(value) for name, value in hyperparameters(config).items()}
    init = jax.jit(lambda key: train.init(key, values).params)
    key = jax.random.key(config.seed)
    if workdir is None:
        return init(key)
    return jax.tree.map(jnp.asarray, runs.load_params(workdir, like=jax.eval_shape(init, key)))


def sample(config: Config, train: Train) -> Batch:
    """The validation sequences to measure on."""
    return train.task.sample(jax.random.fold_in(jax.random.key(config.seed), 1), B, "validation")


def subject_of(config: Config, train: Train, params: Any, batch: Batch) -> Subject:
    """The model with these parameters, tracers allowed."""
    model = train.model(params)
    steps = batch.inputs.shape[0] if batch.lengths is None else int(batch.lengths.min())
    return Subject(config, train, model, batch, layers_of(model, batch, steps), steps)


def layers_of(model, batch: Batch, steps: int) -> list[Layer]:
    """Each recurrent layer (of two directions the forward one) and the first `steps` inputs that it sees."""
    xs = batch.inputs if model.encoder is None else model.encoder(batch.inputs)
    layers = []
    for layer in model.stack.layers:
        forward = getattr(layer, "forward_rnn", layer)
        params = {name: value[...] for name, value in forward.params.items()}
        layers.append(Layer(forward.cell, params, xs[:steps]))
        xs = _through(model.stack, layer, xs, batch.lengths)
    return layers


def triage(subject: Subject) -> Diagnosis:
    """The verdict on all layers."""
    T = subject.batch.inputs.shape[0]
    return diagnose(loss_of_taps(subject), subject.model.make_taps(T, (B,)), subject.layers)


def measure(subject: Subject, finite: bool = True) -> dict[str, Section]:
    """Every measure by name; only the gradient where numbers are not `finite`."""
    measures = MEASURES if finite else {"gradient": MEASURES["gradient"]}
    return {name: function(subject) for name, function in measures.items()}


def _gradient(s: Subject) -> Section:
    T = s.batch.inputs.shape[0]
    norms = jax.jit(lambda taps: gradient_flow(loss_of_taps(s), taps).norm)(s.model.make_taps(T, (B,)))
    lines = {}
    for k, layer in enumerate(norms):
        directions = zip(("forward ", "backward "), layer, strict=True) if s.config.bidirectional else (("", layer),)
        for direction, parts in directions:
            for name, leaf in zip(carry_names(parts), jax.tree.leaves(parts), strict=True):
                lines[f"layer {k} {direction}{name}"] = np.asarray(rms_over_batch(jnp.square(leaf), B))
    draw = lambda **o: plots.lines_over_steps(lines, ylabel="$|dL/dh_t|$, rms over sequences", **o)  # noqa: E731
    return Section(lines, [("Gradient of the task's loss by each state", draw)])


def _sensitivity(s: Subject) -> Section:
    cell, params, xs = s.layers[0]
    key, n, T = jax.random.key(0), _size(cell), s.steps
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
    n = _size(cell)
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
    n = _size(cell)
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
            return cross_entropy(s.model.readout(ys), s.batch.targets[: s.steps])

        name, caption = "$|dL_t/dh_s|$", "Credit: how the loss of step t reaches the state of step s"
        left_out = ""
    else:
        # E_v |v dy_t/dh_s|^2 = |dy_t/dh_s|_F^2 for random signs v, one draw a sequence
        shown = jax.eval_shape(lambda: cell.output(params, cell.initial_carry((B,)), cell.project(params, xs[0]))).shape
        signs = jax.random.rademacher(jax.random.key(0), shown, xs.dtype)

        def losses(ys):
            return jnp.sum(signs * ys, axis=-1) / math.sqrt(shown[-1])

        name, caption = "$|dy_t/dh_s|_F/\\sqrt{H}$", "Sensitivity of what the layer shows at t to its state at s"
        left_out = (
            "No step has a loss that depends on the first layer's output of that step alone, so that dy_t/dh_s "
            "stands for the credit matrix."
        )
    credit = jax.device_get(jax.jit(lambda params, xs: credit_matrix(cell, params, xs, losses))(params, xs))
    matrix = np.sqrt(np.mean(np.square(credit.matrix), axis=-1))
    draw = lambda **o: plots.time_by_time(matrix, label=name, rows="step $t$", columns="state of step $s$", **o)  # noqa: E731
    return Section({"by_lag": credit.by_lag}, [(caption, draw)], left_out)


def _paths(s: Subject) -> Section:
    if s.config.bidirectional:
        return Section({}, [], "Flow by path and other gradients were left out: they need one direction.")
    cell, params, xs = s.layers[0][0], s.layers[0][1], _first_inputs(s)
    loss = _loss_above(s)
    flow = jax.jit(lambda params, xs: flow_by_path(cell, params, xs, loss))(params, xs)
    profile = lambda tree: np.asarray(rms_over_batch(jnp.square(total_norm(tree)), B))  # noqa: E731
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
        options = {
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
    W = params.get("W_h")
    if W is None or W.ndim != 2 or W.shape[1] % W.shape[0]:
        return Section({}, [], "There is no W_h of shape [H, G H], so that its spectrum was left out.")
    found = jax.device_get(recurrent_matrix(gate_blocks(W)))
    names = cell.gates.of_state if cell.gates else [f"block {k}" for k in range(len(found.eigenvalues))]
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

    signs = jax.random.rademacher(jax.random.key(0), jax.eval_shape(last, s.batch.inputs).shape, jnp.float32)

    @jax.jit
    def run(inputs, taps):
        change = measured_horizon(last, lambda y: jnp.mean(jnp.square(y)), inputs, jax.random.key(1), lags=lags)
        flow = gradient_flow(lambda taps: jnp.mean(jnp.sum(signs * last(inputs, taps), axis=-1)), taps)
        first = flow.norm[0][0] if s.config.bidirectional else flow.norm[0]
        return change, rms_over_batch(jnp.square(total_norm(first)), B)

    change, gradient = jax.device_get(run(s.batch.inputs, s.model.make_taps(T, (B,))))
    lines = {
        "change of the last output, input swapped": (lags, change.output_change),
        "gradient of the last output by the state": (np.arange(T), gradient[::-1]),
    }
    numbers = {"lags": lags, "output_change": change.output_change, "gradient_by_lag": gradient[::-1]}
    caption = f"Measured horizon ({int(change.horizon)} steps) over gradient: does memory end where the gradient does?"
    return Section(numbers | {"horizon": change.horizon}, [(caption, lambda **o: plots.by_lag(lines, **o))])


def _gradients(s: Subject) -> Section:
    if s.config.bidirectional:
        return Section({}, [])
    cell, params, xs = s.layers[0][0], s.layers[0][1], _first_inputs(s)
    T, n, N = xs.shape[0], _size(cell), sum(p.size for p in params.values())
    methods = [f"tbptt:{K}" for K in (1, 4, 16, 64) if K < T] + ["uoro"]
    left_out = "RTRL was left out: its gradient is that of BPTT."
    if n * n * N * T * B <= ONLINE_WORK:
        methods.insert(-1, "snap1")
    else:
        left_out += f" So was SnAp-1: {n} states and {N} parameters are too many for an exact influence matrix."
    loss, key = _loss_above(s), jax.random.key(0)
    errors = jax.jit(
        lambda params, xs: compare_gradients(cell, params, xs, loss, key, methods=tuple(methods), draws=8)
    )(params, xs)
    errors = jax.device_get(errors)
    draw = lambda **o: plots.gradient_errors(methods, errors.cosine, errors.norm_ratio, **o)  # noqa: E731
    caption = "Other gradients of the layer's parameters: truncated BPTT, forward mode"
    return Section(errors._asdict() | {"methods": methods}, [(caption, draw)], left_out)


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


def loss_of_taps(s: Subject) -> Callable:
    """taps -> the task's loss."""
    return lambda taps: s.train.task.loss(s.model(s.batch.inputs, lengths=s.batch.lengths, taps=taps), s.batch)


def _first_inputs(s: Subject):
    return s.batch.inputs if s.model.encoder is None else s.model.encoder(s.batch.inputs)


def _loss_above(s: Subject):
    """ys `[T, B, H]` of the first layer -> the task's loss: the rest of the model, as SequenceModel runs it."""
    model, batch = s.model, s.batch

    def loss(ys):
        T, lengths = ys.shape[0], batch.lengths
        valid = None if lengths is None else (jnp.arange(T)[:, None] < lengths)[..., None]
        ys = ys if valid is None else jnp.where(valid, ys, 0)
        first = _first_inputs(s)
        if model.stack.residual and first.shape[-1] == ys.shape[-1]:
            ys = ys + first
        for layer in list(model.stack.layers)[1:]:
            ys = _through(model.stack, layer, ys, lengths)
        if model.steps_read == "mean":
            ys = jnp.sum(ys if valid is None else jnp.where(valid, ys, 0), axis=0)
            ys = ys / (T if lengths is None else lengths[:, None])
        elif model.steps_read == "last":
            ys = ys[-1] if lengths is None else ys[lengths - 1, jnp.arange(ys.shape[1])]
        return s.train.task.loss(model.readout(ys), batch)

    return loss


def _through(stack, layer, xs, lengths):
    ys = layer(xs, seq_lengths=lengths)
    return ys + xs if stack.residual and ys.shape[-1] == xs.shape[-1] else ys


def _size(cell) -> int:
    return flatten(cell.initial_carry(()))[0].size


def write_page(subject: Subject, out: str | Path, title: str) -> Diagnosis:
    """Measures, and writes index.html and diagnostics.json into `out`. Returns the verdict."""
    out = runs.check_directory(out)
    verdict = triage(subject)
    sections = measure(subject, finite=verdict.verdict != "NaN")
    left_out = [section.left_out for section in sections.values() if section.left_out]
    if verdict.verdict == "NaN":
        left_out.append(
            "All but the gradient was left out: of numbers that are not finite there is nothing to measure."
        )
    if subject.config.num_layers > 1:
        left_out.append("All but the verdict, the gradient and the horizon is of the first layer alone.")
    record = {
        "verdict": verdict.verdict,
        "layer": verdict.layer,
        "step": verdict.step,
        "reasons": verdict.reasons,
        "cure": verdict.cure,
        "left_out": left_out,
        "config": outputs.config_dict(subject.config),
        "measures": {name: section.numbers for name, section in sections.items()},
    }
    out.mkdir(parents=True, exist_ok=True)
    runs.write_file(out / "diagnostics.json", json.dumps(plain_numbers(record), allow_nan=False) + "\n")
    figures = [figure for section in sections.values() for figure in section.figures]
    runs.write_file(out / "index.html", _page(subject, verdict, figures, left_out, title))
    return verdict


def _page(subject, verdict, figures, left_out, title):
    evidence = _table(
        ["layer", "|dh_T/dh_0|", "|dL/dh_t| first, last", "dead ReLUs", "saturated", "half of the units forget within"],
        [
            [str(k), _power_of_e(e.log_sensitivity[0]), f"{e.gradient[0]:.2g}, {e.gradient[-1]:.2g}", f"{e.dead:.0%}",
             _e(", ".join(f"{n} {v:.0%}" for n, v in e.saturated.items()) or "–"), f"{e.timescale:.3g} steps"]
            for k, e in enumerate(verdict.evidence)
        ],
    )  # fmt: skip
    config = [[_e(name), _e(value)] for name, value in outputs.config_dict(subject.config).items() if value is not None]
    remarks = "".join(f"<li>{_e(text)}</li>" for text in left_out)
    body = (
        f"<h1>{_e(title)}</h1><p class='verdict'><b>{_e(str(verdict))}</b></p>{evidence}"
        f"<p class='note'>Measured on {B} fresh validation sequences; spectra and sensitivities on one of them. "
        "A value counts as saturated on the flat part of its nonlinearity, unless its unit is one that remembers.</p>"
        f"{_figures(figures)}<details open><summary>Left out</summary><ul>{remarks or '<li>nothing</li>'}</ul>"
        f"</details><details><summary>Config</summary>{_table(['setting', 'value'], config)}</details>"
    )
    return PAGE.replace("Recurrent networks: report", _e(title)).replace("BODY", body)


def _power_of_e(log):
    return "0" if log == -np.inf else f"10<sup>{log / np.log(10):.1f}</sup>"


def plain_numbers(value):
    """For JSON: arrays as lists of six digits, what is not finite as null."""
    if isinstance(value, dict):
        return {str(name): plain_numbers(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_numbers(v) for v in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return plain_numbers(np.asarray(value).tolist())
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def read_run_config(workdir: str | Path) -> Config:
    """The config of a run directory. Raises ValueError, BadSetting or RunRefused, in one line."""
    for name in ("config.json", "params.npz"):
        if not Path(workdir, name).is_file():
            raise ValueError(f"{Path(workdir, name)} is missing; allowed: the directory of a finished run")
    try:
        return checked(Config(**runs.read_config(workdir)["config"]))
    except TypeError as error:
        raise ValueError(f"{Path(workdir, 'config.json')} is of another version: {error}") from None


def main(_) -> int:
    workdir = WORKDIR.value
    config = load_config()  # with a run too: the file may hold the run's cell
    try:
        config = config if workdir is None else read_run_config(workdir)
        out = runs.check_directory(OUT.value or (Path(workdir) / "diagnostics" if workdir else "runs/diagnostics"))
        outputs.prepare_devices(config)
        subject = make_subject(config, workdir)
    except ValueError as error:
        raise BadSetting(str(error)) from error
    title = f"{config.cell} on {config.task}, T = {subject.batch.inputs.shape[0]}: " + (
        f"{Path(workdir).name}" if workdir else "at initialisation"
    )
    print(write_page(subject, out, title))
    print(f"wrote {out / 'index.html'} and {out / 'diagnostics.json'}")
    return runs.EXIT_DONE


if __name__ == "__main__":
    define_config()
    WORKDIR = flags.DEFINE_string("workdir", None, "a finished run; without it a model as --config initialises it")
    OUT = flags.DEFINE_string("out", None, "the directory to write into; by default WORKDIR/diagnostics")
    main_with_errors(main)
