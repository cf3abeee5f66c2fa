"""Writes tests/data/neuroscience_vectors.npz: the states of two of ReservoirPy's reservoirs.

Run by hand where ReservoirPy 0.4.2 is installed: `python tests/make_neuroscience_vectors.py`. The tests only read the
file. For the cases `plain` and `leaky` it holds under `case/name`: `W` `[H, H]`, `Win` `[H, D]` and `bias` `[H]` in
column form, `lr`, the inputs `u` `[T, D]` and the states `x` `[T, H]`.
"""

from pathlib import Path

import numpy as np
import reservoirpy
from reservoirpy.nodes import Reservoir

FILE = Path(__file__).parent / "data" / "neuroscience_vectors.npz"
T, D, H = 12, 2, 10


def main():
    arrays = {}
    for case, lr in (("plain", 1.0), ("leaky", 0.3)):
        bias = np.random.default_rng(1).uniform(-0.5, 0.5, size=H)
        node = Reservoir(H, lr=lr, sr=0.9, rc_connectivity=0.4, input_connectivity=0.8, bias=bias, seed=0)
        u = np.random.default_rng(2).normal(size=(T, D))
        x = node.run(u)
        W, Win = (np.asarray(a.todense() if hasattr(a, "todense") else a) for a in (node.W, node.Win))
        found = {"W": W, "Win": Win, "bias": bias, "lr": np.array(lr), "u": u, "x": x}
        arrays |= {f"{case}/{name}": a for name, a in found.items()}
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {FILE.stat().st_size / 1e3:.0f} kB, reservoirpy {reservoirpy.__version__}")


if __name__ == "__main__":
    main()
