"""Writes tests/data/torch_vectors.npz: what PyTorch's recurrent layers compute, and their gradients.

Run by hand where PyTorch is installed: `python tests/make_torch_vectors.py`. The tests only read the file.

For each case, such as `lstm-layers2-bi`, it holds under `case/name`: every weight as PyTorch names and lays it
out (`weight_ih_l0` `[G H, D]`, gates i f g o or r z n), `xs` `[T, B, D]`, `lengths` `[B]`, `h0` and `c0`
`[layers * directions, B, H]`, `ys` `[T, B, directions * H]`, `h_n`, `c_n`, and `dys`, `dh_n`, `dc_n`, the weights of
the loss sum(dys ys) + sum(dh_n h_n) + sum(dc_n c_n); under `case/grad/name`, its gradient by weights, xs, h0 and c0.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

FILE = Path(__file__).parent / "data" / "torch_vectors.npz"
LAYERS = {
    "rnn_tanh": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="tanh", **options),
    "rnn_relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
    "lstm": nn.LSTM,
    "gru": nn.GRU,
}
T, B, D, H = 6, 3, 3, 4
LENGTHS = torch.tensor([4, 6, 1])


def main():
    torch.manual_seed(0)
    arrays = {}
    for kind in LAYERS:
        for layers in (1, 2):
            for bidirectional in (False, True):
                case = f"{kind}-layers{layers}-{'bi' if bidirectional else 'uni'}"
                arrays |= {f"{case}/{name}": a for name, a in vectors(kind, layers, bidirectional).items()}
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {len(arrays)} arrays, {FILE.stat().st_size / 1e3:.0f} kB, torch {torch.__version__}")


def vectors(kind: str, layers: int, bidirectional: bool) -> dict[str, np.ndarray]:
    module = LAYERS[kind](D, H, num_layers=layers, bidirectional=bidirectional)
    inputs = {"xs": torch.randn(T, B, D, requires_grad=True)}  # not zero past the lengths: nothing may depend on it
    for name in ("h0", "c0") if kind == "lstm" else ("h0",):
        inputs[name] = torch.randn(layers * (1 + bidirectional), B, H, requires_grad=True)
    initial = (inputs["h0"], inputs["c0"]) if kind == "lstm" else inputs["h0"]

    packed, final = module(pack_padded_sequence(inputs["xs"], LENGTHS, enforce_sorted=False), initial)
    outputs = {"ys": pad_packed_sequence(packed, total_length=T)[0]}
    outputs |= dict(zip(("h_n", "c_n"), final, strict=True)) if kind == "lstm" else {"h_n": final}
    cotangents = {f"d{name}": torch.randn_like(y) for name, y in outputs.items()}
    sum(torch.sum(cotangents[f"d{name}"] * y) for name, y in outputs.items()).backward()

    given = dict(module.named_parameters()) | inputs
    everything = given | outputs | cotangents | {"lengths": LENGTHS}
    gradients = {f"grad/{name}": a.grad for name, a in given.items()}
    return {name: a.detach().numpy() for name, a in (everything | gradients).items()}


if __name__ == "__main__":
    main()
