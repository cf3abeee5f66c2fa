"""Writes tests/data/light_gates_vectors.npz: what cells of torchrecurrent compute, where they agree with the papers.

Run by hand where torchrecurrent 0.2.5 is installed: `python tests/make_light_gates_vectors.py`. The tests only read the
file. For each class, such as `STARCell`, it holds under `class/name`: `weight_ih` `[G H, D]`, `weight_hh` and `bias_ih`
as the package lays them out, `xs` `[T, B, D]`, `h0` `[B, H]` (RAN's `c0` too) and `ys` `[T, B, H]`. The bias that the
package has twice is zero the second time, and so are the blocks of it that a paper does not have there.
"""

from pathlib import Path

import numpy as np
import torch
import torchrecurrent

FILE = Path(__file__).parent / "data" / "light_gates_vectors.npz"
T, B, D, H = 5, 2, 3, 4
# Class -> the blocks of `bias_ih` that the paper does not have, or has elsewhere.
CLASSES = {
    "IndRNNCell": (),
    "LiGRUCell": (),
    "STARCell": (),
    "RANCell": (),
    "CFNCell": (2,),
    "ATRCell": (),
    "BRCell": (2,),
    "NBRCell": (2,),
    "MUT1Cell": (2,),
    "MUT2Cell": (),
    "MUT3Cell": (),
    "LightRUCell": (0,),
}


def main():
    torch.manual_seed(0)
    arrays = {}
    for name, absent in CLASSES.items():
        arrays |= {f"{name}/{part}": a.detach().numpy() for part, a in vectors(name, absent).items()}
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {len(arrays)} arrays, {FILE.stat().st_size / 1e3:.0f} kB")


def vectors(name: str, absent: tuple[int, ...]) -> dict[str, torch.Tensor]:
    options = {"nonlinearity": "relu"} if name == "IndRNNCell" else {}
    cell = getattr(torchrecurrent, name)(D, H, **options)
    given = dict(cell.named_parameters())
    with torch.no_grad():
        for weight in given.values():
            weight.copy_(0.7 * torch.randn_like(weight))
        given["bias_hh"].zero_()
        for block in absent:
            given["bias_ih"][block * H : (block + 1) * H] = 0
    xs, start = torch.randn(T, B, D), {"h0": torch.randn(B, H)}
    if name == "RANCell":
        start["c0"] = torch.randn(B, H)
    state = tuple(start.values()) if len(start) > 1 else start["h0"]
    ys = []
    for x in xs:
        state = cell(x, state)
        ys.append(state[0] if len(start) > 1 else state)
    recurrent = given.get("vector_u", given.get("weight_hh"))
    return (
        {"weight_ih": given["weight_ih"], "weight_hh": recurrent, "bias_ih": given["bias_ih"]}
        | start
        | {
            "xs": xs,
            "ys": torch.stack(ys),
        }
    )


if __name__ == "__main__":
    main()
