"""A text as words: that they are the text, which are known, and what a model of them scores and writes."""

import collections

import numpy as np
import pytest

import rnnjax
from rnnjax.tasks import decode, encode, fit_ngram, text, text_data
from rnnjax.tasks.language import unknown_pieces
from rnnjax.tasks.units import UNKNOWN, pieces

SENTENCES = "The cat sat on the mat.\r\nA naïve dog's e\u0301tude, 你好 世界: 👩\u200d🚀  x_1 = 3.14!\n"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "own.txt"
    rare = " ".join(f"word{i}" for i in range(8))
    path.write_bytes((SENTENCES * 12 + rare + "\n" + SENTENCES * 3 + "never seen\n").encode())
    return str(path)


def by_hand(characters):
    """Words with the space before them, found one character after the other."""
    found, word = [], ""
    for c in characters:
        letter = c.isalnum() or c == "_"
        if word and not letter:
            found, word = [*found, word], ""
        if letter or (c == " " and not word):
            word += c
        else:
            found.append(c)
    return found + [word] * bool(word)


@pytest.mark.parametrize("characters", [SENTENCES, "", " ", "  a", "a  ", "a b_c d", " . ", "é1²"])
def test_words_joined_are_the_text(characters):
    assert pieces(characters, ()) == by_hand(characters) and "".join(pieces(characters, ())) == characters
    vocabulary = (*sorted(set(by_hand(characters))), UNKNOWN)
    assert decode(encode(characters, vocabulary), vocabulary) == characters


@pytest.mark.parametrize("size", [None, 12])
def test_the_commonest_words_of_the_training_part_are_known(path, size):
    data = text_data(path, unit="words", vocabulary=size)
    whole = (SENTENCES * 12 + " ".join(f"word{i}" for i in range(8)) + "\n" + SENTENCES * 3 + "never seen\n").replace(
        "\r\n", "\n"
    )
    words = by_hand(whole)
    train = words[: len(words) * 90 // 100]
    kept = [word for word, _ in collections.Counter(train).most_common(size)]  # in their order where as common
    assert set(data.vocabulary) == {*kept, UNKNOWN} and data.vocabulary[-1] == UNKNOWN and len(data.vocabulary) < 60
    ids = np.concatenate([data.train, data.validation, data.test])
    expected = [word if word in kept else UNKNOWN for word in words]
    assert [data.vocabulary[i] for i in ids] == expected
    assert len(data.train) == len(train) and data.characters["train"] == len("".join(train))
    assert sum(data.characters.values()) == len(whole)


def test_no_word_is_in_two_documents(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("abcd efgh " * 30)
    data = text_data(path, "cd e", unit="words")
    begin = data.starts["train"]
    assert [data.vocabulary[data.train[i]] for i in begin[:3]] == ["abcd", "fgh", "fgh"]


def test_a_model_of_words_is_scored_by_word_and_by_character_and_writes(path):
    small = {"cell": "rnn", "hidden_size": 4, "batch_size": 2, "eval_batch": 2, "steps": 1, "gradient_flow": False}
    options = {"path": path, "unit": "words", "vocabulary": 20}
    run = rnnjax.fit(rnnjax.Config(task="text", task_options=options, seq_len=3, **small), progress=False)
    data = text_data(path, unit="words", vocabulary=20)
    assert run.config.seq_len == 3 and np.isfinite(run.metrics[-1]["eval_bits_per_word"])
    result = run.result
    by_word = result["test_bits_per_word"]
    tail = "".join(by_hand(SENTENCES.replace("\r\n", "\n") * 15 + "never seen\n"))[-data.characters["test"] :]
    assert tail.endswith("never seen\n") and len(by_hand(tail)) == len(data.test)
    assert result["test_bits_per_character"] == pytest.approx(by_word * len(data.test) / len(tail))
    assert result["test_unknown"] == pytest.approx(np.mean(data.test == 20))
    p = fit_ngram(data.train, 3, 21)(data.test)
    assert result["test_3-gram"] == pytest.approx(-np.mean(np.log2(p)))
    assert list(result["references"]) == ["unigram", "3-gram"]
    written = run.write("The cat quacked", 30, temperature=1.0)
    assert written.startswith("The cat quacked") and UNKNOWN not in written
    assert unknown_pieces(run.train.task.codec, "The cat quacked") == [" quacked"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"unit": "wrods"}, r"^unknown unit 'wrods'; did you mean 'words'\? allowed: characters, words$"),
        ({"vocabulary": 0}, r"^task 'text': vocabulary is 0; it must be an integer, 1 or more$"),
    ],
)
def test_what_is_no_unit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        text(4, **options)


def test_the_commonest_characters_alone(tmp_path):
    (tmp_path / "own.txt").write_text("aaabbbccd" * 20)
    assert text_data(tmp_path / "own.txt", vocabulary=3).vocabulary == "abc\ufffd"
