"""Cells in which what comes of the input multiplies what comes of the state."""

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, gated, memoized, split, unsquashed
from rnnjax.initializers import constant, glorot, orthogonal, per_gate
from rnnjax.types import Array, Cell, Params

sigmoid = jax.nn.sigmoid


@memoized
def mi_rnn(
    hidden_size: int,
    *,
    alpha: float | Array = 1.0,
    beta_1: float | Array = 1.0,
    beta_2: float | Array = 1.0,
    gain: float | Array = 1.0,
) -> Cell:
    """Elman network with multiplicative integration (MI-RNN).

        h_t = tanh(alpha (W x_t) (U h_{t-1}) + beta_1 (U h_{t-1}) + beta_2 (W x_t) + b)        alpha, beta [H]

    Wu et al. (2016, arXiv:1606.06630), On multiplicative integration with recurrent neural networks, in the general
    form. The bare product, which some libraries have under this name, is alpha = 1, beta = 0: from a state of zeros it
    never leaves b. W starts as Glorot's, b as 0.

    Args:
      hidden_size: H.
      alpha, beta_1, beta_2: their values at the start. The paper tunes them to the task.
      gain: scale of the orthogonal U.
    """

    def update(weights, old, *, x, h):
        return jnp.tanh(_integrated(weights["alpha"], weights["beta_1"], weights["beta_2"], weights["bias"], x, h))

    vectors = {"alpha": constant(alpha), "beta_1": constant(beta_1), "beta_2": constant(beta_2)}
    cell = gated(
        hidden_size,
        {"x": unsquashed, "h": unsquashed},
        update,
        of_input=("x",),
        of_state=("h",),
        w_h=orthogonal(gain),
        vectors=vectors,
    )

    def init(key: Array, input_size: int) -> Params:
        params = cell.init(key, input_size)
        del params["b_h"]
        return params

    def weights(params: Params) -> Params:
        none = jnp.zeros_like(params["b"])  # b is added to all of it, and to neither factor
        return params | {"b": none, "b_h": none, "bias": params["b"]}

    return cell._replace(init=init, weights=weights)


@memoized
def mi_gru(
    hidden_size: int,
    *,
    alpha: float | Array = 1.0,
    beta_1: float | Array = 1.0,
    beta_2: float | Array = 1.0,
    gain: float | Array = 1.0,
) -> Cell:
    """GRU with multiplicative integration (MI-GRU).

        MI(p, q) = alpha p q + beta_1 q + beta_2 p + b        alpha, beta, b [H], for each gate its own
        r_t = sigmoid(MI(W_r x_t, U_r h_{t-1}))
        z_t = sigmoid(MI(W_z x_t, U_z h_{t-1}))
        n_t = tanh(MI(W_n x_t, U_n (r_t h_{t-1})))
        h_t = z_t h_{t-1} + (1 - z_t) n_t

    Wu et al. (2016, arXiv:1606.06630), On multiplicative integration with recurrent neural networks, in the GRU of
    Cho et al. (2014): z keeps the old state. Public versions put r before or after U_n, and one forgets both sigmoids.
    W starts as Glorot's, b as 0.

    Args:
      hidden_size: H.
      alpha, beta_1, beta_2: their values at the start, in all gates.
      gain: scale of the orthogonal U, gate by gate.
    """
    check_hidden_size(hidden_size)
    gates, columns = ("r", "z", "n"), 3 * hidden_size
    names = ("alpha", "beta_1", "beta_2", "b")

    def init(key: Array, input_size: int) -> Params:
        key_x, key_h = jax.random.split(key)
        starts = zip(names, (alpha, beta_1, beta_2, 0.0), strict=True)
        return {
            "W_x": per_gate(glorot, 3)(key_x, (input_size, columns)),
            "W_h": per_gate(orthogonal(gain), 3)(key_h, (hidden_size, columns)),
        } | {name: constant(start)(key, (columns,)) for name, start in starts}

    def initial_carry(weights: Params, batch_shape: tuple[int, ...]) -> Array:
        return jnp.zeros((*batch_shape, hidden_size))

    def project(weights: Params, x: Array, key: Array | None = None) -> dict[str, Array]:
        return {gate: x @ W for gate, W in split(weights["W_x"], gates).items()}

    def step(weights: Params, h: Array, p: dict[str, Array]) -> Array:
        U, *vectors = (split(weights[name], gates) for name in ("W_h", *names))

        def integrated(gate, state):
            return _integrated(*(v[gate] for v in vectors), p[gate], state @ U[gate])

        r, z = sigmoid(integrated("r", h)), sigmoid(integrated("z", h))
        return z * h + (1 - z) * jnp.tanh(integrated("n", r * h))

    return Cell(init, initial_carry, step, project)


def _integrated(alpha, beta_1, beta_2, b, p, q):
    """MI(p, q), of what comes of the input and of the state."""
    return alpha * p * q + beta_1 * q + beta_2 * p + b
