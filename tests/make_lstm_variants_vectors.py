"""Writes tests/data/lstm_variants_vectors.npz: what their authors' packages compute, and the gradients.

Run by hand where they are installed (`pip install torch packaging ninja`, `pip install --no-deps xlstm einops omegaconf
sru`; sru compiles a file of C++): `python tests/make_lstm_variants_vectors.py`. The tests only read the file.

For `lstm_projected`, an `nn.LSTM` with a projection, `slstm`, the package's cell in plain PyTorch, and `sru`, `sru_v1`
and `sru_skip`, whose inputs have another width than its state, it holds under `case/name` each weight as that package
lays it out, `xs` `[T, B, D]` (of the sLSTM, the gates' inputs `[T, B, 4 H]` in the order i, f, z, o), the initial
state, `ys`, the last state, and `dys`, the weights of the loss sum(dys ys); under `case/grad/name`, its gradient by
weights, xs and the initial state.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

FILE = Path(__file__).parent / "data" / "lstm_variants_vectors.npz"
T, B, D, H, P, HEADS = 6, 2, 3, 4, 3, 2


def main():
    torch.manual_seed(0)
    arrays = {}
    for case, vectors in CASES.items():
        given, outputs = vectors()
        dys = torch.randn_like(outputs["ys"])
        torch.sum(dys * outputs["ys"]).backward()
        everything = given | outputs | {"dys": dys} | {f"grad/{name}": a.grad for name, a in given.items()}
        arrays |= {f"{case}/{name}": a.detach().numpy() for name, a in everything.items()}
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {len(arrays)} arrays, {FILE.stat().st_size / 1e3:.0f} kB, torch {torch.__version__}")


def randn(*shape):
    return torch.randn(*shape, requires_grad=True)


def lstm_projected():
    module = nn.LSTM(D, H, proj_size=P)
    inputs = {"xs": randn(T, B, D), "h0": randn(1, B, P), "c0": randn(1, B, H)}
    ys, (h_n, c_n) = module(inputs["xs"], (inputs["h0"], inputs["c0"]))
    return dict(module.named_parameters()) | inputs, {"ys": ys, "h_n": h_n, "c_n": c_n}


def slstm():
    from xlstm.blocks.slstm.cell import sLSTMCell, sLSTMCellConfig

    config = {"backend": "vanilla", "dtype": "float32", "input_shape": "SBGNH", "output_shape": "SBH"}
    cell = sLSTMCell(sLSTMCellConfig(hidden_size=H, num_heads=HEADS, enable_automatic_mixed_precision=False, **config))
    for parameter in cell.parameters():
        nn.init.normal_(parameter)  # [heads, in, gate, out] and [heads, gate, out]
    inputs = {"xs": randn(T, B, 4 * H)}
    ys, state = cell(inputs["xs"])
    return {"R": cell._recurrent_kernel_, "b": cell._bias_} | inputs, {"ys": ys, "state": state}


def sru(D=H, v1=False):
    from sru import SRU

    module = SRU(D, H, num_layers=1, v1=v1, highway_bias=-1.0, rescale=True).rnn_lst[0]
    given = {name: p for name, p in module.named_parameters() if p.requires_grad}  # weight_c is not, of version 1
    for parameter in given.values():
        nn.init.normal_(parameter)  # [D, H and matrix], [f and r], [f and r]
    inputs = {"xs": randn(T, B, D), "c0": randn(B, H)}
    ys, c_n = module(inputs["xs"], inputs["c0"])[:2]
    return given | inputs, {"ys": ys, "c_n": c_n}


CASES = {
    "lstm_projected": lstm_projected,
    "slstm": slstm,
    "sru": sru,
    "sru_skip": lambda: sru(D),
    "sru_v1": lambda: sru(v1=True),
}


if __name__ == "__main__":
    main()
