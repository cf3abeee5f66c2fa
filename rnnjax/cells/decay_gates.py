"""Linear recurrences whose decay the input sets, bounded from below, turning, or with an input scaled to match."""

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, memoized, unsquashed
from rnnjax.cells.linear import as_complex, channel_init, channels, linear, of_input_alone, retention
from rnnjax.initializers import constant, normal, zeros
from rnnjax.types import Array, Cell, Params, Weights

sigmoid = jax.nn.sigmoid
SMALLEST = 2.5e-7  # of what a root is taken of: its slope stays below 1000 or so


@memoized
def rglru(
    hidden_size: int,
    *,
    heads: int | None = None,
    c: float | Array = 8.0,
    a_min: float | Array = 0.9,
    a_max: float | Array = 0.999,
    negative_eigenvalues: bool = False,
) -> Cell:
    """The real-gated linear recurrent unit (RG-LRU) of Griffin.

        r_t, i_t = sigmoid(W_a u_t + b_a), sigmoid(W_x u_t + b_x)       W block-diagonal: one block a head
        a_t = exp(-c softplus(Lambda) r_t)
        h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t u_t)                   2 a_t - 1 for a_t: `negative_eigenvalues`

    De et al. (2024, arXiv:2402.19427), Griffin: mixing gated linear recurrences with local attention for efficient
    language models. u = x, or W_u x where the input is not H wide. The root keeps the size of h that of its input; its
    slope is bounded, as a may be 1. Linear in h: its block puts a nonlinearity around it.

    W starts as N(0, heads / H), b at 0, Lambda so that a at r = 1 is uniform between its bounds, as the paper says; the
    authors' code has exp(-softplus(Lambda)), before the power c, between them, uniformly by area. Where the paper calls
    a sigmoid(Lambda), its Lambda is the negative of this one.

    Args:
      hidden_size: H.
      heads: how many blocks W has. By default 4, or less where 4 does not divide H.
      c: how much a gate r of 1 lets fade.
      a_min, a_max: where a lies at r = 1, at the start.
      negative_eigenvalues: the state is multiplied by what lies in [-1, 1] instead of [0, 1], without which no such
        network counts parity (Grazzi et al. 2024, arXiv:2411.12537).

    Raises ValueError for a hidden size below 1 or not whole, and heads that do not divide it.
    """
    check_hidden_size(hidden_size)
    H = hidden_size
    heads = next(k for k in (4, 3, 2, 1) if H % k == 0) if heads is None else heads
    if heads < 1 or H % heads:
        raise ValueError(f"heads is {heads}; allowed: what divides the hidden size, {H}")
    block = (heads, H // heads, H // heads)

    def init(key: Array, input_size: int) -> Params:
        keys = jax.random.split(key, 4)
        a = a_min + (a_max - a_min) * jax.random.uniform(keys[0], (H,), jnp.float32)
        return {
            "W_a": normal((heads / H) ** 0.5)(keys[1], block),
            "W_x": normal((heads / H) ** 0.5)(keys[2], block),
            "b_a": zeros(None, (H,)),
            "b_x": zeros(None, (H,)),
            "Lambda": jnp.log(jnp.expm1(-jnp.log(a) / c)).astype(jnp.float32),
        } | channel_init(keys[3], input_size, H)

    def project(weights: Weights, x: Array, key: Array | None = None) -> tuple[Array, Array]:
        u = channels(x, weights.get("W_u"))
        parts = u.reshape(*u.shape[:-1], heads, -1)
        r, i = (
            sigmoid(jnp.einsum("...ni,nij->...nj", parts, weights[W]).reshape(u.shape) + weights[b])
            for W, b in (("W_a", "b_a"), ("W_x", "b_x"))
        )
        log_a = (-c * jax.nn.softplus(weights["Lambda"]) * r).astype(u.dtype)
        a = jnp.exp(log_a)
        rest = -4 * a * jnp.expm1(log_a) if negative_eigenvalues else -jnp.expm1(2 * log_a)  # 1 - a^2
        return retention(a, negative_eigenvalues), _root(rest) * i * u

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> Array:
        return jnp.zeros((*batch_shape, H))

    return linear(init, initial_carry, lambda weights, z: z, project=project)


@memoized
def hgrn(hidden_size: int, *, complex_state: bool = True, lower_bound: float | Array = 0.0) -> Cell:
    """The recurrence of HGRN: a forget gate with a lower bound, and a state that turns.

        f_t = gamma + (1 - gamma) sigmoid(W_f x_t + b_f)
        i_t = silu(W_re x_t + b_re) + i silu(W_im x_t + b_im)
        h_t = f_t exp(i theta) h_{t-1} + (1 - f_t) i_t          h complex [H];  y_t = [Re h_t, Im h_t]

    Qin, Yang & Zhong (2023, arXiv:2311.04823), Hierarchically gated recurrent neural network for sequence modeling.
    gamma rises from layer to layer there, the running sum of a softmax over layers; here it is an option of each. theta
    is learned, and starts as 10000^(-2 k / H) for unit k. The gate and norm of the output belong to a block; a widely
    used port has real states. Linear in h: a nonlinearity must stand around it. W starts as Glorot's, b at 0.

    Args:
      hidden_size: H.
      complex_state: False for a real state without theta: i_t = silu(W_i x_t + b_i), and y_t = h_t.
      lower_bound: gamma, in [0, 1); the memory of every unit lasts 1 / (1 - gamma) steps or more.

    Raises ValueError for a hidden size below 1 or not whole, and for a lower bound that is none.
    """
    if isinstance(lower_bound, int | float) and not 0 <= lower_bound < 1:
        raise ValueError(f"lower_bound is {lower_bound}; allowed: from 0 to below 1")
    names = ("re", "im") if complex_state else ("i",)

    def coefficients(weights: Weights, s: dict[str, Array]) -> tuple[Array, Array]:
        free = 1 - jnp.asarray(lower_bound, s["f"].dtype)
        f, rest = 1 - free * sigmoid(-s["f"]), free * sigmoid(-s["f"])
        if not complex_state:
            return f, rest * s["i"]
        theta = weights["theta"]
        return as_complex(f * jnp.cos(theta), f * jnp.sin(theta)), as_complex(rest * s["re"], rest * s["im"])

    gates = {"f": unsquashed} | {name: jax.nn.silu for name in names}
    if not complex_state:
        return of_input_alone(hidden_size, gates, coefficients)
    cell = of_input_alone(hidden_size, gates, coefficients, complex_state=True, output=_side_by_side)

    def init(key: Array, input_size: int) -> Params:
        theta = 10000.0 ** (-2 * jnp.arange(hidden_size, dtype=jnp.float32) / hidden_size)
        return cell.init(key, input_size) | {"theta": theta}

    return cell._replace(init=init)


@memoized
def gateloop(hidden_size: int, *, forget_bias: float | Array = 0.0) -> Cell:
    """GateLoop: a state whose decay and turn the input sets, written by a key and read by a query.

        a_t = sigmoid(W_a x_t + b_a) exp(i (W_p x_t + b_p))
        h_t = a_t h_{t-1} + k_t v_t                             h complex [H]; k, v, q linear in x_t
        y_t = q_t Re h_t

    Katsch (2023, arXiv:2311.01927), GateLoop: fully data-controlled linear recurrence for sequence modeling, with heads
    of one unit. Of the public ports one in JAX scans with Re a in the place of a, which is another recurrence, and the
    author's later code has a real state with tied gates. Linear in h, though y is a product of two functions of the
    input. W starts as Glorot's, b at 0 but for b_a.

    Args:
      hidden_size: H.
      forget_bias: b_a at the start; a larger one keeps more.

    Raises ValueError for a hidden size below 1 or not whole.
    """

    def coefficients(weights: Weights, s: dict[str, Array]) -> tuple[Array, Array]:
        return as_complex(s["a"] * jnp.cos(s["p"]), s["a"] * jnp.sin(s["p"])), s["k"] * s["v"]

    return of_input_alone(
        hidden_size,
        {"a": sigmoid} | dict.fromkeys("pkvq", unsquashed),
        coefficients,
        bias={"a": constant(forget_bias)},
        complex_state=True,
        output=lambda weights, h, s: s["q"] * h.real.astype(s["q"].dtype),
    )


def _root(rest):
    """sqrt(rest), and a straight line to 0 below `SMALLEST`."""
    return rest * jax.lax.rsqrt(jnp.maximum(rest, SMALLEST))


def _side_by_side(weights, h, s):
    return jnp.concatenate([h.real, h.imag], axis=-1).astype(s["f"].dtype)
