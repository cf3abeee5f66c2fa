"""Text that a trained run writes: in Python, and by the launcher."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import rnnjax
from rnnjax.tasks import adding
from rnnjax.tasks.language import unknown_pieces
from rnnjax.training.outputs import for_terminal

ROOT = Path(__file__).parents[1]
TEXT = "Élan, 你好 👩\u200d🚀: The cat sat on the mat; e\u0301 and \x1b[2J are in it.\n" * 6


class Once:
    """Stops a run after its first evaluation."""

    asked = -1

    @property
    def requested(self):
        self.asked += 1
        return self.asked > 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One under way, as its directory has it."""
    folder = tmp_path_factory.mktemp("write")
    (folder / "own.txt").write_text(TEXT)
    small = {"cell": "gru", "hidden_size": 8, "seq_len": 6, "batch_size": 4, "eval_batch": 4, "gradient_flow": False}
    config = rnnjax.Config(
        task="text", task_options={"path": str(folder / "own.txt")}, lr=0.05, steps=40, eval_every=20, **small
    )
    rnnjax.fit(config, folder / "run", progress=False, stop=Once())
    run = rnnjax.load(folder / "run")
    assert run.result is None and run.steps == 20
    return run


def test_the_likeliest_text_is_that_of_a_plain_loop(run):
    codec, prompt = run.train.task.codec, "The ca"
    ids = list(codec.encode(prompt))
    for _ in range(5):
        logits = np.array(run.model(jnp.array(ids)[:, None])[-1, 0])
        logits[codec.unknown] = -np.inf
        ids.append(int(np.argmax(logits)))
    assert run.write(prompt, 5, temperature=0) == codec.decode(ids)


def test_a_seed_is_a_text_and_it_starts_with_the_prompt_as_given(run):
    texts = [run.write("cat\r\nQ", 40, temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert all(text.startswith("cat\r\nQ") and len(text) == 46 and set(text[6:]) <= set(TEXT) for text in texts)
    assert run.write(length=0) == "The "


def test_what_is_not_known_is_named_once(run):
    assert unknown_pieces(run.train.task.codec, "cat Qat\r\nÜQ") == ["Q", "Ü"]
    assert unknown_pieces(run.train.task.codec, "你好 👩\u200d🚀 e\u0301") == []


def test_what_cannot_be_written_is_refused(run):
    def other(task):
        return dataclasses.replace(run, train=run.train._replace(task=task))

    with pytest.raises(ValueError, match=r"^task 'text' has no text to write; allowed: a task with Task.codec, such"):
        other(adding(8)).write("a", 3)
    task = run.train.task
    with pytest.raises(ValueError, match=r"^prompt='' has nothing to go on from; allowed: one character or more$"):
        other(task._replace(codec=task.codec._replace(start=""))).write("", 3)
    with pytest.raises(ValueError, match=r"^top_p is 1.5; it must"):
        run.write("a", 3, top_p=1.5)


def test_the_launcher_prints_it_escaped_and_keeps_it(run):
    out = run.workdir.parent / "written.txt"
    flags = ["--prompt=The \x1bQ", "--length=30", "--temperature=0.9", "--top_p=0.8", "--seed=5", f"--out={out}"]
    command = [sys.executable, ROOT / "experiments/write.py", f"--workdir={run.workdir}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    written = out.read_text(encoding="utf-8")
    assert written == run.write("The \x1bQ", 30, temperature=0.9, top_p=0.8, seed=5)
    assert done.stdout == for_terminal(written) + "\n" and "\x1b" not in done.stdout
    assert done.stderr == "--prompt: the text that the run learned from does not have 'Q'\n"
