"""The engine against backpropagation through time written out by hand, one sequence and one step at a time.

In float64, so that equal means equal: what differs by 1e-9 differs in its maths. `test_cells.py` holds the engine in
float32 against Flax and PyTorch.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CASES
from oracles import cotangent, without_float0

from rnnjax import initializers
from rnnjax.cells import LSTMCarry, gated, gru, gru_cho, lru, lstm, rnn
from rnnjax.cells.check import check_cell
from rnnjax.engine import deferred as deferred_module
from rnnjax.engine.runners import RUNNERS
from rnnjax.engine.unroll import clean_lengths, make_probe, make_taps, unroll
from rnnjax.types import Cell, Gates, prepared

# Tiny problems spend their time in the compiler: half of it without LLVM's optimisations, which change no maths.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

T, B, D, H = 5, 3, 3, 4
LENGTHS = np.array([3, 5, 0])


def associative_memory(hidden_size, decay=0.9):
    """A user's own cell: M_t = decay M_{t-1} + v_t k_t^T, read out by the input: y_t = tanh(M_t q_t)."""

    def init(key, input_size):
        return {"W": jax.random.normal(key, (3, input_size, hidden_size))}

    def initial_carry(weights, batch_shape):
        return jnp.zeros((*batch_shape, hidden_size, hidden_size))

    def project(params, x):
        return {name: x @ W for name, W in zip("qkv", params["W"], strict=True)}

    def step(params, M, z):
        return decay * M + z["v"][..., :, None] * z["k"][..., None, :]

    def output(params, M, z):
        return jnp.tanh(jnp.einsum("...ij,...j->...i", M, z["q"]))

    return Cell(init, initial_carry, step, project, output)


BY_ITERATION = ("newton", "newton:diagonal")

# One cell for each way through the engine, for what does not depend on the cell otherwise.
PATHS = {
    "deferred, one matmul": lstm(H, peepholes=True),
    "deferred, two matmuls": gru(H),
    "scan": gru_cho(H),
    "scan, output inside": associative_memory(6),
    "linear": lru(H),
}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def problem(random_params):
    """(cell, batch_shape) -> (params, xs, carry, dys, dlast): the loss is sum(dys ys) + sum(dlast last)."""

    def draw(cell, batch_shape=(B,), input_size=D, seed=0):
        rng = np.random.default_rng(seed)
        complex_part = lambda s: 1j * rng.normal(size=s.shape) if jnp.iscomplexobj(s) else 0  # noqa: E731
        normal = lambda tree: jax.tree.map(lambda s: rng.normal(size=s.shape) + complex_part(s), tree)  # noqa: E731
        is_real = lambda s: jnp.issubdtype(s.dtype, jnp.inexact)  # noqa: E731
        params = jax.tree.map(lambda a: a.astype(np.float64), random_params(cell, input_size, seed))
        xs = rng.normal(size=(T, *batch_shape, input_size))
        made = cell.weights(params)
        carry = jax.eval_shape(lambda: cell.initial_carry(made, batch_shape))
        y = jax.eval_shape(lambda c: cell.output(made, c, cell.project(made, xs[0])), carry)
        start = jax.tree.map(lambda a, s: a if is_real(s) else rng.integers(3, size=s.shape), normal(carry), carry)
        dlast = jax.tree.map(lambda a, s: a * is_real(s), normal(carry), carry)  # nothing depends on a clock's last
        return params, xs, start, rng.normal(size=(T, *y.shape)), dlast

    return draw


def by_hand(cell):
    """`(params, xs, carry, dys, dlast, lengths, reverse) -> results`, each sequence trimmed and run by itself."""

    @jit
    def one_step(params, carry, x, dh, dy):
        def of_params(part):
            def run(params, carry, x):
                weights = cell.weights(params)
                return part(weights, carry, cell.project(weights, x))

            return run

        new, step = jax.vjp(of_params(cell.step), params, carry, x)
        y, output = jax.vjp(of_params(cell.output), params, new, x)
        through_output = [without_float0(d) for d in output(dy)]
        dh = jax.tree.map(jnp.add, dh, through_output[1])  # dL/dh_t: through the later steps, and through y_t
        through_step = [without_float0(d) for d in step(cotangent(dh, new))]
        dparams, dx = (jax.tree.map(jnp.add, through_step[i], through_output[i]) for i in (0, 2))
        return new, y, dh, through_step[1], dparams, dx

    def one_sequence(params, xs, carry, dys, dlast):
        zero, before, ys = jax.tree.map(np.zeros_like, dlast), [], []
        for x, dy in zip(xs, dys, strict=True):
            before.append(carry)
            carry, y, *_ = one_step(params, carry, x, zero, dy)
            ys.append(y)
        dcarry, dtaps, dxs = dlast, [], []
        dparams = jax.tree.map(np.zeros_like, params)
        for x, dy, h in zip(xs[::-1], dys[::-1], before[::-1], strict=True):
            _, _, dh, dcarry, dp, dx = one_step(params, h, x, dcarry, dy)
            dparams = jax.tree.map(np.add, dparams, dp)
            dtaps, dxs = [dh, *dtaps], [dx, *dxs]
        return {"last": carry, "params": dparams, "carry": dcarry}, {"ys": ys, "xs": dxs, "taps": dtaps}

    def run(params, xs, carry, dys, dlast, lengths=None, reverse=False):
        batch_shape = xs.shape[1:-1]
        lengths = np.full(batch_shape, T) if lengths is None else lengths
        whole, by_step = [], []
        for b in np.ndindex(*batch_shape):
            order = slice(None, None, -1 if reverse else 1)
            mine = (slice(lengths[b]), *b)
            h, dh = (jax.tree.map(lambda a, b=b: a[b], tree) for tree in (carry, dlast))
            results, steps = one_sequence(params, xs[mine][order], h, dys[mine][order], dh)
            like = {"ys": dys[(slice(None), *b)], "xs": xs[(slice(None), *b)], "taps": make_taps(cell, params, T)}
            whole.append(results)
            by_step.append({name: padded(values[order], like[name]) for name, values in steps.items()})
        dparams = jax.tree.map(lambda *a: sum(a), *[results.pop("params") for results in whole])
        return {"params": dparams} | stacked(whole, 0, batch_shape) | stacked(by_step, 1, batch_shape)

    return run


def stacked(results, axis, batch_shape):
    """One tree a sequence -> one tree whose leaves have the batch shape at `axis`."""

    def stack(*arrays):
        a = np.stack(arrays, axis)
        return a.reshape(*a.shape[:axis], *batch_shape, *a.shape[axis + 1 :])

    return jax.tree.map(stack, *results)


def padded(steps, like):
    """A list of steps -> one array a leaf, zero past the end."""
    full = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), like)
    for t, step in enumerate(steps):
        jax.tree.map(lambda a, s, t=t: a.__setitem__(t, s), full, step)
    return full


def measured(cell, params, xs, carry, dys, dlast, tapped=True, **options):
    """The same from `unroll`, and `probe`; without taps where not `tapped`."""
    batch_shape = xs.shape[1:-1]
    taps = make_taps(cell, params, T, batch_shape) if tapped else None

    def loss(params, xs, carry, taps, probe):
        last, ys = unroll(cell, params, xs, carry, taps=taps, probe=probe, **options)
        products = jax.tree.map(lambda a, b: jnp.sum(a * b).real, (dys, dlast), (ys, last))
        return sum(jax.tree.leaves(products)), (last, ys)

    probe = make_probe(cell, params, T, batch_shape)
    run = jax.value_and_grad(loss, (0, 1, 2, 3, 4), has_aux=True, allow_int=True)
    (_, (last, ys)), gradients = run(params, xs, carry, taps, probe)
    names = ("params", "xs", "carry", "taps", "probe")
    return {"last": last, "ys": ys} | dict(zip(names, without_float0(gradients), strict=True))


def assert_agree(ours, expected):
    """Equal in everything, and the probe equals the norms of dL/dh_t."""

    def norm(d, probe):
        return np.sqrt(np.sum(np.square(np.abs(d)), axis=tuple(range(np.ndim(probe), np.ndim(d)))))

    expected = expected | {"probe": jax.tree.map(norm, expected["taps"], ours["probe"])}
    for name, value in expected.items():
        if ours[name] is not None:
            chex.assert_trees_all_close({name: ours[name]}, {name: value}, rtol=1e-9, atol=1e-9)


def methods(cell):
    """The runners that it can have, but those of `BY_ITERATION`, whose programs take long to compile."""
    return [n for n, runner in RUNNERS.items() if isinstance(cell.form, runner.form) and n not in BY_ITERATION]


def test_lengths_and_reverse_against_trimming_by_hand(cell, problem):
    """Values, gradients by params, inputs, initial carry and taps, and the probe, by both methods.

    What stands in the padding is of no account, were it not finite.
    """
    check_lengths_and_reverse(cell, problem, methods(cell))


@pytest.mark.parametrize(
    "cell",
    [pytest.param(make(H), marks=() if name == "gru" else pytest.mark.slow, id=name) for name, make in CASES.items()],
)
def test_lengths_and_reverse_by_iteration(cell, problem):
    check_lengths_and_reverse(cell, problem, BY_ITERATION)


def check_lengths_and_reverse(cell, problem, methods):
    p = params, xs, *rest = problem(cell)
    padded = np.where((np.arange(T)[:, None] < LENGTHS)[..., None], xs, np.nan)
    runs = [(method, reverse) for method in methods for reverse in (False, True)]
    run = jit(lambda p: [measured(cell, *p, lengths=LENGTHS, method=m, reverse=r) for m, r in runs])
    ours = run((params, padded, *rest))
    hand = by_hand(cell)
    expected = [hand(*p, lengths=LENGTHS, reverse=reverse) for reverse in (False, True)]
    for (_, reverse), results in zip(runs, ours, strict=True):
        assert_agree(results, expected[reverse])
        chex.assert_trees_all_equal(*(jax.tree.map(lambda a: np.asarray(a)[2], c) for c in (results["last"], p[2])))
        assert not np.any(results["ys"][3:, 0]) and not np.any(results["ys"][:, 2])  # past the lengths


RESETS = np.array([[0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 1, 0]], bool)  # [T, B]
assert RESETS.shape == (T, B)


@pytest.mark.parametrize("name", PATHS)
def test_resets_against_sequences_run_apart(name, problem):
    """Values and gradients, in both directions, past a sequence's length too; the given carry is of the first alone."""
    cell = PATHS[name]
    params, xs, carry, dys, dlast = problem(cell)
    runs = [(m, r) for m in ("auto", *methods(cell)) if m != "deferred" for r in (False, True)]

    def together(method, reverse, params, carry):
        options = {"lengths": LENGTHS, "resets": RESETS, "reverse": reverse, "method": method, "segments": 2}
        return unroll(cell, params, xs, carry, **options)

    def apart(reverse, params, carry):
        rows = [row(params, jax.tree.map(lambda a, b=b: a[b], carry), b, reverse) for b in range(B)]
        last, ys = zip(*rows, strict=True)
        return jax.tree.map(lambda *a: jnp.stack(a), *last), jnp.stack(ys, 1)

    def row(params, state, b, reverse):
        starts = [t for t in range(LENGTHS[b]) if t == 0 or RESETS[t, b]]
        pieces = list(zip(starts, [*starts[1:], LENGTHS[b]], strict=False))
        ys = jnp.zeros_like(dys[:, b])
        for number, (start, end) in enumerate(pieces[::-1] if reverse else pieces):
            given = number == 0 and (reverse or not RESETS[start, b])
            state, shown = unroll(cell, params, xs[start:end, b], state if given else None, reverse=reverse)
            ys = ys.at[start:end].set(shown)
        return state, ys

    def measure(run):
        def loss(params, carry):
            last, ys = run(params, carry)
            products = jax.tree.map(lambda a, b: jnp.sum(a * b).real, (dys, dlast), (ys, last))
            return sum(jax.tree.leaves(products)), (last, ys)

        (_, shown), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True, allow_int=True)(params, carry)
        return shown, without_float0(gradients)

    expected = jit(lambda: [measure(functools.partial(apart, reverse)) for reverse in (False, True)])()
    ours = jit(lambda: [measure(functools.partial(together, *of)) for of in runs])()
    for (_, reverse), found in zip(runs, ours, strict=True):
        chex.assert_trees_all_close(found, expected[reverse], rtol=1e-9, atol=1e-9)


def test_resets_that_cannot_be_are_refused():
    cell = rnn(H)
    params, xs = cell.init(jax.random.key(0), D), np.zeros((T, B, D))
    with pytest.raises(TypeError, match="resets are int64; allowed: booleans"):
        unroll(cell, params, xs, resets=np.zeros((T, B), np.int64))
    with pytest.raises(ValueError, match=r"resets have shape \(3, 5\); allowed: \(5, 3\)"):
        unroll(cell, params, xs, resets=np.zeros((B, T), bool))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("scann", "unknown method 'scann'; allowed: auto, scan"),
        ("scan:3", "method 'scan:3': scan has no option"),
        ("auto:", "method 'auto:': auto has no option"),
        ("associative", "method 'associative' needs a cell that is linear"),
    ],
)
def test_a_method_that_cannot_be_is_refused(method, message):
    cell = rnn(H)
    with pytest.raises(ValueError, match=message):
        unroll(cell, cell.init(jax.random.key(0), D), np.zeros((T, B, D)), method=method)


class Oscillation(NamedTuple):
    """Position and velocity."""

    y: jax.Array
    z: jax.Array


def oscillate(weights, carry, *, a):
    z = 0.9 * carry.z + 0.3 * (a - weights["gamma"] * carry.y)
    return Oscillation(carry.y + 0.3 * z, z)


class Counted(NamedTuple):
    """A state and a clock."""

    h: jax.Array
    t: jax.Array


def counted(weights, carry, *, n):
    return Counted(jnp.where(carry.t % 2 == 0, n, carry.h), carry.t + 1)


OTHER_GATES = {
    "a clock": gated(H, {"n": jnp.tanh}, counted, carry=Counted)._replace(
        initial_carry=lambda w, batch: Counted(jnp.zeros((*batch, H)), jnp.zeros((*batch, 1), jnp.int32))
    ),
    "a state of two parts": gated(
        H,
        {"a": jnp.tanh},
        oscillate,
        carry=Oscillation,
        state=lambda c: jnp.concatenate([c.z, c.y], axis=-1),
        vectors={"gamma": initializers.constant(0.7)},
    )._replace(output=lambda weights, carry, z: carry.y),
    "one part of two": gated(H, {"a": jnp.tanh}, lambda w, c, *, a: Oscillation(a, c.y), carry=Oscillation,
                             state=lambda c: c.z)._replace(output=lambda weights, carry, z: carry.y),
    "diagonal": gated(H, {"f": jax.nn.sigmoid, "n": jnp.tanh}, lambda w, h, *, f, n: f * h + (1 - f) * n,
                      of_input=("n",), diagonal=True, w_h=initializers.normal(0.5)),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_GATES)
def test_what_the_affine_map_sees_may_be_any_part_of_the_carry(name, problem):
    check_cell(OTHER_GATES[name], D)
    test_lengths_and_reverse_against_trimming_by_hand(OTHER_GATES[name], problem)


def test_an_update_may_use_a_traced_option():
    """As in a user's own cell whose option is an axis of a sweep: its gradient too, and under vmap."""

    def loss(leak, params, xs, method):
        cell = gated(H, {"n": jnp.tanh}, lambda w, h, *, n: (1 - leak) * h + leak * n)
        return jnp.sum(unroll(cell, params, xs, method=method)[1] ** 2)

    params = rnn(H).init(jax.random.key(0), D)
    xs, leaks = np.random.default_rng(0).normal(size=(T, B, D)), jnp.array([0.3, 0.6])
    lanes = [
        jax.jit(jax.vmap(jax.value_and_grad(functools.partial(loss, method=m), (0, 1)), (0, None, None)))
        for m in ("auto", "scan")
    ]
    chex.assert_trees_all_close(*(run(leaks, params, xs) for run in lanes), rtol=1e-12)


def test_any_batch_shape_is_separate_runs(cell, problem):
    """None, under vmap over parameters (as a sweep's lanes are), and two dimensions, with more inputs than units."""
    lanes = [problem(cell, (), 4 * H + 1, seed) for seed in (0, 1)]
    grid = problem(cell, (2, 2), 4 * H + 1)
    lengths = np.array([[5, 1], [2, 4]])
    ours, ours_grid = jit(
        lambda lanes, grid: (
            jax.vmap(lambda *p: measured(cell, *p))(*lanes),
            measured(cell, *grid, tapped=False, lengths=lengths, reverse=True),
        )
    )(jax.tree.map(lambda *a: np.stack(a), *lanes), grid)
    hand = by_hand(cell)
    for k, lane in enumerate(lanes):
        assert_agree(jax.tree.map(lambda a, k=k: a[k], ours), hand(*lane))
    assert_agree(ours_grid, hand(*grid, lengths=lengths, reverse=True))


def test_taps_against_cutting_the_sequence(cell, problem):
    """dL/dh_t = the gradient of what is left of the loss, by a carry handed to it at t, for every t."""
    params, xs, carry, dys, dlast = problem(cell)
    chosen = jit(lambda *p: measured(cell, *p, method=methods(cell)[-1])["taps"])(params, xs, carry, dys, dlast)
    cell, params = prepared(cell, params)

    def rest(h, t):  # the loss from y_t on; before t nothing happens to h
        def body(h, inputs):
            s, x, dy = inputs
            z = cell.project(params, x)
            h = jax.tree.map(lambda new, old: jnp.where(s > t, new, old), cell.step(params, h, z), h)
            return h, jnp.where(s >= t, jnp.sum(dy * cell.output(params, h, z)), 0)

        last, losses = jax.lax.scan(body, h, (jnp.arange(T), xs, dys))
        return jnp.sum(losses) + sum(
            jnp.sum(a * b).real for a, b in zip(*map(jax.tree.leaves, (dlast, last)), strict=True)
        )

    @jit
    def cut(carry):
        _, carries = jax.lax.scan(lambda h, x: 2 * (cell.step(params, h, cell.project(params, x)),), carry, xs)
        return jax.vmap(jax.grad(rest, allow_int=True))(carries, jnp.arange(T))

    chex.assert_trees_all_close(chosen, without_float0(cut(carry)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cell", PATHS.values(), ids=PATHS)
def test_segments_change_nothing(cell, problem):
    """Pieces of 3 and 2 steps, of 2, 2 and 1, and of 1 (more are asked for than there are steps)."""
    p = problem(cell)
    runs = [(2, None), (3, LENGTHS), (T + 2, None)]
    ours = jit(lambda p: [measured(cell, *p, segments=segments, lengths=n) for segments, n in runs])(p)
    hand = by_hand(cell)
    expected = {n is None: hand(*p, lengths=n) for n in (None, LENGTHS)}
    for (_, n), results in zip(runs, ours, strict=True):
        assert_agree(results, expected[n is None])


@pytest.mark.parametrize(
    "cell",
    [pytest.param(cell, marks=pytest.mark.slow if name.endswith("one matmul") else ()) for name, cell in PATHS.items()],
    ids=PATHS,
)
def test_last_output_alone(cell, problem):
    """outputs="last" is y of each sequence's last step in running order, zero where there is none."""
    params, xs, carry, dys, dlast = problem(cell)
    unsigned = LENGTHS.astype(np.uint8)  # with a 0, from which nothing may be subtracted
    dy, everyone, runs = dys[0], np.arange(B), [(False, None), (False, unsigned), (True, None), (True, LENGTHS)]
    ours = jit(lambda *p: [measured(cell, *p, dy, dlast, outputs="last", reverse=r, lengths=n) for r, n in runs])(
        params, xs, carry
    )
    hand = by_hand(cell)
    for (reverse, lengths), results in zip(runs, ours, strict=True):
        at = 0 if reverse else np.maximum((LENGTHS if lengths is not None else np.full(B, T)) - 1, 0)
        dys = np.zeros_like(dys)
        dys[at, everyone] = dy
        expected = hand(params, xs, carry, dys, dlast, lengths, reverse)
        assert_agree(results, expected | {"ys": expected["ys"][at, everyone]})


def test_jit_traces_once_and_changes_nothing(cell, problem):
    """A carry handed on from call to call, as in training by pieces, has the type of the first one."""
    params, xs, *_ = problem(cell)
    traces = []

    @jax.jit
    def run(params, xs, carry):
        traces.append(1)
        return unroll(cell, params, xs, carry)

    first = run(params, xs, cell.initial_carry(cell.weights(params), (B,)))
    second = run(params, xs, first[0])
    assert len(traces) == 1
    chex.assert_trees_all_close(first, unroll(cell, params, xs), rtol=1e-9, atol=1e-9)
    again = run(params, xs, cell.initial_carry(cell.weights(params), (B,)))
    chex.assert_trees_all_equal(first, again)
    assert not np.allclose(first[1], second[1])  # the carry counts


@pytest.mark.parametrize("cell", PATHS.values(), ids=PATHS)
def test_bfloat16_is_near_float32(cell, problem):
    params, xs = jax.tree.map(lambda a: a.astype(np.float32), problem(cell)[:2])

    def run(params, xs, dtype):
        def loss(params):
            last, ys = unroll(cell, params, xs, dtype=dtype)
            return jnp.sum(ys.astype(jnp.float32)), (last, ys)

        (_, values), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return values, gradient

    low, high = jit(lambda *p: [run(*p, dtype) for dtype in (jnp.bfloat16, None)])(params, xs)
    for (values, gradient), dtype in ((low, jnp.bfloat16), (high, jnp.float32)):
        assert {a.dtype for a in jax.tree.leaves(values)} - {jnp.dtype(jnp.complex64)} == {jnp.dtype(dtype)}
        assert {a.dtype for a in jax.tree.leaves(gradient)} == {jnp.dtype(jnp.float32)}  # that of the parameters
    apart = jax.tree.map(lambda a, b: np.max(np.abs(a - b)) / (1 + np.max(np.abs(b))), *to_float64(low, high))
    assert 1e-4 < max(jax.tree.leaves(apart)) < 0.05  # near, but indeed computed in bfloat16


def to_float64(*trees):
    return jax.tree.map(lambda a: np.asarray(a).astype(complex if jnp.iscomplexobj(a) else float), trees)


@pytest.mark.parametrize(
    "cell",
    [pytest.param(lstm(H, peepholes=True), marks=pytest.mark.slow), gru(H), rnn(H), lru(H)],
    ids=["lstm-peepholes", "gru", "rnn", "lru"],
)
def test_hessian_vector_product(cell, problem):
    """Forward over reverse goes through each runner's own gradient."""
    params, xs, carry, dys, _ = problem(cell)
    direction = problem(cell, seed=1)[0]

    def product(method):
        def loss(params):
            return jnp.sum(dys * jnp.square(unroll(cell, params, xs, carry, lengths=LENGTHS, method=method)[1]))

        return jax.jvp(jax.grad(loss), (params,), (direction,))

    by_iteration = BY_ITERATION if cell.form == gru(H).form else ()
    scan, *others = jit(lambda: [product(method) for method in (*methods(cell), *by_iteration)])()
    for other in others:
        chex.assert_trees_all_close(other, scan, rtol=1e-9, atol=1e-9)


@pytest.mark.slow  # the last of `PATHS` is this cell: its lengths, directions and segments are in the fast tests
def test_a_users_own_cell(problem):
    """A matrix for a carry, and an output that depends on the input: nothing of it is known to the package."""
    cell = associative_memory(6)
    test_lengths_and_reverse_against_trimming_by_hand(cell, problem)
    test_taps_against_cutting_the_sequence(cell, problem)


@pytest.mark.parametrize(
    "cell",
    [pytest.param(lstm(H), marks=pytest.mark.slow), rnn(H), gru_cho(H)],
    ids=["lstm", "rnn", "gru_cho"],
)
def test_integers_stand_for_real_numbers(cell, problem):
    """In inputs and in the carry: values and gradients by the parameters as for the same numbers, written as floats."""
    params, xs, carry, dys, _ = problem(cell)
    xs, carry = (jax.tree.map(lambda a: np.round(3 * a), tree) for tree in (xs, carry))

    @jit
    def run(xs, carry):
        def loss(params, method):
            last, ys = unroll(cell, params, xs, carry, lengths=LENGTHS, method=method)
            return jnp.sum(ys * dys), (last, ys)

        return [jax.value_and_grad(loss, has_aux=True)(params, method) for method in methods(cell)]

    integers = run(xs.astype(np.int8), jax.tree.map(lambda a: a.astype(np.int32), carry))
    assert {a.dtype for a in jax.tree.leaves(integers)} == {np.dtype(np.float64)}
    chex.assert_trees_all_close(integers, run(xs, carry), rtol=1e-12, atol=1e-12)


def complex_gated(hidden_size):
    """A user's cell made of gates with a complex state: a rotation by each unit's own angle, driven by a tanh."""

    def update(params, h, *, s):
        return h * jnp.exp(1j * params["angle"]) * 0.9 + jnp.tanh(s)

    cell = gated(hidden_size, {"s": lambda s: s}, update, vectors={"angle": initializers.normal(1.0)})
    return cell._replace(initial_carry=lambda weights, shape: jnp.zeros((*shape, hidden_size), complex))


def test_complex_carries_by_both_methods_against_plain_steps():
    """Values, the gradients of a real loss, and the probe: real, and the norm of what is complex."""
    cell, rng = complex_gated(H), np.random.default_rng(0)
    params = jax.tree.map(lambda a: a.astype(float), cell.init(jax.random.key(0), D))
    xs, h0 = rng.normal(size=(T, B, D)), rng.normal(size=(B, H)) * (1 + 2j)

    def loss_of(ys):
        return jnp.sum(jnp.abs(ys) ** 2 * jnp.cos(jnp.arange(1.0, T + 1))[:, None, None])

    def plain(params, xs, h, taps):
        ys = []
        for x, tap in zip(xs, taps, strict=True):
            h = cell.step(params, h, cell.project(params, x)) + tap
            ys.append(h)
        return loss_of(jnp.stack(ys))

    def run(params, xs, h, taps, probe, method):
        return loss_of(unroll(cell, params, xs, h, taps=taps, probe=probe, method=method)[1])

    taps, probe = make_taps(cell, params, T, (B,)), make_probe(cell, params, T, (B,))
    expected = jit(jax.value_and_grad(plain, (0, 1, 2, 3)))(params, xs, h0, taps)
    norms = np.linalg.norm(expected[1][3], axis=-1)
    for method in ("scan", "deferred"):
        found = jit(functools.partial(jax.value_and_grad(run, (0, 1, 2, 3, 4)), method=method))
        value, (*gradients, probed) = found(params, xs, h0, taps, probe)
        chex.assert_trees_all_close((value, tuple(gradients)), expected, rtol=1e-9, atol=1e-9)
        assert probed.dtype == np.float64
        np.testing.assert_allclose(probed, norms, rtol=1e-9)
    # |dL/dh_t| of h_t = .5j h_{t-1}, where L = Re h_T
    turn = Cell(lambda key, D: {}, cell.initial_carry, lambda p, h, x: 0.5j * h + 0 * x)
    end = jit(jax.grad(lambda probe: unroll(turn, {}, np.zeros((3, 1)), probe=probe)[0].real.sum()))
    np.testing.assert_allclose(end(jnp.zeros(3)) / np.sqrt(H), [0.25, 0.5, 1])


@pytest.mark.parametrize(
    "options",
    [
        {"lengths": LENGTHS, "carry": True},
        *(pytest.param(o, marks=pytest.mark.slow) for o in ({}, {"lengths": LENGTHS}, {"carry": True})),
    ],
    ids=["lengths and carry", "plain", "lengths", "carry"],
)
def test_inside_shard_map(options, problem):
    """Values and gradients by both methods, though the parameters are the same on all devices."""
    cell = lstm(H)
    params, xs, carry, dys, _ = problem(cell)
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec
    sequences, batch = P(None, "batch"), P("batch")
    given = options.get("carry") and carry

    def run(params, xs, dys, carry, lengths):
        def loss(params, xs, carry, method):
            last, ys = unroll(cell, params, xs, carry, lengths=lengths, method=method)
            return jnp.sum(dys * ys), (last, ys)

        return [jax.value_and_grad(loss, (0, 1), has_aux=True)(params, xs, carry, m) for m in methods(cell)]

    args = params, xs, dys, given, options.get("lengths")
    specs = P(), sequences, sequences, batch, batch
    shape = [((P(), (batch, sequences)), (P(), sequences))] * len(methods(cell))

    def summed(*args):
        return [((jax.lax.psum(loss, "batch"), values), gradients) for (loss, values), gradients in run(*args)]

    found = jit(jax.shard_map(summed, mesh=mesh, in_specs=specs, out_specs=shape))(*args)
    chex.assert_trees_all_close(found, jit(run)(*args), rtol=1e-9, atol=1e-9)


def test_inside_shard_map_without_jit(problem):
    """There `shard_map` takes one operation after the other."""
    cell = rnn(H)
    params, xs, *_ = problem(cell)
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec
    specs = {"in_specs": (P(), P(None, "batch")), "out_specs": (P("batch"), P(None, "batch"))}
    alone = jax.shard_map(lambda *args: unroll(cell, *args), mesh=mesh, **specs)
    chex.assert_trees_all_close(alone(params, xs), jit(functools.partial(unroll, cell))(params, xs), rtol=1e-9)


@pytest.mark.parametrize("cell", PATHS.values(), ids=PATHS)
def test_export_with_a_symbolic_batch(cell, problem):
    params, xs, *_ = problem(cell)
    (b,) = jax.export.symbolic_shape("b")
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), params)

    def loss(params, xs):
        return jnp.sum(unroll(cell, params, xs)[1])

    exported = jax.export.export(jax.jit(jax.value_and_grad(loss)))(shapes, jax.ShapeDtypeStruct((T, b, D), xs.dtype))
    chex.assert_trees_all_close(exported.call(params, xs), jit(jax.value_and_grad(loss))(params, xs), rtol=1e-9)


def test_a_plain_tuple_is_a_carry_of_lstm_as_in_flax(problem):
    params, xs, carry, *_ = problem(lstm(H))
    last, ys = unroll(lstm(H), params, xs, tuple(carry))
    chex.assert_trees_all_equal((last, ys), unroll(lstm(H), params, xs, carry))
    assert type(last) is LSTMCarry


PARAMS = lstm(H).init(jax.random.key(0), D)
PROBE, TAPS = make_probe(lstm(H), PARAMS, T, (1,)), make_taps(lstm(H), PARAMS, T + 1, (B,))


AFFINE = {  # (w, h) -> what the state adds to the pre-activations of f and n
    "a matrix each": lambda w, h: (h @ w["U"], h @ w["V"]),
    "low rank": lambda w, h: ((h @ w["U"][:, :2]) @ w["V"][:2], h @ w["V"]),
    "unit by unit": lambda w, h: (h * w["a"], h * w["b"]),
    "one gate does not see it": lambda w, h: (0.0, h @ w["V"]),
}


@pytest.mark.parametrize("hoisted", [False, True])
@pytest.mark.parametrize("kind", AFFINE)
def test_any_affine_map_of_gates_is_differentiated_as_the_scan_does(kind, hoisted, monkeypatch):
    """Weights with names of their own, of which `update` reads one; on an accelerator the projection stands outside."""

    def affine(w, h, z):
        f, n = AFFINE[kind](w, h)
        return {"f": f + z["f"], "n": n + z["n"]}

    def update(w, h, *, f, n):
        return f * h + (1 - f) * n * w["scale"]

    gates = {"f": jax.nn.sigmoid, "n": jnp.tanh}
    seen = ("n",) if kind.startswith("one") else ("f", "n")
    form = Gates(affine, gates, update, lambda h: h, seen)

    def step(w, h, z):
        return update(w, h, **{n: gates[n](s) for n, s in affine(w, h, z).items()})

    cell = Cell(
        lambda key, d: {},
        lambda w, shape: jnp.zeros((*shape, H)),
        step,
        lambda w, x, key=None: {"f": x @ w["X"] + w["c"], "n": x @ w["Y"]},
        form=form,
    )
    rng = np.random.default_rng(0)
    shapes = {"U": (H, H), "V": (H, H), "a": (H,), "b": (H,), "X": (D, H), "Y": (D, H), "c": (H,), "scale": (H,)}
    params, xs = {n: rng.normal(size=s) for n, s in shapes.items()}, rng.normal(size=(T, 6, D))
    if hoisted:  # as where it is lowered for a GPU
        monkeypatch.setattr(deferred_module, "_widening_pays", lambda *args: False)

    def loss(params, xs, method):
        return jnp.sum(jnp.sin(unroll(cell, params, xs, method=method, lengths=[5, 3, 0, 1, 2, 4])[1]))

    run = jit(lambda *p: [jax.value_and_grad(loss, (0, 1))(*p, method) for method in ("scan", "deferred")])
    scan, deferred = run(params, xs)
    chex.assert_trees_all_close(deferred, scan, rtol=1e-9, atol=1e-9)


def test_weights_are_made_once_and_a_learned_start_and_noise_get_their_gradients():
    """h_0 = tanh(s), W = expm(A - A^T), z_t = x_t + noise_t: against the same written out as a loop."""
    made = []

    def weights(params):
        made.append(1)
        A = params["A"]
        return {"W": jax.scipy.linalg.expm(A - A.T), "start": jnp.tanh(params["s"])}

    def project(weights, x, key=None):
        return x if key is None else x + jax.random.normal(key, x.shape, x.dtype)

    def step(weights, h, z):
        return jnp.tanh(h @ weights["W"] + z)

    def initial_carry(weights, batch_shape):
        return jnp.broadcast_to(weights["start"], (*batch_shape, H))

    cell = Cell(None, initial_carry, step, project, weights=weights)
    rng = np.random.default_rng(0)
    params, xs = {"A": rng.normal(size=(H, H)), "s": rng.normal(size=H)}, rng.normal(size=(T, B, H))
    noise = jax.random.normal(jax.random.key(1), xs.shape)

    def by_loop(params, noise, outputs):
        w, ys = weights(params), []
        h = jnp.broadcast_to(w["start"], (B, H))
        for t in range(T):
            new = jnp.tanh(h @ w["W"] + xs[t] + noise[t])
            h = jnp.where(t < LENGTHS[:, None], new, h)
            ys.append(jnp.where(t < LENGTHS[:, None], new, 0))
        return jnp.sum(jnp.sin(h if outputs == "last" else jnp.stack(ys)))

    def loss(params, key, outputs, segments):
        last, ys = unroll(cell, params, xs, lengths=LENGTHS, key=key, segments=segments, outputs=outputs)
        return jnp.sum(jnp.sin(last if outputs == "last" else ys))

    for drawn, outputs, segments in ((False, "every", 1), (False, "last", 2), (True, "every", 2), (True, "last", 2)):
        expected = jax.value_and_grad(by_loop)(params, drawn * noise, outputs)
        made.clear()
        found = jax.value_and_grad(loss)(params, jax.random.key(1) if drawn else None, outputs, segments)
        assert len(made) == 1
        chex.assert_trees_all_close(found, expected, rtol=1e-9, atol=1e-9)


NAMED = {"c": jnp.zeros((B, H)), "h": jnp.zeros((B, H))}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"carry": jnp.zeros((B, H))}, TypeError, "the carry has structure .*; allowed: .*LSTMCarry"),
        ({"carry": NAMED}, TypeError, "the carry has structure .*'c'.*; allowed: .*LSTMCarry"),
        ({"carry": (NAMED["c"], jnp.zeros((2, H)))}, ValueError, r"part .h has shape \(2, 4\); allowed: \(3, 4\)"),
        ({"carry": (NAMED["c"] * 1j, NAMED["h"])}, TypeError, "the carry's part .c is complex64; allowed: float64"),
        ({"probe": PROBE}, ValueError, r"probe's part .c has shape \(5, 1\); allowed: \(5, 3\)"),
        ({"probe": jnp.zeros((T, B))}, TypeError, "probe has structure"),
        ({"taps": TAPS}, ValueError, r"part .c has shape \(6, 3, 4\); allowed: \(5, 3, 4\)"),
        ({"dtype": np.int32}, TypeError, "dtype is int32; allowed: a floating or complex one"),
    ],
)  # fmt: skip
def test_what_the_cell_cannot_take_is_refused(options, error, message):
    for segments in (1, 2):
        with pytest.raises(error, match=message) as refused:
            unroll(lstm(H), lstm(H).init(jax.random.key(0), D), jnp.zeros((T, B, D)), segments=segments, **options)
        assert len(str(refused.value).splitlines()) == 1


def test_errors_say_what_is_allowed():
    cell, xs = gru_cho(H), jnp.zeros((T, D))
    params = cell.init(jax.random.key(0), D)
    for options, message in (
        ({"method": "scam"}, "unknown method 'scam'; allowed: auto, scan, deferred"),
        ({"outputs": "first"}, "outputs is 'first'; allowed: 'every', 'last'"),
        ({"segments": 0}, "segments is 0; allowed: 'auto', or 1 or more"),
        ({"method": "deferred"}, "'deferred' needs a cell made of gates"),
    ):
        with pytest.raises(ValueError, match=message):
            unroll(cell, params, xs, **options)
    with pytest.raises(ValueError, match="no steps"):
        unroll(cell, params, xs[:0])


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([1, 2], ValueError, r"lengths have shape \(2,\); allowed: \(3,\), the batch shape of xs"),
        ([1, 6, 2], ValueError, "a length is 6; allowed: 0 to 5, the steps of xs"),
        (jnp.array([1, 5, -1]), ValueError, "a length is -1; allowed: 0 to 5"),
        (np.array([1, 2, 2**40 + 1]), ValueError, "a length is 1099511627777; allowed: 0 to 5"),
        ([1.0, 2.0, 3.0], TypeError, "lengths are float64; allowed: integers"),
        ([True, True, False], TypeError, "lengths are bool; allowed: integers"),
    ],
)
def test_lengths_that_are_impossible_are_refused(lengths, error, message):
    cell, xs = gru(H), jnp.zeros((T, B, D))
    with pytest.raises(error, match=message):
        unroll(cell, cell.init(jax.random.key(0), D), xs, lengths=lengths)


@pytest.mark.parametrize("dtype", [np.int8, np.uint64])
def test_traced_lengths_are_clipped(dtype):
    """Of any width and sign, where their values are not known."""
    top = np.iinfo(dtype).max
    lengths = np.array([-3 if np.issubdtype(dtype, np.signedinteger) else 0, top, 3], dtype)
    for steps in (T, 300):  # 300 is more than an int8 can hold
        expected = [0, min(steps, int(top)), 3]
        np.testing.assert_array_equal(jax.jit(lambda n, T=steps: clean_lengths(n, T, (3,)))(lengths), expected)
    cell, xs = gru(H), np.random.default_rng(0).normal(size=(T, B, D))
    params = cell.init(jax.random.key(0), D)
    for options in ({"reverse": True}, {"outputs": "last", "method": "scan"}):
        run = jit(lambda n, options=options: unroll(cell, params, xs, lengths=n, **options))
        chex.assert_trees_all_equal(run(lengths), run(np.array([0, T, 3], dtype)))
