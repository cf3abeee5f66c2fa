"""Writes tests/data/orthogonal_vectors.npz: orthogonal matrices that others make, and their gradients.

Run by hand where PyTorch and geotorch 0.4.0 are installed: `python tests/make_orthogonal_vectors.py`. The tests only
read the file.

For each of `exponential` and `cayley` it holds under `name/` the strictly upper triangle `A` of 5 by 5, row by row, the
matrix `W` of geotorch.SO with the identity as its base, a weight of the loss `dW`, and the gradient `dA` of sum(dW W).
geotorch's Cayley transform of X is (I - X / 2)^-1 (I + X / 2); that of the scoRNN of S is it at X = -2 S.
`householder/` holds vectors `U` `[5, 3]`, their torch.linalg.householder_product `W`, `dW` and `dU`.
"""

from pathlib import Path

import geotorch
import numpy as np
import torch

FILE = Path(__file__).parent / "data" / "orthogonal_vectors.npz"
H, M = 5, 3


def main():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    arrays = {}
    for name, triv, scale in (("exponential", "expm", 1), ("cayley", "cayley", -2)):
        A = torch.randn(H * (H - 1) // 2, requires_grad=True)
        so = geotorch.SO((H, H), triv=triv, lower=False)
        so.base.copy_(torch.eye(H))
        X = torch.zeros(H, H).index_put(tuple(torch.triu_indices(H, H, 1)), scale * A)
        arrays |= vectors(name, "A", A, so(X))
    U = torch.randn(H, M).tril().requires_grad_()
    unit_diagonal = (U / U.diagonal()).tril()
    reflectors = torch.cat([unit_diagonal, torch.zeros(H, H - M)], dim=1)  # all of W is wanted: as many columns as rows
    tau = 2 / (unit_diagonal**2).sum(0)
    arrays |= vectors("householder", "U", U, torch.linalg.householder_product(reflectors, tau))
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {len(arrays)} arrays, {FILE.stat().st_size / 1e3:.0f} kB, torch {torch.__version__}")


def vectors(name: str, letter: str, given: torch.Tensor, W: torch.Tensor) -> dict[str, np.ndarray]:
    dW = torch.randn_like(W)
    torch.sum(dW * W).backward()
    found = {letter: given, "W": W, "dW": dW, f"d{letter}": given.grad}
    return {f"{name}/{n}": a.detach().numpy() for n, a in found.items()}


if __name__ == "__main__":
    main()
