"""Text: predict the next character or word of real text, scored in bits beside n-gram models of the same text."""

import functools
import math
import os
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnjax.tasks.common import (
    SPLITS,
    check_integer,
    check_seq_len,
    cross_entropy,
    draw_seq_len,
    lengths_to_draw,
    mean_over,
    unknown,
)
from rnnjax.tasks.documents import decoded, digest, joined, plain_lines, read_files
from rnnjax.tasks.language import bits_per_character, generate
from rnnjax.tasks.ngram import fit_ngram
from rnnjax.tasks.streams import documents_of, text_stream
from rnnjax.tasks.units import TextData, decode, encode, pieces, take_apart
from rnnjax.types import Array, Batch, Codec, Report, Task

SAMPLE_LENGTH = 400
SAMPLE_TEMPERATURE = 0.7
PROMPT = "The "  # or as many characters of the text's own beginning, where it does not have these


class Unit(NamedTuple):
    """What is predicted one after the other."""

    score: str  # of the task
    said: str  # in a sentence
    order: int  # of the n-gram that a network must beat
    named: str  # that n-gram, in result.json
    written: int  # by a trained model, as a sample


UNITS = {
    "characters": Unit("bits_per_character", "bits per character", 5, "test_5-gram", SAMPLE_LENGTH),
    "words": Unit("bits_per_word", "bits per word", 3, "test_3-gram", SAMPLE_LENGTH // 4),
}


def text(
    seq_len: int,
    *,
    path: str | os.PathLike | None = None,
    separator: str | None = None,
    min_seq_len: int | None = None,
    unit: Literal["characters", "words"] = "characters",
    vocabulary: int | None = None,
) -> Task:
    """Next-character prediction on windows of a text: the target of step t is the character of step t + 1.

    Args:
      seq_len: steps of a window. Windows start anywhere in their split, uniformly.
      path: a text file, or a folder whose *.txt are one document each; by default the documentation in Python's
        standard library, see `text_data`.
      separator: ends a document within a file, which a stateful run starts anew after; by default a file is one.
      min_seq_len: draw each window's own length uniformly from min_seq_len to seq_len.
      unit: what a step is, a character or a word: letters with the space before them; all else stands for itself.
      vocabulary: how many are known, the commonest of the training part; by default all characters, or 10,000 words.

    Inputs and targets are integers `[T, B]`, zeros past a window's length, to be decoded with
    `text_data(path).vocabulary`; outputs `[T, B, O]`. The loss is the cross-entropy in nats, the score that in bits per
    character or word. The baseline is the unigram model, "solved" is the interpolated Kneser-Ney 5-gram of characters,
    or the 3-gram of words, both fitted on the training part and scored on the validation part. The report of a trained
    model is its score on the whole test part, beside theirs, and a text that it wrote, sample.txt.

    Raises ValueError for a text that cannot be read, or with a split shorter than seq_len + 1 characters or words.
    """
    check_seq_len("text", seq_len, min_seq_len, shortest=1)
    data, trained = text_data(path, separator, unit, vocabulary), (seq_len, min_seq_len)
    parts = _parts(data, seq_len, path)

    def sample(
        key: Array,
        batch_size: int,
        *,
        split: str = "train",
        seq_len: int | None = None,
        longest: Array | None = None,
        data: Any = parts,
    ) -> Batch:
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        most, least = lengths_to_draw("text", trained, seq_len, shortest=1)
        tokens = jnp.asarray(data[split])
        _check_size(len(tokens), most, split, path, unit)
        start_key, length_key = jax.random.split(key)
        t = jnp.arange(most + 1)[:, None]
        window = tokens[t + jax.random.randint(start_key, (batch_size,), 0, len(tokens) - most)]
        if least is None:
            return Batch(window[:-1], window[1:], None, jnp.ones((most, batch_size), bool))
        lengths = draw_seq_len(length_key, (batch_size,), most, least, longest)
        valid = t[:-1] < lengths
        return Batch(jnp.where(valid, window[:-1], 0), jnp.where(valid, window[1:], 0), lengths, valid)

    score, order = UNITS[unit].score, UNITS[unit].order
    unigram, n_gram = (ngram_bits_per_character(data, k, "validation") for k in (1, order))
    return Task(
        sample,
        _loss,
        lambda outputs, batch: _metrics(score, outputs, batch),
        input_size=len(data.vocabulary),
        output_size=len(data.vocabulary),
        tokens=True,
        readout="every",
        score=score,
        baseline=unigram,
        solved=min(n_gram, unigram),  # a text without structure is no better known from its last characters
        causal=True,
        references=lambda: {"unigram": unigram, f"{order}-gram": n_gram},
        report=lambda model, params, key: _report(data, seq_len, model, params, key),
        data=parts,
        stream=text_stream(seq_len),
        codec=_codec(data),
    )


def text_source(path: str | os.PathLike | None = None, **_: Any) -> tuple[str, str, str | None]:
    """What `text` reads with these arguments: what to call it, where it lies, and its sha256 if that is no file."""
    if path is None:
        return "Python's own text", "pydoc_data.topics", text_data(None).sha256
    if os.path.isdir(path):
        return "the files of task.path", os.fspath(path), digest(read_files(path))
    return "the file of task.path", os.fspath(path), None


def text_data(
    path: str | os.PathLike | None = None,
    separator: str | None = None,
    unit: str = "characters",
    vocabulary: int | None = None,
) -> TextData:
    """Reads a text file or folder, or, by default, the language reference that Python ships as `pydoc_data.topics`.

    The default is the dict's values joined in sorted key order: some 465,000 characters of English technical prose,
    which differ between versions of Python, hence the sha256. A file is UTF-8, or UTF-16 with a byte order mark.
    The mark is left out, and CRLF and a lone CR are read as newlines, so that a text is the same whatever system it was
    written on. A file is read again at each call, and taken apart again only if its content is none of the last two.

    Raises ValueError where the file cannot be read, is of another encoding, or has fewer than 20 characters or words.
    """
    if unit not in UNITS:
        raise unknown("unit", unit, UNITS)
    if vocabulary is not None:
        check_integer("text", "vocabulary", vocabulary, 1)
    data = _take_apart(_python_topics() if path is None else read_files(path), separator, unit, vocabulary)
    n = len(data.train) + len(data.validation) + len(data.test)
    if n < 20:  # so that each split has at least one
        raise ValueError(f"{_name(path)} has {n} {unit}; it must have 20 or more")
    return data


def ngram_bits_per_character(data: TextData, order: int, split: str) -> float:
    """The mean of -log2 p(token | the order - 1 before it) over `split`, by the n-gram fitted on `data.train`."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    text = (data.sha256, data.unit, len(data.vocabulary), *(len(getattr(data, name)) for name in SPLITS))
    scores = _SCORES.setdefault((*text, order), {})
    if split not in scores:
        probability = fit_ngram(data.train, order, len(data.vocabulary))
        for name in {split, "validation", "test"}:  # one fit of a large text takes half a minute
            scores[name] = max(0.0, float(-np.mean(np.log2(probability(getattr(data, name))))))
    return scores[split]


_SCORES: dict[tuple, dict[str, float]] = {}  # of each text and order, found once a process


def _loss(outputs, batch):
    return mean_over(batch.weights, cross_entropy(outputs, batch.targets))


def _metrics(score, outputs, batch):
    right = (jnp.argmax(outputs, axis=-1) == batch.targets).astype(jnp.float32)
    return {score: _loss(outputs, batch) / math.log(2), "accuracy": mean_over(batch.weights, right)}


def _report(data, seq_len, model, params, key):
    """The score on the whole test part, beside the n-gram models', and a sample of what the model writes."""
    unit, prompt = UNITS[data.unit], _start(data)
    bits = float(jax.jit(lambda p, tokens: bits_per_character(model(p), tokens, context=seq_len))(params, data.test))
    ids, how = encode(prompt, data.vocabulary), {"context": seq_len, "forbidden": data.unknown}
    write = jax.jit(lambda p, key: generate(model(p), ids, unit.written, key, SAMPLE_TEMPERATURE, **how))
    written = write(params, key)
    unigram, n_gram = (ngram_bits_per_character(data, order, "test") for order in (1, unit.order))
    beside, numbers = f"{unit.order}-gram {n_gram:.3f}, unigram {unigram:.3f}", {f"test_{unit.score}": bits}
    summary = f"{bits:.3f} {unit.said} on the whole test part ({beside})"
    if data.unit == "words":
        by_character = bits * len(data.test) / data.characters["test"]
        of_unknown = float(np.mean(data.test == data.unknown))
        summary += f"; {by_character:.3f} per character of it, {of_unknown:.1%} of the words unknown and not spelled"
        numbers |= {"test_bits_per_character": by_character, "test_unknown": of_unknown}
    return Report(
        summary,
        numbers | {"test_unigram": unigram, unit.named: n_gram, "text_sha256": data.sha256},
        {"sample.txt": prompt + decode(np.asarray(written), data.vocabulary) + "\n"},
    )


def _codec(data):
    return Codec(
        lambda characters: encode(plain_lines(characters), data.vocabulary),
        lambda ids: decode(ids, data.vocabulary),
        data.unknown,
        lambda characters: pieces(plain_lines(characters), data.vocabulary),
        _start(data),
    )


def _start(data):
    prompt = PROMPT if data.unit == "characters" else PROMPT.strip()
    if not np.any(encode(prompt, data.vocabulary) == data.unknown):
        return prompt
    known = data.train[data.train != data.unknown]
    return decode((known if known.size else data.train)[: len(PROMPT)], data.vocabulary)


def _parts(data, seq_len, path):
    """What batches and streams are read from, see `text_stream`."""
    parts = {split: getattr(data, split) for split in SPLITS}
    for split in SPLITS:
        _check_size(len(parts[split]), seq_len, split, path, data.unit)
        documents = parts[f"{split} documents"] = documents_of(data.starts[split], len(parts[split]))
        if not documents.size:
            raise ValueError(
                f"task 'text': each document of the {split} part is one of the {data.unit}; allowed: longer ones"
            )
    return parts


def _check_size(size, seq_len, split, path, unit):
    if size < seq_len + 1:
        raise ValueError(
            f"task 'text': seq_len is {seq_len}, but the {split} part of {_name(path)} has {size} {unit}; "
            f"it must be seq_len + 1 or more"
        )


@functools.lru_cache(maxsize=2)
def _take_apart(
    files: tuple[tuple[str, bytes], ...], separator: str | None, unit: str, vocabulary: int | None
) -> TextData:
    characters, documents = joined([decoded(*file) for file in files], separator)
    return take_apart(characters, documents, digest(files), unit, vocabulary)


@functools.cache
def _python_topics() -> tuple[tuple[str, bytes], ...]:
    from pydoc_data.topics import topics  # 700 kB that only this task needs

    return (("pydoc_data.topics", "".join(topics[name] for name in sorted(topics)).encode()),)


def _name(path: str | os.PathLike | None) -> str:
    return "the text of pydoc_data.topics" if path is None else f"text file {os.fspath(path)!r}"
