"""The engine: `unroll` runs any cell over a sequence; the runners are the ways that lead through time."""

from rnnjax.engine.unroll import clean_lengths, make_probe, make_taps, unroll

__all__ = ["clean_lengths", "make_probe", "make_taps", "unroll"]
