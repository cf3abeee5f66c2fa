"""The linear recurrent unit: complex numbers that turn and fade, each by itself."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, memoized
from rnnjax.cells.linear import linear
from rnnjax.initializers import normal
from rnnjax.types import Array, Cell, Params


class LRUWeights(NamedTuple):
    """What is made of the parameters once a call; matrices by their real and imaginary parts, as x and y are real."""

    lam: Array  # [H] complex, the eigenvalues
    B: Array  # [D, 2 H], gamma B: real parts, then imaginary ones
    C: Array  # [2 H, H], so that [Re h, Im h] C = Re(C h)
    D: Array  # [D, H]


class LRUInput(NamedTuple):
    """What a step needs of its input."""

    b: Array  # [..., H] complex, gamma B x_t
    y: Array  # [..., H], D x_t


@memoized
def lru(
    hidden_size: int, *, r_min: float | Array = 0.0, r_max: float | Array = 1.0, max_phase: float | Array = 6.283185307
) -> Cell:
    """The linear recurrent unit (LRU).

        h_t = lambda h_{t-1} + gamma (B x_t)        h complex [H], elementwise
        y_t = Re(C h_t) + D x_t                     [H]
        lambda = exp(-exp(nu_log) + i exp(theta_log)),    gamma = exp(gamma_log)

    Orvieto et al. (2023), Resurrecting recurrent neural networks for long sequences (arXiv:2303.06349). All of it is
    linear; what is not must stand around it. |lambda| < 1 whatever is learned. gamma starts as sqrt(1 - |lambda|^2), so
    that h keeps the size of its input, and is learned from there. D is a matrix, as the input may have another width.

    Args:
      r_min, r_max: the ring in which the eigenvalues start, uniformly by area: 0 <= r_min < r_max <= 1.
      max_phase: their largest angle at the start, in radians.

    Raises ValueError for a hidden size below 1 or not whole.
    """
    check_hidden_size(hidden_size)
    H = hidden_size

    def init(key: Array, input_size: int) -> Params:
        radius, angle, *keys = jax.random.split(key, 7)
        tiny = jnp.finfo(jnp.float32).tiny  # of both the logarithm is taken
        u, v = (jax.random.uniform(k, (H,), jnp.float32, minval=tiny) for k in (radius, angle))
        nu = -0.5 * jnp.log(u * (r_max**2 - r_min**2) + r_min**2)  # |lambda| = exp(-nu)
        ring = {
            "nu_log": jnp.log(nu),
            "theta_log": jnp.log(max_phase * v),
            "gamma_log": 0.5 * jnp.log(-jnp.expm1(-2 * nu)),
        }
        D = max(input_size, 1)
        spread = {"B_re": (2 * D) ** -0.5, "B_im": (2 * D) ** -0.5, "C_re": H**-0.5, "C_im": H**-0.5, "D": D**-0.5}
        matrices = {
            name: normal(spread[name])(k, (H if name.startswith("C") else input_size, H), jnp.float32)
            for name, k in zip(spread, keys, strict=True)
        }
        return {name: a.astype(jnp.float32) for name, a in (ring | matrices).items()}

    def weights(params: Params) -> LRUWeights:
        gamma = jnp.exp(params["gamma_log"])
        return LRUWeights(
            lam=jnp.exp(jax.lax.complex(-jnp.exp(params["nu_log"]), jnp.exp(params["theta_log"]))),
            B=jnp.concatenate([params["B_re"] * gamma, params["B_im"] * gamma], axis=1),
            C=jnp.concatenate([params["C_re"], -params["C_im"]]),
            D=params["D"],
        )

    def initial_carry(weights: LRUWeights, batch_shape: tuple[int, ...]) -> Array:
        return jnp.zeros((*batch_shape, H), weights.lam.dtype)

    def project(weights: LRUWeights, x: Array, key: Array | None = None) -> LRUInput:
        parts = jnp.split((x @ weights.B).astype(weights.lam.real.dtype), 2, axis=-1)
        return LRUInput(jax.lax.complex(*parts), x @ weights.D)

    def output(weights: LRUWeights, h: Array, z: LRUInput) -> Array:
        return jnp.concatenate([h.real, h.imag], axis=-1).astype(z.y.dtype) @ weights.C + z.y

    return linear(init, initial_carry, lambda w, z: (w.lam, z.b), project=project, output=output, weights=weights)
