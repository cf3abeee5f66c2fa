"""Elman networks with a complex state and a unitary matrix, whatever is learned: in real numbers, made once a call."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, gated, memoized, unsquashed
from rnnjax.cells.orthogonal_matrices import check_capacity, elman_init, in_full, rotations
from rnnjax.initializers import Initializer, glorot, uniform, zeros
from rnnjax.types import Array, Carry, Cell, Params, Weights

EPSILON = 1e-5  # of the paper's code: |s| is the root of |s|^2 + EPSILON^2, which has a slope at 0


class ComplexState(NamedTuple):
    """The real and the imaginary part of h, both `[..., H]`."""

    re: Array
    im: Array


@memoized
def urnn(hidden_size: int) -> Cell:
    """The unitary evolution network (uRNN): W is a product of simple unitary matrices.

        h_t = modrelu(W h_{t-1} + W_x x_t; b)       h complex [H]
        W = D_3 R_2 F^-1 D_2 Pi R_1 F D_1
        modrelu(s; b) = s relu(|s| + b) / |s|,      y_t = [Re h_t, Im h_t]

    Arjovsky, Shah & Bengio (2015), Unitary evolution recurrent neural networks (arXiv:1511.06464). D_k = diag(exp(i
    theta_k)); R_k = I - 2 v_k v_k^* / |v_k|^2; F is the unitary Fourier transform; Pi is a fixed permutation, the order
    of the numbers `pi`. So W has 7 H parameters. W_x and v have their real parts first.

    theta is U(-pi, pi), v and W_x are Glorot's, b is U(-0.01, 0.01), and the first state h_0 is learned, from
    U(-sqrt(3 / 2H), sqrt(3 / 2H)). |s| is the root of |s|^2 + 1e-10, so that its slope is finite at 0; the authors'
    code adds 1e-5 to the denominator instead. Some ports leave out the conjugate of v^*: then R is not unitary.

    Args:
      hidden_size: H, the number of complex units; y has 2 H numbers.

    Raises ValueError for a hidden size below 1 or not whole.
    """
    check_hidden_size(hidden_size)
    H = hidden_size

    def draw(key: Array) -> Params:
        key_theta, key_v, key_pi, key_h = jax.random.split(key, 4)
        return {
            "theta": uniform(math.pi)(key_theta, (3, H)),
            "v": glorot(key_v, (2, 2 * H)),
            "pi": jax.random.permutation(key_pi, H).astype(jnp.float32),
            "h_0": uniform(math.sqrt(1.5 / H))(key_h, (2 * H,)),
        }

    def matrix(params: Params) -> Array:
        D_1, D_2, D_3 = _phases(params["theta"])[..., None]
        v_1, v_2 = jax.lax.complex(*jnp.split(params["v"], 2, axis=-1))
        order = jnp.argsort(jax.lax.stop_gradient(params["pi"]))
        W = jnp.fft.fft(D_1 * jnp.eye(H, dtype=D_1.real.dtype), axis=0, norm="ortho")
        W = jnp.fft.ifft(D_2 * _reflect(v_1, W)[order], axis=0, norm="ortho")
        return D_3 * _reflect(v_2, W)

    def initial_carry(weights: Weights, batch_shape: tuple[int, ...]) -> Carry:
        return ComplexState(*jnp.split(jnp.broadcast_to(weights["h_0"], (*batch_shape, 2 * H)), 2, axis=-1))

    return _elman(H, draw, matrix, w_x=glorot, bias=uniform(0.01))._replace(initial_carry=initial_carry)


@memoized
def eunn(hidden_size: int, *, capacity: int = 2) -> Cell:
    """The efficient unitary network (EUNN): W is layers of rotations of pairs of units, and a phase for each unit.

        h_t = modrelu(W h_{t-1} + W_x x_t; b)       h complex [H]
        W = D F_L ... F_2 F_1                       D = diag(exp(i omega))
        modrelu(s; b) = s relu(|s| + b) / |s|,      y_t = [Re h_t, Im h_t]

    Jing et al. (2016), Tunable efficient unitary neural networks (EUNN) (arXiv:1612.05231), in its tunable form. Odd
    F_k turn the units (1, 2), (3, 4), ...; even ones (2, 3), (4, 5), ..., each pair (p, q) by its own theta and phi:

        p' = exp(i phi) (cos(theta) p - sin(theta) q),      q' = sin(theta) p + cos(theta) q

    With L = H layers W can be any unitary matrix. All angles start as U(-pi, pi), W_x as U(-0.01, 0.01), b and the
    state as 0; the real parts of W_x come first. |s| is the root of |s|^2 + 1e-10, where the authors' code adds 0.01.

    Args:
      hidden_size: H, the number of complex units; y has 2 H numbers.
      capacity: L, the number of layers, an even one.

    Raises ValueError for a `capacity` that is not 2, 4, ...
    """
    check_hidden_size(hidden_size)
    check_capacity(capacity)
    shapes = {"A": (capacity // 2, hidden_size // 2), "B": (capacity // 2, (hidden_size - 1) // 2)}

    def draw(key: Array) -> Params:
        of_pairs = {f"{angle}_{layer}": shape for angle in ("theta", "phi") for layer, shape in shapes.items()}
        keys = jax.random.split(key, 5)
        drawn = {name: uniform(math.pi)(k, s) for k, (name, s) in zip(keys[:4], of_pairs.items(), strict=True)}
        return drawn | {"omega": uniform(math.pi)(keys[4], (hidden_size,))}

    def matrix(params: Params) -> Array:
        theta, phi = ([params[f"{angle}_{layer}"] for layer in "AB"] for angle in ("theta", "phi"))
        D = _phases(params["omega"])[:, None]
        return D * rotations(jnp.eye(hidden_size, dtype=D.dtype), theta, [_phases(a) for a in phi])

    return _elman(hidden_size, draw, matrix, w_x=uniform(0.01), bias=zeros)


def _elman(
    hidden_size: int,
    draw: Callable[[Array], Params],
    matrix: Callable[[Params], Array],
    *,
    w_x: Initializer,
    bias: Initializer,
) -> Cell:
    """h_t = modrelu(W h_{t-1} + W_x x_t; b) for the complex W = `matrix(params)`, of parameters that `draw` makes.

    With [Re h, Im h] for h it is one real map and then elementwise, as `gated` has it.
    """

    def update(weights: Weights, carry: Carry, *, re: Array, im: Array) -> Carry:
        modulus = jnp.sqrt(re**2 + im**2 + EPSILON**2)
        scale = jax.nn.relu(modulus + weights["threshold"]) / modulus
        return ComplexState(scale * re, scale * im)

    cell = gated(hidden_size, {"re": unsquashed, "im": unsquashed}, update, carry=ComplexState, state=_row)

    def weights(params: Params) -> Weights:
        W = in_full(matrix)(params)
        W_h = jnp.block([[W.real.T, W.imag.T], [-W.imag.T, W.real.T]])  # the state is a row
        b = params["b"]
        first = {name: params[name] for name in ("h_0",) if name in params}
        return {"W_x": params["W_x"], "W_h": W_h, "b": jnp.zeros_like(b, shape=2 * b.size), "threshold": b} | first

    init = elman_init(2 * hidden_size, hidden_size, draw, w_x, bias)
    return cell._replace(init=init, weights=weights, output=lambda weights, carry, z: _row(carry))


def _row(h: Carry) -> Array:
    return jnp.concatenate([h.re, h.im], axis=-1)


def _phases(angles: Array) -> Array:
    return jax.lax.complex(jnp.cos(angles), jnp.sin(angles))


def _reflect(v: Array, W: Array) -> Array:
    """R W, with the reflection R = I - 2 v v^* / |v|^2."""
    return W - 2 / jnp.vdot(v, v).real * jnp.outer(v, v.conj() @ W)
