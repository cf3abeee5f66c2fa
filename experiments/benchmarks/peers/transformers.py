"""A causal Transformer of this package and one as a Flax user writes it: same shape, weights and loss, at every step.

Two blocks of four heads, without codes of positions, which Flax has not.
"""

import numpy as np

from benchmarks.case import Case, Contender
from benchmarks.peers.with_jax import contender

PACKAGES = ("flax",)
CELLS = {"transformer": "transformer"}
LAYERS, HEADS, MLP = 2, 4, 4


def ours(case: Case) -> Contender:
    """`rnnjax.nn.Stack` of two `transformer`s, time before batch."""
    from flax import nnx

    from rnnjax.nn import Stack, transformer

    spec = transformer(case.H, heads=HEADS, positions="none", mlp=MLP)
    model = Stack([spec] * LAYERS, case.I, rngs=nnx.Rngs(0))
    entrance, blocks = make_weights(case)
    for layer, block in zip(model.layers, blocks, strict=True):
        if layer.entrance is not None:
            layer.entrance.kernel[...] = entrance
        layer.query.kernel[...], layer.mix.kernel[...] = block["q"], block["out"]
        layer.key_value.kernel[...] = np.concatenate([block["k"], block["v"]], axis=1)
        layer.widen.kernel[...], layer.narrow.kernel[...] = block["up"], block["down"]
    graphdef, params = nnx.split(model)
    return contender(case, params, lambda params, xs: nnx.merge(graphdef, params)(xs)[1], matrices=lambda g: g)


def flax_nnx(case: Case) -> Contender:
    """`nnx.MultiHeadAttention`, `LayerNorm` and `Linear` with a causal mask, batch before time."""
    import jax.numpy as jnp
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.norm1, self.norm2 = nnx.LayerNorm(case.H, rngs=rngs), nnx.LayerNorm(case.H, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(HEADS, case.H, decode=False, rngs=rngs, keep_rngs=False)
            self.up = nnx.Linear(case.H, MLP * case.H, rngs=rngs)
            self.down = nnx.Linear(MLP * case.H, case.H, rngs=rngs)

        def __call__(self, x, mask):
            x = x + self.attention(self.norm1(x), mask=mask)
            return x + self.down(nnx.gelu(self.up(self.norm2(x))))

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.entrance = nnx.Linear(case.I, case.H, rngs=rngs)
            self.blocks = nnx.List(Block(rngs) for _ in range(LAYERS))

        def __call__(self, xs):
            x, mask = self.entrance(xs), nnx.make_causal_mask(jnp.ones(xs.shape[:2]))
            for block in self.blocks:
                x = block(x, mask)
            return x

    model, (entrance, blocks) = Model(nnx.Rngs(0)), make_weights(case)
    model.entrance.kernel[...] = entrance
    for layer, block in zip(model.blocks, blocks, strict=True):
        for name in ("query", "key", "value", "out"):
            kernel = getattr(layer.attention, name).kernel
            kernel[...] = block["out" if name == "out" else name[0]].reshape(kernel.shape)
        layer.up.kernel[...], layer.down.kernel[...] = block["up"], block["down"]
    graphdef, params = nnx.split(model)

    def apply(params, xs):
        return nnx.merge(graphdef, params)(xs).swapaxes(0, 1)  # as the target lies: [T, B, H]

    return contender(case, params, apply, batch_first=True, matrices=lambda g: g)


def make_weights(case: Case) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """The map from I to H, and for each block its six matrices, all N(0, 1 / rows); biases begin at 0."""
    draw = np.random.default_rng(0)

    def matrix(rows, columns):
        return (draw.normal(size=(rows, columns)) / np.sqrt(rows)).astype("f")

    shapes = dict.fromkeys(("q", "k", "v", "out"), (case.H, case.H))
    shapes |= {"up": (case.H, MLP * case.H), "down": (MLP * case.H, case.H)}
    return matrix(case.I, case.H), [{name: matrix(*shape) for name, shape in shapes.items()} for _ in range(LAYERS)]
