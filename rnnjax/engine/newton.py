"""A nonlinear recurrence for all steps at once: Newton's method on the whole trajectory.

The states of all steps are the one solution of T equations,

    r_t(s) = s_t - f_t(s_{t-1}) = 0,        f_t(h) = step(w, h, z_t),    s_0 = h_0

and a step of Newton's method is a *linear* recurrence, which runs in about log2(T) rounds:

    d_t = A_t d_{t-1} - r_t(s),    s <- s + d        A_t = df_t/dh at s_{t-1}, or what stands for it

(Lim et al. 2024, arXiv:2309.12252, DEER; Gonzalez et al. 2024, arXiv:2407.19115, quasi-DEER and ELK). It is solved for
the change d, and not for s as in the papers, so that its rounding errors shrink with d. Whatever A is, the first i
states are exact after i steps, and what is found does not depend on A. Nor does its derivative, that of the equations:
with J_t = df_t/dh at the solution, one linear recurrence more,

    dL/dh_t = J_{t+1}^T dL/dh_{t+1} + dL/dy_t dy_t/dh_t
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.engine.deferred import closes_over_tracers
from rnnjax.engine.hooks import probed, tapped
from rnnjax.engine.scan import scan
from rnnjax.engine.variation import Path, before_it, step_by_step, travel, travel_by_units
from rnnjax.engine.varying import all_varying
from rnnjax.engine.vectors import AtStep, Vectors, clocks, vectors
from rnnjax.types import Array, Carry, Cell, Weights

KINDS = ("full", "diagonal")
LIMIT = 100  # steps of Newton's method: beyond that, the plain way is the quicker one
ROUNDINGS = 16  # the default tolerance, in units of the precision


class NewtonResult(NamedTuple):
    """What `newton_solve` found."""

    carries: Carry  # [T, ..., H], after each step
    iterations: Array  # [], how many linear systems were solved
    residual: Array  # [], the largest |s_t - f_t(s_{t-1})| / (1 + |f_t(s_{t-1})|) of the last iterate
    converged: Array  # [], whether that is within the tolerance, for all sequences


class Equations(NamedTuple):
    """What r_t is made of."""

    weights: Weights
    start: Array  # [..., n], h_0
    at: AtStep  # of all steps


def newton(
    cell: Cell,
    weights: Weights,
    carry: Carry,
    xs: Array,
    mask: Array | None,
    taps: Carry | None,
    probe: Carry | None,
    *,
    kind: str = "full",
) -> tuple[Carry, Array]:
    """As `scan` in values and gradients, by `newton_solve`; step by step where that does not converge.

    The linear systems are solved step by step in a program lowered for a CPU, and all steps at once elsewhere. Under
    `jax.vmap` the scan always runs, too, as both sides of a condition do. Where an integer part of the carry depends on
    the real ones, where the cell uses a traced number that it is not given, such as an option of a sweep, and where its
    step has a gradient that is no derivative, such as a clipped one, it is `scan` itself.
    """
    zs = cell.project(weights, xs)
    integers = clocks(cell, weights, carry, zs, mask)
    if integers is None or _has_own_gradient(cell, weights, carry, zs) or closes_over_tracers(cell, weights, carry, xs):
        return scan(cell, weights, carry, xs, mask, taps, probe)
    T = jax.tree.leaves(xs)[0].shape[0]
    before, after = integers
    form = vectors(cell, weights, carry)
    equations = Equations(weights, form.vector(carry), AtStep(zs, before, mask, _added(carry, T, taps, probe)))
    carries = form.carry(_differentiable(form, kind)(equations), after)
    return jax.tree.map(lambda h: h[-1], carries), cell.output(weights, carries, zs)


def newton_of(kind: str) -> Callable:
    """The runner of that kind. Raises ValueError for another one."""
    _check_kind(kind)
    return functools.partial(newton, kind=kind)


def newton_solve(
    cell: Cell,
    weights: Weights,
    carry: Carry,
    zs: Any,
    mask: Array | None = None,
    *,
    kind: str = "full",
    max_iterations: int = LIMIT,
    tolerance: float | None = None,
    guess: Carry | None = None,
) -> NewtonResult:
    """The states of all steps by Newton's method, and how many of its steps that took.

        d_t = A_t d_{t-1} - r_t(s),    s <- s + d,    r_t(s) = s_t - f_t(s_{t-1})

    After i steps the first i states are those of the recurrence, whatever A_t and rounding do, so T steps always
    suffice, and one more to see it. Where perturbations of the trajectory shrink (its largest Lyapunov exponent is
    negative) it takes O(log T) steps; where they grow, about T (Gonzalez et al. 2025, arXiv:2508.16817). A step takes n
    derivatives of f and, all at once, O(T n^3) of work and O(T n^2) of memory; with `kind="diagonal"`, O(T n). A state
    that is not finite is replaced by f_t(s_{t-1}).

    There is no damped kind (ELK: Levenberg-Marquardt as a Kalman filter; or A_t = (1 - k) J_t): on tanh networks near
    the edge of chaos each took more steps than none, and what damping guards against, the check of finiteness, the
    exactness of the first states and the runner's scan do.

    Args:
      cell: the cell; its `form` is not used.
      weights: `cell.weights(params)`.
      carry: the carry before the first step.
      zs: `cell.project(weights, xs)`, with a leading T.
      mask: `[T, ...]`, where false the carry is held; all true by default.
      kind: "full", A_t = J_t (DEER); "diagonal", what each unit makes of itself (quasi-DEER): where all parts of the
        carry have one shape, such as an LSTM's c and h, a block of J_t a unit, else its diagonal.
      max_iterations: after so many steps it gives up.
      tolerance: the residual at which it stops; by default 16 roundings, 2e-6 in float32 and 4e-15 in float64.
      guess: carries `[T, ..., H]`; by default s_t = f_t(h_0), which is in the range of f, whose first state is exact,
        and which is the solution for a cell without memory.

    Raises ValueError for another kind, and for an integer part of the carry that depends on the real ones.
    """
    _check_kind(kind)
    integers = clocks(cell, weights, carry, zs, mask)
    if integers is None:
        raise ValueError("an integer part of the carry depends on its real parts; allowed: on itself and the input")
    form = vectors(cell, weights, carry)
    before, after = integers
    equations = Equations(weights, form.vector(carry), AtStep(zs, before, mask, None))
    found = _solve(form, kind, equations, max_iterations, tolerance, None if guess is None else form.vector(guess))
    return found._replace(carries=form.carry(found.carries, after))


def _check_kind(kind):
    if kind not in KINDS:
        raise ValueError(f"kind of Newton's method is {kind!r}; allowed: {', '.join(map(repr, KINDS))}")


def _has_own_gradient(cell, weights, carry, zs) -> bool:
    """Whether the step says its own way back, without one forwards."""
    return "custom_vjp" in str(jax.make_jaxpr(cell.step)(weights, carry, jax.tree.map(lambda z: z[0], zs)))


def _added(carry, T, taps, probe):
    """What is added to h_t has the gradient of h_t."""
    if taps is None and probe is None:
        return None
    zeros = jax.tree.map(lambda h: jnp.zeros((T, *h.shape), h.dtype), carry)
    return probed(tapped(zeros, taps), probe)


def _differentiable(form: Vectors, kind: str) -> Callable[[Equations], Array]:
    """`equations -> states [T, ..., n]`, with the derivative of the equations: (1 - J) ds = df by all else."""

    @jax.custom_jvp
    def solution(equations):
        found = _solve(form, kind, equations, LIMIT)
        one_by_one = functools.partial(_step_by_step, form)
        return lax.cond(found.converged, lambda _: found.carries, one_by_one, equations)

    @solution.defjvp
    def _(primals, tangents):
        (equations,), (moved,) = primals, tangents
        states = solution(equations)
        _, df = jax.jvp(lambda e: _advance(form, e, states), (equations,), (moved,))
        return states, _travel_exactly(_path(form, equations, states), df, kind)

    return solution


def _solve(form, kind, equations, limit, tolerance=None, guess=None) -> NewtonResult:
    if guess is None:
        guess = jax.vmap(functools.partial(form.step, equations.weights, equations.start))(equations.at)
    travelled = travel if kind == "full" else travel_by_units

    def change(states, r):
        return travelled(_path(form, equations, states), r)

    return _iterate(functools.partial(_advance, form, equations), change, guess, limit, tolerance)


def _iterate(advance, change, guess, limit=LIMIT, tolerance=None, scale=1.0, reverse=False) -> NewtonResult:
    """The fixed point of `advance` by s <- s + change(s, advance(s) - s); its residual is relative to scale + |s|."""
    if tolerance is None:
        tolerance = ROUNDINGS * float(jnp.finfo(guess.dtype).eps)
    T = guess.shape[0]
    order = (T - 1 - jnp.arange(T) if reverse else jnp.arange(T)).reshape(-1, *[1] * (guess.ndim - 1))

    def judged(i, s):
        f = advance(s)
        apart = jnp.abs(s - f) / (scale + jnp.abs(f))
        return i, s, f, jnp.max(jnp.where(apart >= 0, apart, jnp.inf))  # the largest of NaN is not NaN on every CPU

    def goes_on(state):
        i, _, _, residual = state
        return (i < limit) & ~(residual <= tolerance)

    def body(state):
        i, s, f, _ = state
        new = s + change(s, f - s)
        return judged(i + 1, jnp.where(jnp.isfinite(new) & (order > i), new, f))  # the first i + 1 are exact by now

    i, _, f, residual = lax.while_loop(goes_on, body, all_varying(*judged(jnp.zeros((), jnp.int32), guess)))
    return NewtonResult(f, i, residual, residual <= tolerance)


def _travel_exactly(path: Path, b: Array, kind: str) -> Array:
    """d_t = J_t d_{t-1} + b_t whatever `kind` is, as a linear function of b that has a transpose."""
    along = path.along()

    def solve(_, b, reverse=False):
        if kind == "full":
            return travel(path, b, reverse)
        cpu, default = (functools.partial(way, path, reverse=reverse) for way in (step_by_step, by_iteration))
        return lax.platform_dependent(b, cpu=cpu, default=default)

    def by_iteration(path, b, reverse):
        """By the diagonals, which takes no matrices; step by step where that does not converge."""
        back = jax.linear_transpose(along, b)

        def advance(d):
            return b + (before_it(back(d)[0], reverse=True) if reverse else along(before_it(d)))

        def change(_, r):
            return travel_by_units(path, r, reverse)

        scale = jnp.max(jnp.abs(b)) + jnp.finfo(b.dtype).tiny
        found = _iterate(advance, change, b, scale=scale, reverse=reverse)
        one_by_one = functools.partial(step_by_step, path, reverse=reverse)
        return lax.cond(found.converged, lambda _: found.carries, one_by_one, b)

    def matvec(d):
        return d - along(before_it(d))

    return lax.custom_linear_solve(matvec, b, solve, functools.partial(solve, reverse=True))


def _path(form, equations, states) -> Path:
    before = jnp.concatenate([equations.start[None], states[:-1]])
    return Path(functools.partial(form.step, equations.weights), before, equations.at, form.parts)


def _advance(form, equations, states):
    """f_t(s_{t-1}) of all steps."""
    path = _path(form, equations, states)
    return jax.vmap(path.step)(path.before, path.at)


def _step_by_step(form, equations):
    def body(h, at):
        new = form.step(equations.weights, h, at)
        return new, new

    return lax.scan(body, equations.start, equations.at)[1]
