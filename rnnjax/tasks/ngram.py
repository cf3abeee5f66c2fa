"""Interpolated Kneser-Ney n-grams, the baseline that a character model must beat."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


def fit_ngram(tokens: np.ndarray, order: int, size: int) -> Callable[[np.ndarray], np.ndarray]:
    """Fits an interpolated Kneser-Ney model (Kneser & Ney 1995; Chen & Goodman 1999) to integers `[T]` below `size`.

        p_k(w | u) = max(c(u w) - D_k, 0) / c(u) + D_k |{w: c(u w) > 0}| / c(u)  p_{k-1}(w | u without its oldest)

    c counts occurrences at the highest order; at lower ones, after how many different tokens a k-gram occurs.
    D_k = (n_1 + 1) / (n_1 + 2 n_2 + 2), n_i being how many k-grams have c = i. After a context that never occurred,
    p_k = p_{k-1}. The unigram is interpolated with the uniform distribution (Witten & Bell 1991), so that nothing has
    probability 0.

    Returns tokens `[T]` -> the probability of each `[T]`, given the (at most order - 1) tokens before it.

    Raises ValueError unless 1 <= order <= the number of tokens.
    """
    if not 1 <= order <= len(tokens):
        raise ValueError(f"order is {order}; it must be 1 to {len(tokens)}, the number of tokens")
    levels = _count(tokens, order, size)

    def probability(tokens: np.ndarray) -> np.ndarray:
        p = np.full(len(tokens), 1.0 / size)
        gram = np.zeros(len(tokens) + 1, np.int64)  # which (k-1)-gram ends before here; -1: none of the fitted text
        for k, level in enumerate(levels, start=1):
            context, suffix = gram[:-1], gram[1:]
            shorter = p[k - 1 :]
            oldest = tokens[: len(shorter)]
            gram = _find(level.keys, np.where(suffix >= 0, oldest * level.shift + suffix, -1))
            c = np.where(gram >= 0, level.counts[gram], 0)
            total, different = level.totals[context], level.different[context]
            if k == 1:
                new = (c + different * shorter) / (total + different)
            else:
                new = (np.maximum(c - level.D, 0) + level.D * different * shorter) / np.maximum(total, 1)
            p = np.concatenate([p[: k - 1], np.where((context >= 0) & (total > 0), new, shorter)])
        return p

    return probability


class _Level(NamedTuple):
    """The k-grams of a text. A k-gram's key is (its oldest token) * shift + (the number of the (k-1)-gram after it)."""

    keys: np.ndarray  # sorted; a k-gram's number is its place here
    shift: int  # how many (k-1)-grams there are
    counts: np.ndarray  # c(u w)
    totals: np.ndarray  # c(u), by the number of the (k-1)-gram u
    different: np.ndarray  # |{w: c(u w) > 0}|
    D: float


def _count(tokens: np.ndarray, order: int, size: int) -> list[_Level]:
    count = _by_packing if size**order < 2**63 else _by_numbering
    counts, raw = count(tokens, order, size)
    levels: list[_Level] = []
    for keys, shift, context in reversed(raw):  # of the highest order first
        if levels:
            counts = np.bincount(levels[0].keys % levels[0].shift, minlength=len(keys))
        once, twice = np.sum(counts == 1), np.sum(counts == 2)
        D = (once + 1) / (once + 2 * twice + 2)  # without the 1 and 2, D could be 0 or 1 in a tiny text
        totals = np.bincount(context, counts, minlength=shift)
        different = np.bincount(context, counts > 0, minlength=shift)
        levels.insert(0, _Level(keys, shift, counts, totals, different, D))
    return levels


def _by_packing(tokens, order, size):
    """(how often each k-gram of the highest order occurs, (keys, shift, the number of each one's context) by k).

    A k-gram is an integer in base `size`, so that one sort finds the longest ones. The shorter ones are found in those
    that differ: each but the text's first is the end of a longer one.
    """

    def packed(k, N):
        grams = np.zeros(N, np.int64)
        for j in range(k):
            grams *= size
            grams += tokens[j : j + N]
        return grams

    longest = packed(order, len(tokens) - order + 1)
    longest.sort()
    starts = np.flatnonzero(np.concatenate([[True], longest[1:] != longest[:-1]]))
    counts, grams = np.diff(np.append(starts, len(longest))), [longest[starts]]
    for k in range(order - 1, -1, -1):
        grams.insert(0, np.unique(np.append(grams[0] % size**k, packed(k, 1))))
    raw = []
    for k, (shorter, these) in enumerate(itertools.pairwise(grams)):
        suffix, context = (np.searchsorted(shorter, found) for found in (these % size**k, these // size))
        raw.append((these // size**k * len(shorter) + suffix, len(shorter), context))
    return counts, raw


def _by_numbering(tokens, order, size):
    """The same where such integers have more than 64 bits: k-grams are numbered from those of k - 1, a sort for each k.

    It is several times slower, and takes several times the memory.
    """
    tokens = tokens.astype(np.int64)
    gram, shift, raw = np.zeros(len(tokens) + 1, np.int64), 1, []
    for k in range(1, order + 1):
        context, suffix = gram[:-1], gram[1:]
        keys, first, gram, counts = np.unique(
            tokens[: len(tokens) - k + 1] * shift + suffix,
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        raw.append((keys, shift, context[first]))
        shift = len(keys)
    return counts, raw


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted key stands in the sorted keys; -1 where it does not."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)
