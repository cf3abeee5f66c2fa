"""Triage: what ails a recurrent network, where it begins, and what to try."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from rnnjax.diagnostics.evidence import Layer, gather
from rnnjax.diagnostics.verdict import Diagnosis, judge
from rnnjax.keys import Purpose, purpose_key
from rnnjax.types import Array


def diagnose(
    loss: Callable[[Any], Array],
    taps: Any,
    layers: Sequence[Layer],
    *,
    key: Array | None = None,
    probes: int = 8,
    sequences: int = 8,
) -> Diagnosis:
    """What ails this network on this batch: `evidence.gather` collects arrays, `verdict.judge` has fixed rules on them.

        model = SequenceModel(...)
        taps = model.make_taps(T, (B,))
        print(diagnose(lambda taps: task.loss(model(batch.inputs, taps=taps), batch), taps, layers))

    Vanishing and exploding are judged by |dh_T/dh_t|, that is for any loss at the end: a loss at every step gives
    every state a gradient, however short the memory. For what they mean see Bengio, Simard & Frasconi (1994) and
    Pascanu, Mikolov & Bengio (2013, arXiv:1211.5063).

    Args:
      loss: taps -> scalar, a mean over the B sequences, as in `gradient_flow`.
      taps: a sequence with the zeros of each layer, leaves `[T, B, H]`; where bidirectional, pairs of them.
      layers: as many, the first layer first; see `evidence.stack_layers`. Of two directions the forward one.
      key: draws the probes; a fixed one by default.
      probes, sequences: how many to measure |dh_T/dh_t| with, at most; each probe costs about one gradient.

    Raises ValueError where taps and layers differ in number.
    """
    if len(taps) != len(layers):
        raise ValueError(f"there are taps of {len(taps)} layers, and {len(layers)} layers")
    cells = [layer.cell for layer in layers]
    arrays = [(layer.params, layer.xs) for layer in layers]
    key = purpose_key(Purpose.PROBES) if key is None else key

    @jax.jit
    def collect(taps, arrays, key):
        built = [Layer(cell, *a) for cell, a in zip(cells, arrays, strict=True)]
        return gather(loss, taps, built, key, probes=probes, sequences=sequences)

    return judge(*jax.device_get(collect(taps, arrays, key)))
