"""A readout found in one solve: the linear map from a network's states to its targets, by ridge regression."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rnnjax.engine.unroll import unroll
from rnnjax.types import Array, Cell, Params


class Readout(NamedTuple):
    """W h + b of states h `[..., H]`, for which it is called."""

    W: Array  # [H, O]
    b: Array  # [O]

    def __call__(self, states: Array) -> Array:
        """The outputs `[..., O]`."""
        return states @ self.W + self.b


def ridge_readout(
    cell: Cell,
    params: Params,
    inputs: Array,
    targets: Array,
    penalty: float = 1e-6,
    *,
    lengths: Array | None = None,
    washout: int = 0,
) -> Readout:
    """The linear readout of a cell that fits the targets best, its parameters as they are.

        W, b = argmin sum |h_t W + b - y_t|^2 + penalty |W|^2        over all steps of all sequences

    Hoerl & Kennard (1970): how echo state networks are trained (Jaeger 2001), and a probe of what any cell's state
    holds. Nothing is learned by steps, and there is one best answer. It is solved in float64 by NumPy, outside of
    `jax.jit`, from the states that `unroll` gives.

    Args:
      cell, params: any cell, trained or not; h is what it shows.
      inputs: `[T, ..., D]`.
      targets: `[T, ..., O]`, one a step; or `[..., O]`, one a sequence, read from its last step.
      penalty: the price of large weights, in units of the squared states: what noise calls for. With 0, the shortest W
        of those that fit best.
      lengths: integers `[...]`, the valid steps of each sequence; those after them do not count.
      washout: how many steps at the start do not count either, while the state still shows where it began.

    Raises ValueError for targets of another shape, a penalty below 0, a washout that leaves no step, and states or
    targets that are not finite.
    """
    T, *batch_shape = inputs.shape[:-1]
    every = targets.ndim == inputs.ndim
    allowed = (T, *batch_shape) if every else tuple(batch_shape)
    if targets.shape[:-1] != allowed or targets.ndim == 0:
        start = ", ".join(map(str, (T, *batch_shape)))
        raise ValueError(
            f"targets have shape {targets.shape}; allowed: [{start}, O], or [{', '.join(map(str, batch_shape))}, O]"
        )
    if not penalty >= 0:
        raise ValueError(f"penalty is {penalty}; allowed: 0 or more")
    if not (0 <= washout < T if every else washout == 0):
        raise ValueError(f"washout is {washout}; allowed: " + (f"0 to {T - 1}, of {T} steps" if every else "0"))
    _, states = unroll(cell, params, inputs, lengths=lengths, outputs="every" if every else "last")
    X, Y = (np.asarray(a, np.float64) for a in (states, targets))
    counted = np.ones(X.shape[:-1], bool)
    if every:
        t = np.arange(T).reshape(T, *(1,) * len(batch_shape))
        counted &= (t >= washout) & (t < (T if lengths is None else np.asarray(lengths)))
    elif lengths is not None:
        counted &= np.asarray(lengths) > 0
    W, b = _ridge(X[counted], Y[counted], penalty)
    dtype = jnp.result_type(states.dtype, jnp.float32)
    return Readout(jnp.asarray(W, dtype), jnp.asarray(b, dtype))


def _ridge(X: np.ndarray, Y: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """(W, b), the penalty as further rows of the least squares, which keeps the digits that X^T X would lose."""
    if len(X) == 0:
        raise ValueError("no step counts; allowed: a length above the washout, at least once")
    if not (np.isfinite(X).all() and np.isfinite(Y).all()):
        raise ValueError("states or targets are not finite")
    mean_x, mean_y = X.mean(axis=0), Y.mean(axis=0)
    rows = [X - mean_x, np.sqrt(penalty) * np.eye(X.shape[1])]
    targets = [Y - mean_y, np.zeros((X.shape[1], Y.shape[1]))]
    W, *_ = np.linalg.lstsq(np.concatenate(rows), np.concatenate(targets), rcond=None)
    return W, mean_y - mean_x @ W
