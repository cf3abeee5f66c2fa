"""How an orthogonal matrix is made of free parameters, in a way that keeps its gradient."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rnnjax.initializers import Initializer
from rnnjax.types import Array, Params


def in_full(matrix: Callable[[Params], Array]) -> Callable[[Params], Array]:
    """`matrix` with products in full precision: in that of a GPU or TPU by default W would not be orthogonal."""

    def make(params: Params) -> Array:
        with jax.default_matmul_precision("highest"):
            return matrix(params)

    return make


def exp_of_skew(S: Array) -> Array:
    """exp(S) of a skew-symmetric S `[H, H]`, to the last digits where its angles |eigenvalue| are below 20.

    It is the quotient p(S) / p(-S) of Padé's polynomials of degree 13 (Higham 2005) at S / 4, squared twice. Such a
    quotient of a skew-symmetric matrix is orthogonal whatever its angles: W is so to the last digits of float32 up to
    angles of 100, long after it ceases to be the exponential. It is one program without branches.
    """
    c = [1.0]
    for k in range(13):
        c.append(c[-1] * (13 - k) / ((k + 1) * (26 - k)))
    S = S / 4
    eye = jnp.eye(S.shape[-1], dtype=S.dtype)
    S2 = S @ S
    S4 = S2 @ S2
    S6 = S4 @ S2
    even = S6 @ (c[12] * S6 + c[10] * S4 + c[8] * S2) + c[6] * S6 + c[4] * S4 + c[2] * S2 + eye
    odd = S @ (S6 @ (c[13] * S6 + c[11] * S4 + c[9] * S2) + c[7] * S6 + c[5] * S4 + c[3] * S2 + c[1] * eye)
    W = jnp.linalg.solve(even - odd, even + odd)
    W = W @ W
    W = W @ W
    return W @ (1.5 * eye - 0.5 * W.T @ W)  # a step of Newton's to the next orthogonal matrix: rounding errors leave


def elman_init(
    columns: int, units: int, draw: Callable[[Array], Params], w_x: Initializer, bias: Initializer
) -> Callable[[Array, int], Params]:
    """The `init` of a cell with W_x `[D, columns]`, b `[units]` and what `draw` makes of a key."""

    def init(key: Array, input_size: int) -> Params:
        key_x, key_b, key_h = jax.random.split(key, 3)
        return {"W_x": w_x(key_x, (input_size, columns)), "b": bias(key_b, (units,))} | draw(key_h)

    return init


def skew(entries: Array, size: int) -> Array:
    """A - A^T, for the strictly upper triangular A with these entries, row by row."""
    A = place(entries, np.tri(size, dtype=bool).T ^ np.eye(size, dtype=bool))
    return A - A.T


def place(entries: Array, where: np.ndarray) -> Array:
    """The matrix with these entries, row by row, where `where` is true, and 0 elsewhere."""
    return jnp.zeros(where.shape, entries.dtype).at[np.nonzero(where)].set(entries, unique_indices=True)


def blocks(angles: Callable[..., Array], key: Array, size: int) -> Array:
    """The entries of an A for which A - A^T has 2 by 2 blocks with these angles, and a 0 last where the size is odd."""
    first = np.arange(0, size - 1, 2)
    A = jnp.zeros((size, size)).at[first, first + 1].set(angles(key, first.shape))
    return A[np.triu_indices(size, 1)].astype(jnp.float32)


def henaff_angles(key: Array, shape: tuple[int, ...]) -> Array:
    """Henaff, Szlam & LeCun (2016): each U(-pi, pi)."""
    return jax.random.uniform(key, shape, jnp.float32, -math.pi, math.pi)


def cayley_angles(key: Array, shape: tuple[int, ...]) -> Array:
    """Helfrich et al. (2017): each -tan(u / 2), u from U(0, pi / 2)."""
    return -jnp.tan(jax.random.uniform(key, shape, jnp.float32, 0, math.pi / 2) / 2)


ANGLES = {"henaff": henaff_angles, "cayley": cayley_angles}


def rotations(W: Array, theta: Sequence[Array], phases: Sequence[Array] | None = None) -> Array:
    """F_L ... F_2 F_1 W: each layer turns the rows of W in pairs, from the first or from the second on, by turns.

        p' = phase (cos(theta) p - sin(theta) q),      q' = sin(theta) p + cos(theta) q

    Args:
      W: `[H, H]`, complex where there are phases.
      theta: the angles of the L / 2 layers that begin with the first row, `[L / 2, H // 2]`, and of those that begin
        with the second, `[L / 2, (H - 1) // 2]`.
      phases: complex numbers of such shapes; 1 by default.
    """

    def turn(W: Array, first: int, theta: Array, phase: Array) -> Array:
        rows = slice(first, first + 2 * theta.size)
        p, q = jnp.moveaxis(W[rows].reshape(theta.size, 2, W.shape[1]), 1, 0)
        cos, sin = jnp.cos(theta)[:, None], jnp.sin(theta)[:, None]
        turned = jnp.stack([phase * (cos * p - sin * q), sin * p + cos * q], axis=1)
        return W.at[rows].set(turned.reshape(2 * theta.size, W.shape[1]))

    def two_layers(W: Array, angles) -> tuple[Array, None]:
        for first, (theta, phase) in enumerate(angles):
            W = turn(W, first, theta, phase[:, None])
        return W, None

    phases = [jnp.ones_like(a) for a in theta] if phases is None else phases
    return jax.lax.scan(two_layers, W, tuple(zip(theta, phases, strict=True)))[0]


def check_capacity(capacity: int) -> None:
    """Raises ValueError unless it is 2, 4, ..."""
    if not isinstance(capacity, int) or capacity < 2 or capacity % 2:
        raise ValueError(f"capacity is {capacity}; allowed: 2, 4, ...")
