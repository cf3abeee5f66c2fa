"""Tasks. A new one is a function `(seq_len, ...) -> Task`, and one line in the table."""

from collections.abc import Callable

from rnnjax.tasks.adding import adding
from rnnjax.tasks.common import SPLITS, check_batch, check_causal, draw
from rnnjax.tasks.copy import copy
from rnnjax.tasks.language import bits_per_character, generate
from rnnjax.tasks.ngram import fit_ngram
from rnnjax.tasks.parity import parity
from rnnjax.tasks.series import series, series_source
from rnnjax.tasks.text import ngram_bits_per_character, text, text_data, text_source
from rnnjax.tasks.units import TextData, decode, encode
from rnnjax.types import Task

TASKS: dict[str, Callable[..., Task]] = {
    "adding": adding,
    "copy": copy,
    "parity": parity,
    "series": series,
    "text": text,
}

DATA: dict[str, Callable[..., tuple[str, str, str | None]]] = {
    "series": series_source,
    "text": text_source,
}
"""What a task reads from outside the package, by the task's arguments: what to call it, where it lies, its sha256 where
that is no file. A run records it, and refuses to go on with other data."""

__all__ = [
    "DATA",
    "SPLITS",
    "TASKS",
    "TextData",
    "adding",
    "bits_per_character",
    "check_batch",
    "check_causal",
    "copy",
    "decode",
    "draw",
    "encode",
    "fit_ngram",
    "generate",
    "ngram_bits_per_character",
    "parity",
    "series",
    "text",
    "text_data",
]
