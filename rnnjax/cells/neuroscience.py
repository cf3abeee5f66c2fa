"""Rate networks of neuroscience, piecewise linear ones that are fitted to recordings, and untrained reservoirs."""

import numbers
from typing import Literal

import jax
import jax.numpy as jnp

from rnnjax.cells.gated import check_hidden_size, check_positive, gated, memoized, unsquashed, with_constants
from rnnjax.initializers import Initializer, normal, spectral, uniform, uniform_sqrt, zeros
from rnnjax.types import Array, Carry, Cell, Params, Weights

RATES = {"relu": jax.nn.relu, "tanh": jnp.tanh, "softplus": jax.nn.softplus, "sigmoid": jax.nn.sigmoid}


@memoized
def leaky_rnn(
    hidden_size: int,
    *,
    alpha: float | Array = 0.2,
    activation: Literal["relu", "tanh", "softplus", "sigmoid"] = "relu",
    excitatory: float | None = None,
    noise: float | Array = 0.0,
    spectral_radius: float | Array | None = None,
) -> Cell:
    """The rate network of neuroscience: leaky currents x, shown as rates r, with or without Dale's law.

        x_t = (1 - alpha) x_{t-1} + alpha (W_h phi(x_{t-1}) + W_x u_t + b) + sqrt(2 alpha) noise xi_t
        r_t = phi(x_t)

    Song, Yang & Wang (2016), Training excitatory-inhibitory recurrent neural networks for cognitive tasks: a simple and
    flexible framework. Dale's law, `excitatory`: a unit is excitatory or inhibitory to all units, W_h = D max(0, M) for
    a diagonal D of ones and minus ones. A synapse that has reached 0 has no gradient from then on. Inputs and readout
    stay free. Without the law W_h starts normal, with it gamma-distributed (shape 2), the inhibitory ones as much
    stronger as they are fewer. The carry is x, and starts at 0; W_x as Glorot's.

    Args:
      hidden_size: H.
      alpha: a step's length by the time constant, dt / tau.
      activation: phi, the nonlinearity of the rates.
      excitatory: the share of units that are excitatory, the first ones, rounded; 0.8 in the paper.
      noise: sigma of the currents' noise. It is drawn in training, and where `unroll` is given a key.
      spectral_radius: that of W_h at the start; by default 1.1, or 1.5 with Dale's law, as in the authors' code.

    Raises ValueError for an unknown `activation`, an `alpha` of 0 or less, and a share outside [0, 1].
    """
    if activation not in RATES:
        raise ValueError(f"unknown activation {activation!r}; allowed: {', '.join(RATES)}")
    if excitatory is not None and not 0 <= excitatory <= 1:
        raise ValueError(f"excitatory is {excitatory}; allowed: a share from 0 to 1, or None")
    radius = (1.1 if excitatory is None else 1.5) if spectral_radius is None else spectral_radius
    phi = RATES[activation]
    if excitatory is None:
        return _rate_network(hidden_size, phi, alpha, noise, w_h=spectral(radius, normal(1.0)))
    check_hidden_size(hidden_size)
    excited = round(excitatory * hidden_size)
    sign = jnp.where(jnp.arange(hidden_size) < excited, 1.0, -1.0)[:, None]  # a row is what a unit sends

    def signed(key, shape, dtype):
        strength = jax.random.exponential(key, (2, *shape), dtype).sum(axis=0)
        balance = excited / (hidden_size - excited) if 0 < excited < hidden_size else 1.0
        return strength * jnp.where(sign > 0, 1.0, -balance)

    def w_h(key, shape, dtype=jnp.float32):
        return jnp.abs(spectral(radius, signed)(key, shape, dtype))

    def weights(params: Params) -> Weights:
        return params | {"W_h": jax.nn.relu(params["W_h"]) * sign.astype(params["W_h"].dtype)}

    return _rate_network(hidden_size, phi, alpha, noise, w_h=w_h, weights=weights)


@memoized
def low_rank(hidden_size: int, *, rank: int = 1, alpha: float | Array = 0.2, noise: float | Array = 0.0) -> Cell:
    """The rate network whose recurrent matrix has a low rank R: its state moves in R dimensions and its inputs'.

        h_t = (1 - alpha) h_{t-1} + alpha (m n^T tanh(h_{t-1}) / H + W_x x_t + b) + sqrt(2 alpha) noise xi_t
        r_t = tanh(h_t)

    m and n are `[H, R]`. Mastrogiuseppe & Ostojic (2018, arXiv:1711.09672), Linking connectivity, dynamics, and
    computations in low-rank recurrent neural networks, by steps of Euler's; without the random part of full rank that
    they add. The carry is h, r is shown. m, n and W_x start N(0, 1), so that the overlap n^T m / H, the eigenvalue that
    is not 0, starts near 0 and is learned.

    Args:
      hidden_size: H.
      rank: R, that of the recurrent matrix.
      alpha: a step's length by the time constant, dt / tau.
      noise: sigma of the noise. It is drawn in training, and where `unroll` is given a key.

    Raises ValueError for a rank outside 1, ..., H and for an `alpha` of 0 or less.
    """
    check_hidden_size(hidden_size)
    if rank not in range(1, hidden_size + 1):
        raise ValueError(f"rank is {rank}; allowed: 1 to {hidden_size}, the units")

    def init(key: Array, input_size: int) -> Params:
        keys = jax.random.split(key, 3)
        return {
            "m": normal(1.0)(keys[0], (hidden_size, rank)),
            "n": normal(1.0)(keys[1], (hidden_size, rank)),
            "W_x": normal(1.0)(keys[2], (input_size, hidden_size)),
            "b": zeros(None, (hidden_size,)),
        }

    def weights(params: Params) -> Weights:
        return params | {"W_h": params["n"] @ params["m"].T / hidden_size}

    return _rate_network(hidden_size, jnp.tanh, alpha, noise, weights=weights)._replace(init=init)


def _rate_network(
    hidden_size: int,
    phi,
    alpha: float | Array,
    noise: float | Array,
    w_h: Initializer | None = None,
    weights=None,
) -> Cell:
    """x_t = (1 - alpha) x_{t-1} + alpha (W_h phi(x_{t-1}) + W_x u_t + b) + sqrt(2 alpha) noise xi_t, shown as phi."""
    check_positive(alpha=alpha)

    def update(weights: Weights, x: Carry, *, s: Array) -> Carry:
        return (1 - weights["alpha"]) * x + weights["alpha"] * s

    cell = gated(hidden_size, {"s": unsquashed}, update, state=phi, w_h=w_h)

    def project(weights: Weights, x: Array, key: Array | None = None) -> dict[str, Array]:
        s = cell.project(weights, x)["s"]
        if key is not None:  # `update` multiplies it by alpha
            scale = weights["noise"] * jnp.sqrt(2 / weights["alpha"])
            s = s + scale * jax.random.normal(key, s.shape, s.dtype)
        return {"s": s}

    silent = isinstance(noise, numbers.Real) and noise == 0  # a cell that never draws can be trained in more ways
    project = cell.project if silent else project
    shown = cell._replace(project=project, output=lambda weights, x, z: phi(x), weights=weights or cell.weights)
    return with_constants(shown, alpha=alpha, noise=noise)


@memoized
def plrnn(hidden_size: int) -> Cell:
    """Piecewise linear recurrent network: linear, but for the ReLU through which units see one another.

        z_t = A z_{t-1} + W_h relu(z_{t-1}) + W_x x_t + b        A diagonal, W_h without a diagonal

    Durstewitz (2017), A state space approach for piecewise-linear recurrent neural networks for identifying
    computational dynamics from neural measurements; in the form of Brenner et al. (2022, arXiv:2207.02542), with b in
    the place of thresholds. A + W_h starts as (I + R^T R / H), R normal, scaled so that
    its largest eigenvalue is 1 (Talathi & Vartak 2015, arXiv:1511.03771); b uniform in +-1/sqrt(H), W_x as Glorot's.
    The authors start z at the data; here it starts at 0.

    Args:
      hidden_size: H.
    """

    check_hidden_size(hidden_size)

    def update(weights: Weights, z: Carry, *, s: Array) -> Carry:
        return weights["A"] * z + s

    bias = {"s": uniform_sqrt(hidden_size)}
    cell = gated(hidden_size, {"s": unsquashed}, update, state=jax.nn.relu, bias=bias, vectors={"A": zeros})

    def positive(key, shape, dtype):
        R = jax.random.normal(key, shape, dtype)
        return jnp.eye(hidden_size, dtype=dtype) + R.T @ R / hidden_size

    def init(key: Array, input_size: int) -> Params:
        key, key_matrix = jax.random.split(key)
        both = spectral(1.0, positive)(key_matrix, (hidden_size, hidden_size))
        return cell.init(key, input_size) | {"A": jnp.diagonal(both), "W_h": _without_diagonal(both)}

    def weights(params: Params) -> Weights:
        return params | {"W_h": _without_diagonal(params["W_h"])}

    return cell._replace(init=init, weights=weights)


@memoized
def dend_plrnn(hidden_size: int, *, bases: int = 20, clipped: bool = False) -> Cell:
    """Piecewise linear recurrent network with dendrites: `plrnn` with many ReLUs, each with its threshold, for one.

        z_t = A z_{t-1} + W_h phi(z_{t-1}) + W_x x_t + b
        phi(z) = sum_b alpha_b max(0, z - theta_b)                    theta_b [H], alpha_b one number

    Brenner et al. (2022, arXiv:2207.02542), Tractable dendritic RNNs for reconstructing nonlinear dynamical systems.
    Their code adds theta, and draws it from the range of the data, which a cell does not know: it starts N(0, 1);
    alpha uniform in +-1/sqrt(B), the rest as in `plrnn`.

    Args:
      hidden_size: H.
      bases: B, the ReLUs a unit is seen through.
      clipped: phi(z) = sum_b alpha_b (max(0, z - theta_b) - max(0, z)) instead, which is bounded, and with it every
        orbit if |A| < 1.

    Raises ValueError for fewer than 1 bases.
    """
    if bases < 1:
        raise ValueError(f"bases is {bases}; allowed: 1, 2, ...")
    cell = plrnn(hidden_size)

    def init(key: Array, input_size: int) -> Params:
        key, key_alpha, key_theta = jax.random.split(key, 3)
        return cell.init(key, input_size) | {
            "alpha": uniform_sqrt(bases)(key_alpha, (bases,)),
            "theta": normal(1.0)(key_theta, (bases, hidden_size)),
        }

    def step(weights: Weights, z: Carry, of_input: dict[str, Array]) -> Carry:
        bent = jax.nn.relu(z[..., None, :] - weights["theta"])
        if clipped:
            bent = bent - jax.nn.relu(z)[..., None, :]
        phi = jnp.einsum("b,...bh->...h", weights["alpha"], bent)
        return weights["A"] * z + phi @ weights["W_h"] + of_input["s"]

    return cell._replace(init=init, step=step, form=None)


def _without_diagonal(W: Array) -> Array:
    return W * (1 - jnp.eye(W.shape[0], dtype=W.dtype))


@memoized
def esn(
    hidden_size: int,
    *,
    spectral_radius: float | Array = 0.9,
    leak: float | Array = 1.0,
    input_scale: float | Array = 1.0,
    bias_scale: float | Array = 0.0,
    density: float = 0.1,
) -> Cell:
    """Echo state network: a random reservoir that no training changes. Its readout alone is trained.

        x_t = (1 - leak) x_{t-1} + leak tanh(W_x u_t + W_h x_{t-1} + b)

    Jaeger (2001), The echo state approach to analysing and training recurrent neural networks; the leak, Jaeger et al.
    (2007). The weights are parameters with a gradient of 0, which no optimiser changes and weight decay leaves alone. A
    unit sees a fixed number of units, through normal weights, so that no reservoir is without a cycle; W_x is uniform
    in +-input_scale, b in +-bias_scale. With b = 0 and no constant input, -u gives -x, and no linear
    readout is an even function of the input. `rnnjax.ridge_readout` finds the readout in one solve.

    Args:
      hidden_size: H.
      spectral_radius: the largest |eigenvalue| of W_h itself, whatever the leak.
      leak: how much of the state a step replaces.
      input_scale: the largest weight of an input.
      bias_scale: the largest bias.
      density: the share of units that a unit sees, rounded, one at least.

    Raises ValueError for a density outside (0, 1], and for a leak of 0 or less.
    """
    check_positive(leak=leak)
    if not 0 < density <= 1:
        raise ValueError(f"density is {density}; allowed: above 0, up to 1")

    def sparse(key, shape, dtype):
        key, key_mask = jax.random.split(key)
        lots = jax.random.uniform(key_mask, shape)
        drawn = jnp.sort(lots, axis=0)[max(1, round(density * shape[0])) - 1]
        return jnp.where(lots <= drawn, jax.random.normal(key, shape, dtype), 0)

    def update(weights: Weights, x: Carry, *, s: Array) -> Carry:
        return (1 - weights["leak"]) * x + weights["leak"] * s

    cell = gated(
        hidden_size,
        {"s": jnp.tanh},
        update,
        w_x=uniform(input_scale),
        w_h=spectral(spectral_radius, sparse),
        bias={"s": uniform(bias_scale)},
    )
    return with_constants(cell._replace(weights=jax.lax.stop_gradient), leak=leak)
