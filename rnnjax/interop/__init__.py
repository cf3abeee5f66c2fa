"""The weights of a layer in other frameworks' layouts, in and out: one file a framework, which it does not import.

    from rnnjax.interop import from_torch
    params = from_torch("lstm", torch_lstm.state_dict())  # for `unroll(lstm(H), params, xs)` or `RNN(...).parameters`

`from_X(cell, arrays)` gives the parameters of `rnnjax.cells.CELLS[cell]`, `to_X(cell, params)` the arrays that X wants,
and either the other's inverse, but that two biases come back as their sum. Arrays may be NumPy's or JAX's, under `jit`
and `grad` too; they come back as the same kind.

What differs, and is looked after here (the GRU's reset stands first or last: before or after the product with W_h):

| | order of the gates | weights | biases | GRU |
|-|-|-|-|-|
| rnnjax | i f g o / r z n | `[D, G H]`, `[H, G H]` | one, and b_h of the GRU's n | (1-z) n + z h, reset last |
| PyTorch | i f g o / r z n | `[G H, D]`, `[G H, H]` | two, which add up | the same |
| Flax | i f g o / r z n | a Dense a gate, or joined | one; `nnx.GRUCell` has no b_h | the same |
| Haiku | i g f o / z r n | LSTM: `[D + H, 4 H]` | forget gate +1 in code | (1-z) h + z n, reset first: `gru_cho` |
| Equinox | i f g o / r z n | `[G H, D]`, `[G H, H]` | one, and `bias_n` | the same as here |
| Keras | i f c o / z r h | `[D, G H]`, `[H, G H]` | one; two rows for the GRU | same; `reset_after=False`: `gru_cho` |
"""

from rnnjax.interop.equinox import from_equinox, to_equinox
from rnnjax.interop.flax import from_linen, from_nnx, to_linen, to_nnx
from rnnjax.interop.haiku import from_haiku, to_haiku
from rnnjax.interop.keras import from_keras, to_keras
from rnnjax.interop.torch import from_torch, to_torch

__all__ = [
    "from_equinox",
    "from_haiku",
    "from_keras",
    "from_linen",
    "from_nnx",
    "from_torch",
    "to_equinox",
    "to_haiku",
    "to_keras",
    "to_linen",
    "to_nnx",
    "to_torch",
]
