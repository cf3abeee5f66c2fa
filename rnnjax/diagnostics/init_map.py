"""Where at initialisation gradients vanish, survive or explode: maps over two hyperparameters of a cell."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rnnjax.diagnostics.lyapunov import lyapunov_spectrum
from rnnjax.diagnostics.sensitivity import frobenius_sensitivity
from rnnjax.types import Array, Cell


class InitMap(NamedTuple):
    """Both maps `[A, B]`, natural log per step; the edge of chaos is where they cross 0."""

    gradient_exponent: Array  # (1/T) log(|dh_T/dh_0|_F / sqrt(n))
    lyapunov: Array  # the largest Lyapunov exponent
    standard_error: Array  # of `lyapunov`


def init_map(
    make_cell: Callable[[Array, Array], Cell],
    a: Array,
    b: Array,
    xs: Array,
    *,
    key: Array,
    probes: int = 4,
    transient: int = 0,
    batch_size: int | None = None,
) -> InitMap:
    """Gradient exponent and largest Lyapunov exponent of a fresh cell, over the grid a x b.

    The edge of chaos: Sompolinsky, Crisanti & Sommers (1988); as the place where deep signals and gradients survive,
    Poole et al. (2016), and for gated cells Chen et al. (2018, arXiv:1806.05394), Can, Krishnamurthy & Schwab (2020).
    One trace for the whole grid, so `jax.jit` it once. Costs about `probes` + 2 gradients for each point of the grid;
    grows as A B T n^2.

    Args:
      make_cell: two traced numbers -> cell, such as `lambda gain, bias: lstm(64, gain=gain, forget_bias=bias)`.
      a, b: `[A]` and `[B]`, the values of its two arguments.
      xs: `[T, D]`, the sequence that drives every cell.
      key: draws the parameters, the same draw at each point so that the map is smooth, and the probes. One draw says
        nothing of the next: `jax.vmap` over keys shows how far the edge moves.
      probes: random gradients sent back through time, at most n.
      transient: steps left out of the Lyapunov exponent.
      batch_size: how many points of the grid run at once, where memory asks for it; all by default.
    """
    key_init, key_probes, key_frame = jax.random.split(key, 3)

    def point(ab):
        cell = make_cell(*ab)
        params = cell.init(key_init, xs.shape[1])
        sensitivity = frobenius_sensitivity(cell, params, xs, key=key_probes, probes=probes)
        spectrum = lyapunov_spectrum(cell, params, xs, k=1, transient=transient, key=key_frame)
        return sensitivity.log_norm[0] / xs.shape[0], spectrum.exponents[0], spectrum.standard_error[0]

    grid = tuple(g.ravel() for g in jnp.meshgrid(a, b, indexing="ij"))
    maps = jax.vmap(point)(grid) if batch_size is None else lax.map(point, grid, batch_size=batch_size)
    return InitMap(*(m.reshape(a.size, b.size) for m in maps))
