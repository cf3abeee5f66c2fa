"""Linear systems x' = A x + B u in continuous time with a diagonal A, sampled at steps of a length that is learned."""

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnjax.cells.gated import check_hidden_size, check_positive, memoized
from rnnjax.cells.linear import as_complex, channel_init, channels, linear
from rnnjax.initializers import glorot, log_uniform, normal
from rnnjax.types import Array, Cell, Params

Discretization = Literal["zoh", "bilinear"]
SMALL = 8  # of a block of HiPPO-N: in smaller ones there is hardly a frequency


class Modes(NamedTuple):
    """The system after it is sampled, made once a call. What is complex is read out by its real and imaginary part."""

    a: Array  # what a step multiplies the state by
    b: Array  # and the input
    C: tuple[Array, ...]  # (C,), or (C_re, C_im) with y = C_re Re h + C_im Im h
    D: Array
    W_u: Array | None = None  # [D, H], where the input has another width than H


@memoized
def s4d(
    hidden_size: int,
    *,
    state_size: int = 64,
    initialization: Literal["lin", "inv", "real"] = "lin",
    discretization: Discretization = "zoh",
    dt_min: float | Array = 0.001,
    dt_max: float | Array = 0.1,
) -> Cell:
    """S4D: each channel of the input drives a linear system of its own, whose modes do not see each other.

        h_t = exp(dt A) h_{t-1} + (exp(dt A) - 1) / A u_t       h complex [H, N / 2], dt [H], A [H, N / 2]
        y_t = 2 Re(C h_t) + D u_t                               a sum over the modes of each channel
        A = -exp(log_A_real) + i A_imag

    Gu, Gupta, Goel & Ré (2022, arXiv:2206.11893), On the parameterization and initialization of diagonal state space
    models. u = x, or W_u x where the input is not H wide. B is 1, as C can take its part; of a conjugate pair of modes
    one is kept, hence the 2. All of it is linear in x: a nonlinearity and a mix of the channels must stand around it.

    log dt starts uniform between the logarithms of its bounds, C as N(0, 1) (real and imaginary part with half of that
    each), D as N(0, 1). A_n starts as -1/2 + i pi n (lin), -1/2 + i N / pi (N / (2 n + 1) - 1) (inv), or -(n + 1)
    (real): then h is real, of N modes, and y_t = C h_t + D u_t.

    Args:
      hidden_size: H, the channels.
      state_size: N, the modes of each, counted with their conjugates.
      initialization: where A starts.
      discretization: zoh holds u over a step, and is exact for such an input; bilinear is the trapezoid's rule.
      dt_min, dt_max: the range of dt at the start.

    Raises ValueError for a size below 1 or not whole, an odd state size of conjugates, and an unknown word.
    """
    check_hidden_size(hidden_size)
    check_positive(state_size=state_size, dt_min=dt_min, dt_max=dt_max)
    _check_word("initialization", initialization, ("lin", "inv", "real"))
    real = initialization == "real"
    if not real and state_size % 2:
        raise ValueError(f"state_size is {state_size}; allowed: an even number, as each mode stands for a pair")
    H, N = hidden_size, state_size
    n = np.arange(N if real else N // 2)
    sample = _sampler(discretization)

    def init(key: Array, input_size: int) -> Params:
        keys = jax.random.split(key, 5)
        params = {"log_dt": log_uniform(dt_min, dt_max)(keys[0], (H,)), "D": normal(1.0)(keys[1], (H,))}
        if real:
            A = {"log_A_real": jnp.tile(np.log(n + 1.0).astype(np.float32), (H, 1))}
            C = {"C": normal(1.0)(keys[2], (H, n.size))}
        else:
            imag = math.pi * n if initialization == "lin" else N / math.pi * (N / (2 * n + 1) - 1)
            A = {
                "log_A_real": jnp.full((H, n.size), math.log(0.5), jnp.float32),
                "A_imag": jnp.tile(imag.astype(np.float32), (H, 1)),
            }
            C = {name: normal(0.5**0.5)(k, (H, n.size)) for name, k in zip(("C_re", "C_im"), keys[2:4], strict=True)}
        return params | A | C | channel_init(keys[4], input_size, H)

    def weights(params: Params) -> Modes:
        A, C = -jnp.exp(params["log_A_real"]), (params.get("C"),)
        if not real:
            A, C = as_complex(A, params["A_imag"]), (2 * params["C_re"], -2 * params["C_im"])
        a, b = sample(A, jnp.exp(params["log_dt"])[:, None])
        return Modes(a, b, C, params["D"], params.get("W_u"))

    def project(weights: Modes, x: Array, key: Array | None = None) -> Array:
        return channels(x, weights.W_u)

    def output(weights: Modes, h: Array, u: Array) -> Array:
        parts = zip((h.real, h.imag) if len(weights.C) == 2 else (h,), weights.C, strict=True)
        return sum(jnp.sum(part.astype(u.dtype) * C, axis=-1) for part, C in parts) + weights.D * u

    return linear(
        init,
        lambda weights, batch_shape: jnp.zeros((*batch_shape, H, n.size), weights.a.dtype),
        lambda weights, u: (weights.a, weights.b * u[..., None]),
        project=project,
        output=output,
        weights=weights,
    )


class Driven(NamedTuple):
    """What a step of `s5` needs of its input."""

    b: Array  # [..., P] complex, Bbar x_t
    y: Array  # [..., H], D x_t


@memoized
def s5(
    hidden_size: int,
    *,
    state_size: int | None = None,
    blocks: int | None = None,
    discretization: Discretization = "zoh",
    conj_sym: bool = True,
    clip_eigenvalues: bool = False,
    dt_min: float | Array = 0.001,
    dt_max: float | Array = 0.1,
) -> Cell:
    """S5: one linear system of many inputs and many outputs, with a diagonal transition.

        h_t = exp(dt Lambda) h_{t-1} + (exp(dt Lambda) - 1) / Lambda (B x_t)    h complex [P / 2], dt one a mode
        y_t = 2 Re(C h_t) + D x_t                                               [H]

    Smith, Warrington & Linderman (2022, arXiv:2208.04933), Simplified state space layers for sequence modeling. All of
    it is linear in x: a nonlinearity must stand around it. D is elementwise, and a matrix where the input is not H
    wide.

    Lambda starts as the eigenvalues of HiPPO-N, the normal part of the HiPPO-LegS matrix, -1/2 + i omega: those with
    omega < 0, once a block. With V its eigenvectors, B starts as V^-1 N(0, 1 / D) for inputs D wide, C as a complex
    normal of variance 2 / P times V, D as N(0, 1), log dt uniform between the logarithms of its bounds. The authors'
    code draws B with variance 1 / P.

    Args:
      hidden_size: H, the outputs.
      state_size: P, the modes with their conjugates; by default H, or the next even number.
      blocks: HiPPO-N matrices along the diagonal; by default 8, or fewer where they would be smaller than 8 by 8.
      discretization: zoh holds x over a step, and is exact for such an input; bilinear is the trapezoid's rule.
      conj_sym: one mode of each conjugate pair is kept. False: all P are, and y_t = Re(C h_t) + D x_t.
      clip_eigenvalues: Re Lambda is at most -1e-4, whatever is learned; else modes may learn to grow.
      dt_min, dt_max: the range of dt at the start.

    Raises ValueError for a size below 1 or not whole, blocks that do not fit, and an unknown word.
    """
    check_hidden_size(hidden_size)
    H = hidden_size
    P = H + H % 2 if state_size is None else state_size
    check_positive(state_size=P, dt_min=dt_min, dt_max=dt_max)
    pair = 2 if conj_sym else 1
    fit = (k for k in (8, 4, 2) if P % (k * pair) == 0 and P // k >= SMALL)
    blocks = next(fit, 1) if blocks is None else blocks
    if blocks < 1 or P % (blocks * pair):
        raise ValueError(f"state_size is {P} for {blocks} blocks; allowed: a multiple of {max(blocks, 1) * pair}")
    size = P // blocks
    sample = _sampler(discretization)

    def init(key: Array, input_size: int) -> Params:
        key_modes, key_D, key_dt = jax.random.split(key, 3)
        return {
            **_hippo_init(key_modes, input_size, H, blocks, size, size // pair),
            "D": normal(1.0)(key_D, (H,)) if input_size == H else glorot(key_D, (input_size, H)),
            "log_step": log_uniform(dt_min, dt_max)(key_dt, (P // pair,)),
        }

    def weights(params: Params) -> Modes:
        re = jnp.minimum(params["Lambda_re"], -1e-4) if clip_eigenvalues else params["Lambda_re"]
        a, scale = sample(as_complex(re, params["Lambda_im"]), jnp.exp(params["log_step"]))
        B = scale * as_complex(params["B_re"], params["B_im"])
        C = pair * jnp.concatenate([params["C_re"], -params["C_im"]])
        return Modes(a, jnp.concatenate([B.real, B.imag], axis=1).astype(params["B_re"].dtype), (C,), params["D"])

    def project(weights: Modes, x: Array, key: Array | None = None) -> Driven:
        skipped = x * weights.D if weights.D.ndim == 1 else x @ weights.D
        return Driven(as_complex(*jnp.split(x @ weights.b, 2, axis=-1)), skipped)

    def output(weights: Modes, h: Array, z: Driven) -> Array:
        return jnp.concatenate([h.real, h.imag], axis=-1).astype(z.y.dtype) @ weights.C[0] + z.y

    return linear(
        init,
        lambda weights, batch_shape: jnp.zeros((*batch_shape, *weights.a.shape), weights.a.dtype),
        lambda weights, z: (weights.a, z.b),
        project=project,
        output=output,
        weights=weights,
    )


def _hippo_init(key: Array, input_size: int, H: int, blocks: int, size: int, kept: int) -> Params:
    """Lambda, B and C of `kept` modes of each block of HiPPO-N."""
    lam, V = hippo_n(size)
    lam, V = lam[:kept], V[:, :kept]  # they are sorted by omega: half of them has it below 0
    re, im = (jnp.asarray(part, jnp.float32) for part in (V.real, V.imag))
    key_B, *keys_C = jax.random.split(key, 3)
    B = normal(max(input_size, 1) ** -0.5)(key_B, (input_size, blocks, size))
    C_re, C_im = (normal((blocks * size) ** -0.5)(k, (blocks, size, H)) for k in keys_C)

    def to_modes(part):
        return jnp.einsum("dbs,sm->dbm", B, part).reshape(input_size, blocks * kept)

    def of_modes(C, part):
        return jnp.einsum("bsh,sm->bmh", C, part).reshape(blocks * kept, H)

    return {
        "Lambda_re": jnp.tile(jnp.asarray(lam.real, jnp.float32), blocks),
        "Lambda_im": jnp.tile(jnp.asarray(lam.imag, jnp.float32), blocks),
        "B_re": to_modes(re),
        "B_im": -to_modes(im),  # V^-1 is the conjugate of V transposed
        "C_re": of_modes(C_re, re) - of_modes(C_im, im),
        "C_im": of_modes(C_re, im) + of_modes(C_im, re),
    }


@functools.cache
def hippo_n(size: int) -> tuple[np.ndarray, np.ndarray]:
    """(eigenvalues [N] by imaginary part, eigenvectors [N, N]) of HiPPO-N, whose real part is -1/2."""
    n = np.arange(size)
    root = np.sqrt(2 * n + 1)
    A = -(np.tril(np.outer(root, root)) - np.diag(n))  # HiPPO-LegS
    normal_part = A + np.outer(root, root) / 2  # -1/2 on the diagonal, skew-symmetric off it
    omega, V = np.linalg.eigh(-1j * (normal_part + np.eye(size) / 2))
    return -0.5 + 1j * omega, V


def _sampler(discretization: str) -> Callable[[Array, Array], tuple[Array, Array]]:
    """`(A, dt) -> (a, b)` of the system h' = A h + u sampled at steps of dt. Raises ValueError for an unknown rule."""
    _check_word("discretization", discretization, ("zoh", "bilinear"))

    def zoh(A, dt):
        return jnp.exp(dt * A), jnp.expm1(dt * A) / A

    def bilinear(A, dt):
        inverse = 1 / (1 - dt / 2 * A)
        return inverse * (1 + dt / 2 * A), inverse * dt

    return {"zoh": zoh, "bilinear": bilinear}[discretization]


def _check_word(name: str, word: str, allowed: tuple[str, ...]):
    if word not in allowed:
        raise ValueError(f"unknown {name} {word!r}; allowed: {', '.join(allowed)}")
