"""The gated orthogonal unit: a GRU whose candidate turns the state."""

import math

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, gated, memoized, unsquashed
from rnnjax.cells.orthogonal import modrelu
from rnnjax.cells.orthogonal_matrices import check_capacity, in_full, rotations
from rnnjax.initializers import uniform
from rnnjax.types import Array, Cell, Params, Weights


@memoized
def goru(hidden_size: int, *, capacity: int = 2) -> Cell:
    """The gated orthogonal recurrent unit (GORU): what it may forget, an orthogonal network cannot.

        r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)
        z_t = sigmoid(W_z x_t + U_z h_{t-1} + b_z)
        n_t = modrelu(W_n x_t + r_t (Q h_{t-1}); b_n)
        h_t = z_t h_{t-1} + (1 - z_t) n_t,                  modrelu(s; b) = sign(s) relu(|s| + b)

    Jing et al. (2017), Gated orthogonal recurrent units: on learning to forget (arXiv:1706.02761). The reset gate comes
    after Q = F_L ... F_2 F_1, which is orthogonal: odd F_k turn the units (1, 2), (3, 4), ... in pairs, even ones
    (2, 3), (4, 5), ..., each pair by its own angle theta. That is the tunable form; the authors' code also has one like
    a fast Fourier transform, its default, for H a power of 2.

    The angles start as U(-pi, pi), W and U as U(-0.01, 0.01), b_r as 2, b_z as 0, b_n as 0.01. The authors' code leaves
    b_z to its framework, U(-sqrt(3 / H), sqrt(3 / H)), and adds 0.001 to |s|.

    Args:
      hidden_size: H.
      capacity: L, the number of layers of rotations, an even one; more of them reach more rotations Q.

    Raises ValueError for a `capacity` that is not 2, 4, ...
    """
    check_hidden_size(hidden_size)
    check_capacity(capacity)
    H = hidden_size

    def update(weights, h, *, r, z, n_x, n_h):
        return z * h + (1 - z) * modrelu(n_x + r * n_h, weights["b_n"])

    cell = gated(
        H,
        {"r": jax.nn.sigmoid, "z": jax.nn.sigmoid, "n_x": unsquashed, "n_h": unsquashed},
        update,
        of_input=("r", "z", "n_x"),
        of_state=("r", "z", "n_h"),
    )

    def init(key: Array, input_size: int) -> Params:
        key_x, key_h, key_A, key_B = jax.random.split(key, 4)
        small, angle = uniform(0.01), uniform(math.pi)
        return {
            "W_x": small(key_x, (input_size, 3 * H)),
            "W_h": small(key_h, (H, 2 * H)),
            "b": jnp.repeat(jnp.array([2.0, 0.0], jnp.float32), H),
            "b_n": jnp.full(H, 0.01, jnp.float32),
            "theta_A": angle(key_A, (capacity // 2, H // 2)),
            "theta_B": angle(key_B, (capacity // 2, (H - 1) // 2)),
        }

    def matrix(params: Params) -> Array:
        theta = [params["theta_A"], params["theta_B"]]
        return rotations(jnp.eye(H, dtype=theta[0].dtype), theta)

    def weights(params: Params) -> Weights:
        W_h = jnp.concatenate([params["W_h"], in_full(matrix)(params).T], axis=1)
        none = jnp.zeros_like(params["b_n"])  # n has its bias in modrelu
        b = jnp.concatenate([params["b"], none])
        return {"W_x": params["W_x"], "W_h": W_h, "b": b, "b_h": none, "b_n": params["b_n"]}

    return cell._replace(init=init, weights=weights)
