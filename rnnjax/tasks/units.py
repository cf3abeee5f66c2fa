"""A text as integers: its characters, or its words."""

import itertools
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rnnjax.types import Array

UNKNOWN = "\ufffd"  # the Unicode replacement character stands for what the training part does not contain
CODE_POINTS = 0x110000  # of Unicode
# A word with the space before it, or what is no letter by itself: joined, they are the text.
WORD = re.compile(r" ?\w+|\W")
COMMONEST_WORDS = 10_000

Vocabulary = str | tuple[str, ...]  # characters, or words; an id is its index, the last one is UNKNOWN


class TextData(NamedTuple):
    """A text as integers, split by position into 90 %, 5 % and 5 %."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    # What is known of the training part, characters sorted, words as they first occur; then UNKNOWN.
    vocabulary: Vocabulary
    sha256: str  # of the bytes, as they were read
    starts: Mapping[str, np.ndarray]  # by split, where its documents begin; the first at 0
    characters: Mapping[str, int]  # by split, how many it has

    @property
    def unit(self) -> str:
        """What an integer stands for: characters or words."""
        return "characters" if isinstance(self.vocabulary, str) else "words"

    @property
    def unknown(self) -> int:
        """The integer that stands for all that is not known."""
        return len(self.vocabulary) - 1


def pieces(text: str, vocabulary: Vocabulary) -> list[str]:
    """What `encode` makes of a text, an integer for each: its characters, or its words."""
    return list(text) if isinstance(vocabulary, str) else WORD.findall(text)


def encode(text: str, vocabulary: Vocabulary) -> np.ndarray:
    """A string -> int32 ids `[T]`; what is not in the vocabulary becomes the last id."""
    last = len(vocabulary) - 1
    if not isinstance(vocabulary, str):
        numbers = dict(zip(vocabulary, range(last), strict=False))
        return np.array([numbers.get(piece, last) for piece in pieces(text, vocabulary)], np.int32)
    ids = np.full(CODE_POINTS, last, np.int32)
    known = _code_points(vocabulary[:-1])
    ids[known] = np.arange(len(known))
    return ids[_code_points(text)]


def decode(ids: np.ndarray | Array, vocabulary: Vocabulary) -> str:
    """Ids `[T]` -> a string."""
    return "".join(vocabulary[i] for i in np.asarray(ids))


def take_apart(text: str, documents: np.ndarray, sha256: str, unit: str, vocabulary: int | None) -> TextData:
    """The text in units, of which the `vocabulary` that are commonest in the training part are known; None: see `text`.

    Args:
      documents: where they begin, in characters.
    """
    if unit == "words":
        numbers, names, starts = _number_words(text, documents)
        sizes = np.array([len(name) for name in names], np.int64)
        unknown = names.index(UNKNOWN) if UNKNOWN in names else None
        vocabulary = COMMONEST_WORDS if vocabulary is None else vocabulary
    else:
        numbers, names, starts, sizes, unknown = _code_points(text), None, documents, None, ord(UNKNOWN)
    n = len(numbers)
    train, validation = n * 90 // 100, n * 95 // 100
    counts = np.bincount(numbers[:train], minlength=CODE_POINTS if names is None else len(names))
    if unknown is not None:
        counts[unknown] = 0
    known = np.flatnonzero(counts)
    if vocabulary is not None:
        known = np.sort(known[np.argsort(-counts[known], kind="stable")[:vocabulary]])
    table = np.full(len(counts), len(known), np.int32)
    table[known] = np.arange(len(known))
    ids = table[numbers]
    ids.flags.writeable = False  # the caller shares it with the next one
    bounds = {"train": (0, train), "validation": (train, validation), "test": (validation, n)}
    return TextData(
        ids[:train],
        ids[train:validation],
        ids[validation:],
        "".join(map(chr, known)) + UNKNOWN if names is None else (*(names[i] for i in known), UNKNOWN),
        sha256,
        {split: _starts(starts, *ends) for split, ends in bounds.items()},
        {split: b - a if sizes is None else int(sizes[numbers[a:b]].sum()) for split, (a, b) in bounds.items()},
    )


def _number_words(text, documents):
    """(a number for each word of the text, the words by their numbers, where documents begin, in words)"""
    numbers: dict[str, int] = {}
    found = []
    for start, end in itertools.pairwise([*documents, len(text)]):  # no word is in two documents
        words = (match.group() for match in WORD.finditer(text, start, end))
        found.append(np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.int32))
    return np.concatenate(found), list(numbers), np.cumsum([0, *map(len, found[:-1])])


def _starts(documents, first, end):
    """Where documents begin in [first, end) of the whole text, counted from `first`; one that goes on there, too."""
    within = documents[(documents > first) & (documents < end)]
    return np.concatenate([[0], within - first])


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
