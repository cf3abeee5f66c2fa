"""A linear system in continuous time whose step, input and output matrices the input selects."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, check_positive, memoized
from rnnjax.cells.linear import channel_init, channels, linear, retention
from rnnjax.initializers import log_uniform, uniform
from rnnjax.types import Array, Cell, Params, Weights


class Selected(NamedTuple):
    """What a step of `s6` needs of its input: the signals, their steps of time, and what reads in and out."""

    u: Array  # [..., H]
    dt: Array  # [..., H]
    B: Array  # [..., N]
    C: Array  # [..., N]


@memoized
def s6(
    hidden_size: int,
    *,
    state_size: int = 16,
    dt_rank: int | None = None,
    negative_eigenvalues: bool = False,
    dt_min: float | Array = 0.001,
    dt_max: float | Array = 0.1,
) -> Cell:
    """S6, the selective state space of Mamba: a linear system whose time, input and output the input chooses.

        dt_t = softplus(W_dt (W_r u_t) + b_dt)          [H]
        B_t, C_t = W_B u_t, W_C u_t                     [N], the same for all channels
        h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t        [H, N]
        y_t = C_t h_t + D u_t                           a sum over N

    with A = -exp(A_log). Gu & Dao (2023, arXiv:2312.00752), Mamba: linear-time sequence modeling with selective state
    spaces. u = x, or W_u x where the input is not H wide. As in their code B is sampled by Euler's rule, dt B, and not
    held over the step as A is; the convolution before it, the gate and the norm around it belong to a block. It is
    linear in h: one layer alone computes nothing of its own state.

    A starts at -1, -2, ..., -N in each channel, b_dt so that dt is log-uniform between its bounds, W_dt uniform in
    +-R^-1/2, the other matrices as PyTorch's linear layers, uniform in +-H^-1/2, D at 1. Its transitions are as large
    as its states, T H N numbers a sequence: over a long one `segments` of `unroll` keep only some of them.

    Args:
      hidden_size: H, the channels.
      state_size: N, the states of each.
      dt_rank: R, the width of W_r; by default H / 16, rounded up.
      negative_eigenvalues: the state is multiplied by 2 exp(dt A) - 1, in [-1, 1] instead of [0, 1], without which no
        such network counts parity (Grazzi et al. 2024, arXiv:2411.12537).
      dt_min, dt_max: the range of dt at the start.

    Raises ValueError for a size below 1 or not whole.
    """
    check_hidden_size(hidden_size)
    H, N = hidden_size, state_size
    R = -(-H // 16) if dt_rank is None else dt_rank
    check_positive(state_size=N, dt_rank=R, dt_min=dt_min, dt_max=dt_max)

    def init(key: Array, input_size: int) -> Params:
        keys = jax.random.split(key, 6)
        dt = jnp.maximum(jnp.exp(log_uniform(dt_min, dt_max)(keys[0], (H,))), 1e-4)
        return {
            "W_r": uniform(H**-0.5)(keys[1], (H, R)),
            "W_dt": uniform(R**-0.5)(keys[2], (R, H)),
            "b_dt": dt + jnp.log(-jnp.expm1(-dt)),  # softplus of it is dt
            "W_B": uniform(H**-0.5)(keys[3], (H, N)),
            "W_C": uniform(H**-0.5)(keys[4], (H, N)),
            "A_log": jnp.tile(jnp.log(jnp.arange(1.0, N + 1, dtype=jnp.float32)), (H, 1)),
            "D": jnp.ones((H,), jnp.float32),
        } | channel_init(keys[5], input_size, H)

    def project(weights: Weights, x: Array, key: Array | None = None) -> Selected:
        u = channels(x, weights.get("W_u"))
        dt = jax.nn.softplus(u @ weights["W_r"] @ weights["W_dt"] + weights["b_dt"])
        return Selected(u, dt, u @ weights["W_B"], u @ weights["W_C"])

    def coefficients(weights: Weights, z: Selected) -> tuple[Array, Array]:
        # Of the input alone, and yet not in `project`: with N numbers a channel they would be kept for every step.
        a = jnp.exp(z.dt[..., None] * -jnp.exp(weights["A_log"]))
        return retention(a, negative_eigenvalues), (z.dt * z.u)[..., None] * z.B[..., None, :]

    def output(weights: Weights, h: Array, z: Selected) -> Array:
        return jnp.einsum("...hn,...n->...h", h, z.C) + weights["D"] * z.u

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> Array:
        return jnp.zeros((*batch_shape, H, N))

    return linear(init, initial_carry, coefficients, project=project, output=output)
