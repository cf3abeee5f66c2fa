"""Writes tests/data/ncps_vectors.npz: what the cells of ncps compute, which their authors wrote, and their gradients.

Run by hand where ncps 1.0.1 and PyTorch are installed: `python tests/make_ncps_vectors.py`. The tests only read it.

For each case, such as `cfc-pure-1`, it holds under `case/name`: every parameter as ncps names and lays it out, `xs`
`[T, B, D]`, `h0` `[B, H]`, `ys` `[T, B, H]`, and `dys`, the weights of the loss sum(dys ys); under `case/grad/name`,
its gradient by parameters, xs and h0. A step lasts 0.7.
"""

from pathlib import Path

import numpy as np
import torch
from ncps.torch import CfCCell, LTCCell
from ncps.wirings import FullyConnected

FILE = Path(__file__).parent / "data" / "ncps_vectors.npz"
T, B, D, H, UNITS, DT = 4, 2, 3, 4, 5, 0.7


def main():
    torch.manual_seed(0)
    cells = {
        f"cfc-{mode}-{layers}": CfCCell(D, H, mode, "lecun_tanh", UNITS, layers)
        for mode, layers in (("default", 0), ("default", 2), ("no_gate", 1), ("pure", 0), ("pure", 1))
    }
    no_maps = {"input_mapping": None, "output_mapping": None}
    cells["ltc"] = LTCCell(FullyConnected(H, erev_init_seed=1), D, implicit_param_constraints=True, **no_maps)
    arrays = {f"{case}/{name}": a for case, cell in cells.items() for name, a in vectors(cell).items()}
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {len(arrays)} arrays, {FILE.stat().st_size / 1e3:.0f} kB")


def vectors(cell) -> dict[str, np.ndarray]:
    inputs = {"xs": torch.randn(T, B, D, requires_grad=True), "h0": torch.randn(B, H, requires_grad=True)}
    h, ys = inputs["h0"], []
    for x in inputs["xs"]:
        h = cell(x, h, DT)[1]
        ys.append(h)
    ys = torch.stack(ys)
    dys = torch.randn_like(ys)
    torch.sum(dys * ys).backward()
    given = {name: p for name, p in cell.named_parameters() if p.requires_grad} | inputs
    gradients = {f"grad/{name}": a.grad for name, a in given.items()}
    return {name: a.detach().numpy() for name, a in (given | {"ys": ys, "dys": dys} | gradients).items()}


if __name__ == "__main__":
    main()
