"""Writes tests/data/diagonal_vectors.npz: what the authors' own S5 and RG-LRU compute, and their gradients.

Run by hand where the folder `s5` of github.com/lindermanlab/S5 and `recurrentgemma` of google-deepmind can be imported:
`python tests/make_diagonal_vectors.py`. The tests only read the file.

Each case, `s5-zoh`, `s5-bilinear` and, in float32, `rglru`, holds the parameters under our names, `xs` `[T, B, D]`,
`ys`, a weight of the loss `dys`, and under `grad/` the gradient of sum(dys ys) by each parameter and by `xs`. `rglru`
has a first state `start`; its positions begin at 1, as at 0 that code takes the input as it is.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from recurrentgemma.jax.layers import RGLRU
from s5.ssm import S5SSM
from s5.ssm_init import make_DPLR_HiPPO

FILE = Path(__file__).parent / "data" / "diagonal_vectors.npz"
T, B, H, P = 5, 2, 4, 8


def main():
    jax.config.update("jax_enable_x64", True)
    xs = np.random.default_rng(0).normal(size=(T, B, H))
    arrays = {}
    for rule in ("zoh", "bilinear"):
        arrays |= case(f"s5-{rule}", *their_s5(rule), xs)
    arrays |= case("rglru", *their_rglru(), xs.astype(np.float32))
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {len(arrays)} arrays, {FILE.stat().st_size / 1e3:.0f} kB, jax {jax.__version__}")


def case(name, run, params, others, xs) -> dict[str, np.ndarray]:
    ys = run(params, xs)
    dys = np.random.default_rng(1).normal(size=ys.shape)
    by_params, by_xs = jax.grad(lambda params, xs: jnp.sum(dys * run(params, xs)), argnums=(0, 1))(params, xs)
    found = params | others | {"xs": xs, "ys": ys, "dys": dys, "grad/xs": by_xs}
    found |= {f"grad/{letter}": a for letter, a in by_params.items()}
    return {f"{name}/{letter}": np.asarray(a) for letter, a in found.items()}


def their_s5(rule):
    lam, _, _, V, _ = make_DPLR_HiPPO(P)
    lam, V = lam[: P // 2], V[:, : P // 2]
    sizes = {"H": H, "P": P // 2, "C_init": "trunc_standard_normal", "dt_min": 0.001, "dt_max": 0.1}
    model = S5SSM(lam.real, lam.imag, V, V.conj().T, discretization=rule, conj_sym=True, **sizes)
    theirs = model.init(jax.random.key(0), jnp.zeros((T, H)))["params"]
    parts = {f"{letter}_{part}": theirs[letter][..., k].T for letter in "BC" for k, part in enumerate(("re", "im"))}
    params = {name: theirs[name] for name in ("Lambda_re", "Lambda_im", "D")} | parts
    params["log_step"] = theirs["log_step"][:, 0]

    def run(params, xs):
        matrices = {c: jnp.stack([params[f"{c}_re"].T, params[f"{c}_im"].T], axis=-1) for c in "BC"}
        given = {n: params[n] for n in ("Lambda_re", "Lambda_im", "D")} | matrices
        given["log_step"] = params["log_step"][:, None]
        return jnp.stack([model.apply({"params": given}, xs[:, b]) for b in range(B)], axis=1)

    return run, params, {}


def their_rglru():
    model, start = RGLRU(H, num_heads=2), jnp.asarray(np.random.default_rng(2).normal(size=(B, H)), jnp.float32)
    positions = jnp.broadcast_to(jnp.arange(1, T + 1), (B, T))
    theirs = model.init(jax.random.key(0), jnp.zeros((B, T, H), jnp.float32), positions, start)["params"]
    noise = np.random.default_rng(3)
    params = {
        "W_a": theirs["a_gate"]["w"],
        "W_x": theirs["input_gate"]["w"],
        "b_a": noise.normal(size=H).astype(np.float32),
        "b_x": noise.normal(size=H).astype(np.float32),
        "Lambda": theirs["a_param"],
    }

    def run(params, xs):
        gates = {
            name: {"w": params[f"W_{letter}"], "b": params[f"b_{letter}"].reshape(2, -1)}
            for name, letter in (("a_gate", "a"), ("input_gate", "x"))
        }
        given = gates | {"a_param": params["Lambda"]}
        ys, _ = model.apply({"params": given}, jnp.swapaxes(xs, 0, 1), positions, start)
        return jnp.swapaxes(ys, 0, 1)

    return run, params, {"start": start}


if __name__ == "__main__":
    main()
