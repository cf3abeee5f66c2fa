"""A text read on from window to window, each window within one document."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnjax.types import Array, Batch, Stream


def documents_of(starts: np.ndarray, size: int) -> np.ndarray:
    """Where the documents of a text begin and end, int32 `[2, documents]`; those too short to predict are left out.

    Args:
      starts: where documents begin, ascending, the first at 0.
      size: of the text.
    """
    bounds = np.stack([starts, np.append(starts[1:], size)]).astype(np.int32)
    return bounds[:, bounds[1] - bounds[0] >= 2]


def text_stream(trained: int) -> Stream:
    """The stream of a text: `data` holds its tokens `[N]` by split, and `documents_of` them as `"SPLIT documents"`.

    A place is int32 `[B]`, the token that each sequence reads next. Sequences begin at even distances, the first one
    anywhere, and each reads all documents in their order, over and over. A window has up to `trained` steps; where its
    document ends it is cut, and the next one begins a document.
    """

    def begin(key: Array, batch_size: int, *, split: str = "train", data: Any) -> Array:
        size = len(data[split])
        first = jax.random.randint(key, (), 0, size, jnp.int32)
        return (first + (np.arange(batch_size) * size // batch_size).astype(np.int32)) % size

    def read(
        place: Array, *, split: str = "train", seq_len: int | None = None, data: Any
    ) -> tuple[Batch, Array, Array]:
        T, tokens = seq_len or trained, jnp.asarray(data[split])
        starts, ends = jnp.asarray(data[f"{split} documents"])
        number = jnp.searchsorted(starts, place, side="right") - 1
        # Before the first document, or at the last token of one, which has nothing to predict: on to the next.
        is_over = (number < 0) | (place >= ends[number] - 1)
        number = jnp.where(is_over, (number + 1) % len(starts), number)
        place = jnp.where(is_over, starts[number], place)
        lengths = jnp.minimum(T, ends[number] - 1 - place)
        t = jnp.arange(T, dtype=jnp.int32)[:, None]
        valid, at = t < lengths, jnp.minimum(place + t, len(tokens) - 2)
        inputs, targets = (jnp.where(valid, tokens[at + ahead], 0) for ahead in (0, 1))
        return Batch(inputs, targets, lengths, valid), place == starts[number], place + lengths

    return Stream(begin, read)
