"""Cells of one state and few gates, simpler than a GRU: from one vector in the recurrence to two gates."""

import numbers

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import gated, memoized, unsquashed
from rnnjax.initializers import chrono, constant, normal, orthogonal
from rnnjax.types import Array, Cell, Params

sigmoid = jax.nn.sigmoid


@memoized
def indrnn(
    hidden_size: int, *, t_max: float | Array | None = None, growth: float | Array = 5.0, long_memory: bool = False
) -> Cell:
    """Independently recurrent network (IndRNN): each unit sees itself alone, and the layers mix them.

        h_t = relu(W x_t + u h_{t-1} + b),    |u| <= growth^(1/T_max)        u [H], elementwise

    Li et al. (2018, arXiv:1803.04831), Independently recurrent neural network. Over T_max steps neither a state nor a
    gradient grows by more than `growth`. The authors' code cuts u off at the bound between updates, where asked to.
    Here a u beyond it is folded back, u -> 2 bound - u, so that the gradient is the true one of what is computed, and
    beyond the bound points back: u stays near it, as there. u starts as U(0, bound), W as Glorot's. Without the batch
    norm that the authors put around it.

    Args:
      hidden_size: H.
      t_max: T_max, usually the length of the sequence; None, that of endless ones: a bound of 1.
      growth: by how much a state may grow over T_max steps; 5 in the authors' code, 2 in a port of it.
      long_memory: u starts in [growth^(-1/T_max), growth^(1/T_max)] instead, so that every unit remembers over T_max
        steps, as in the last layer of the authors' stacks; without t_max it starts as 1.

    Raises ValueError for a t_max that is not above 0, and for a growth below 1.
    """
    if isinstance(t_max, numbers.Real) and t_max <= 0:
        raise ValueError(f"{t_max=}; allowed: more than 0, or None")
    if isinstance(growth, numbers.Real) and growth < 1:
        raise ValueError(f"{growth=}; allowed: 1 or more")
    exponent = 0.0 if t_max is None else 1 / t_max

    def starting_u(key, shape, dtype):
        lowest = growth**-exponent if long_memory else 0.0
        return lowest + (growth**exponent - lowest) * jax.random.uniform(key, shape, dtype)

    def weights(params: Params) -> Params:
        u, bound = params["u"], jnp.asarray(growth**exponent, params["u"].dtype)
        folded = jnp.sign(u) * jnp.maximum(2 * bound - jnp.abs(u), -bound)
        return params | {"W_h": jnp.where(jnp.abs(u) > bound, folded, u)}

    cell = gated(hidden_size, {"h": jax.nn.relu}, lambda weights, old, *, h: h, diagonal=True, w_h=starting_u)

    def init(key: Array, input_size: int) -> Params:
        params = cell.init(key, input_size)
        return params | {"u": params.pop("W_h")}

    return cell._replace(init=init, weights=weights)


@memoized
def fastrnn(hidden_size: int, *, alpha: float | Array = -3.0, beta: float | Array = 3.0) -> Cell:
    """FastRNN: an Elman network with a weighted residual connection, two numbers more.

        n_t = tanh(W x_t + U h_{t-1} + b)
        h_t = sigmoid(alpha) n_t + sigmoid(beta) h_{t-1}        alpha, beta numbers

    Kusupati et al. (2018, arXiv:1901.02358), FastGRNN. The two weights start near 0 and near 1, so that the state is
    kept; some ports swap them, which forgets it at once. As in the authors' code W and U start as N(0, 0.1^2), b as 1.

    Args:
      hidden_size: H.
      alpha, beta: their values at the start, before the sigmoid.
    """

    def update(weights, h, *, n):
        return sigmoid(weights["alpha"]) * n + sigmoid(weights["beta"]) * h

    small = normal(0.1)
    cell = gated(hidden_size, {"n": jnp.tanh}, update, w_x=small, w_h=small, bias={"n": constant(1.0)})
    return _with_numbers(cell, alpha=alpha, beta=beta)


@memoized
def fastgrnn(
    hidden_size: int,
    *,
    zeta: float | Array = 1.0,
    nu: float | Array = -4.0,
    rank_x: int | None = None,
    rank_h: int | None = None,
) -> Cell:
    """FastGRNN: a gate and a candidate that share their matrices.

        p_t = W x_t + U h_{t-1}
        z_t = sigmoid(p_t + b_z),    n_t = tanh(p_t + b_n)
        h_t = (sigmoid(zeta) (1 - z_t) + sigmoid(nu)) n_t + z_t h_{t-1}        zeta, nu numbers

    Kusupati et al. (2018, arXiv:1901.02358), FastGRNN. As in the authors' code W and U, or their factors, start as
    N(0, 0.1^2), both biases as 1.

    Args:
      hidden_size: H.
      zeta, nu: their values at the start, before the sigmoid.
      rank_x, rank_h: W and U are products W_1 W_2 and U_1 U_2 of this inner size; None, they are whole.

    Raises ValueError for a rank below 1 or not whole.
    """
    ranks = {"W_x": rank_x, "W_h": rank_h}
    for option, rank in (("rank_x", rank_x), ("rank_h", rank_h)):
        if rank is not None and (not isinstance(rank, numbers.Integral) or rank < 1):
            raise ValueError(f"{option} is {rank}; allowed: 1, 2, ..., or None")

    def update(weights, h, *, p):
        z = sigmoid(p + weights["b_z"])
        n = jnp.tanh(p + weights["b_n"])
        return (sigmoid(weights["zeta"]) * (1 - z) + sigmoid(weights["nu"])) * n + z * h

    small = normal(0.1)
    ones = {"b_z": constant(1.0), "b_n": constant(1.0)}
    cell = gated(hidden_size, {"p": unsquashed}, update, w_x=small, w_h=small, vectors=ones)
    cell = without_bias(_with_numbers(cell, zeta=zeta, nu=nu), b=hidden_size)

    def init(key: Array, input_size: int) -> Params:
        key, *keys = jax.random.split(key, 5)
        params = cell.init(key, input_size)
        for name, (left, right) in {"W_x": keys[:2], "W_h": keys[2:]}.items():
            if ranks[name] is not None:
                rows, columns = params.pop(name).shape
                params[f"{name}_1"] = small(left, (rows, ranks[name]))
                params[f"{name}_2"] = small(right, (ranks[name], columns))
        return params

    def weights(params: Params) -> Params:
        products = {n: params[f"{n}_1"] @ params[f"{n}_2"] for n, rank in ranks.items() if rank is not None}
        return cell.weights(params | products)

    return cell._replace(init=init, weights=weights)


@memoized
def ligru(hidden_size: int, *, gain: float | Array = 1.0) -> Cell:
    """Light GRU (Li-GRU): no reset gate, and a relu.

        z_t = sigmoid(W_z x_t + U_z h_{t-1} + b_z)
        a_t = relu(W_a x_t + U_a h_{t-1} + b_a)
        h_t = z_t h_{t-1} + (1 - z_t) a_t

    Ravanelli et al. (2018, arXiv:1803.10225), Light gated recurrent units for speech recognition. The paper puts batch
    norm around W x, and relies on it to keep the relu's state bounded; here there is none, so a high `gain` may let it
    grow. W starts as Glorot's, biases as 0.

    Args:
      hidden_size: H.
      gain: scale of the orthogonal U, gate by gate.
    """

    def update(weights, h, *, z, a):
        return z * h + (1 - z) * a

    return gated(hidden_size, {"z": sigmoid, "a": jax.nn.relu}, update, w_h=orthogonal(gain))


@memoized
def light_ru(hidden_size: int, *, gain: float | Array = 1.0) -> Cell:
    """Light recurrent unit: one gate, and a candidate that sees the input alone.

        n_t = tanh(W_n x_t)
        f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)
        h_t = (1 - f_t) h_{t-1} + f_t n_t

    Ye et al. (2024), Light recurrent unit (Electronics 13:3204), who call it LRU, as another cell is called. f takes up
    the new, and 1 - f forgets. W starts as Glorot's, b_f as 0.

    Args:
      hidden_size: H.
      gain: scale of the orthogonal U_f.
    """

    def update(weights, h, *, f, n):
        return (1 - f) * h + f * n

    gates = {"f": sigmoid, "n": jnp.tanh}
    cell = gated(hidden_size, gates, update, of_state=("f",), w_h=orthogonal(gain))
    return without_bias(cell, b=hidden_size)


@memoized
def star(hidden_size: int, *, chrono_t_max: float | Array | None = None, gain: float | Array = 1.0) -> Cell:
    """Stackable recurrent cell (STAR): one gate, made to be stacked high.

        z_t = tanh(W_z x_t + b_z)
        k_t = sigmoid(W_x x_t + W_h h_{t-1} + b_k)
        h_t = tanh((1 - k_t) h_{t-1} + k_t z_t)

    Turkoglu et al. (2019, arXiv:1911.11033), Gating revisited: the paper's equations. The authors' code computes
    another cell, whose two weights do not sum to 1. W starts as Glorot's.

    Args:
      hidden_size: H.
      chrono_t_max: spreads the timescales over [2, T_max]: b_k = -log U(1, T_max - 1), as in the authors' code, with
        784 for pixels of digits; None, b_k starts as 0.
      gain: scale of the orthogonal W_h.

    Raises ValueError for a chrono_t_max of 2 or less.
    """
    if isinstance(chrono_t_max, numbers.Real) and chrono_t_max <= 2:
        raise ValueError(f"{chrono_t_max=}; allowed: more than 2")

    def slow(key, shape, dtype):
        return -chrono(chrono_t_max)(key, shape, dtype)

    def update(weights, h, *, z, k):
        return jnp.tanh((1 - k) * h + k * z)

    gates, bias = {"z": jnp.tanh, "k": sigmoid}, {} if chrono_t_max is None else {"k": slow}
    return gated(hidden_size, gates, update, of_state=("k",), w_h=orthogonal(gain), bias=bias)


def _with_numbers(cell: Cell, **values: float | Array) -> Cell:
    """The cell with further parameters that are one number each, which start at these values."""

    def init(key: Array, input_size: int) -> Params:
        return cell.init(key, input_size) | {n: jnp.asarray(value, jnp.float32) for n, value in values.items()}

    return cell._replace(init=init)


def without_bias(cell: Cell, **counts: int) -> Cell:
    """The cell whose last `counts[name]` entries of the bias `name` are no parameters, but zero."""

    def init(key: Array, input_size: int) -> Params:
        params = cell.init(key, input_size)
        kept = {name: params.pop(name)[:-count] for name, count in counts.items()}
        return params | {name: b for name, b in kept.items() if b.size}

    def weights(params: Params) -> Params:
        none = jnp.zeros(0, params["W_x"].dtype)
        return params | {name: jnp.pad(params.get(name, none), (0, count)) for name, count in counts.items()}

    return cell._replace(init=init, weights=weights)
