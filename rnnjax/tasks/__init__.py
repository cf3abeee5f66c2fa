"""Tasks. A new one is a function `(seq_len, ...) -> Task`, and one line in the table."""

from collections.abc import Callable

from rnnjax.tasks.adding import adding
from rnnjax.tasks.common import check_causal
from rnnjax.tasks.copy import copy
from rnnjax.tasks.ngram import fit_ngram
from rnnjax.tasks.text import TextData, decode, encode, ngram_bits_per_character, text, text_data
from rnnjax.types import Task

TASKS: dict[str, Callable[..., Task]] = {
    "adding": adding,
    "copy": copy,
    "text": text,
}

__all__ = [
    "TASKS",
    "TextData",
    "adding",
    "check_causal",
    "copy",
    "decode",
    "encode",
    "fit_ngram",
    "ngram_bits_per_character",
    "text",
    "text_data",
]
