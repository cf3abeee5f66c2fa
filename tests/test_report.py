"""The report's numbers are NumPy's own from the same files, and nothing that a run is called can act in the page."""

import base64
import csv
import html.parser
import io
import json
import math
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import command_line
import gradient_flow
import jax
import numpy as np
import pytest
from rich.console import Console

from rnnjax import runs
from rnnjax.cells import CELLS
from rnnjax.keys import Purpose, purpose_key
from rnnjax.reports import settings
from rnnjax.reports.diagnosis_subject import validation_batch
from rnnjax.reports.runs_page import write_report
from rnnjax.sweeps import lanes
from rnnjax.training import make_train, outputs
from rnnjax.training.config import Config, hyperparameters

ROOT = Path(__file__).resolve().parents[1]

EVIL = "<script>alert('x')</script>"
SCORES = {  # (cell, lr) -> the last score of each seed
    ("gru", 0.001): [0.03, 0.2, 0.01, 0.09],
    ("gru", 0.01): [0.02, 0.001, 0.3, 0.04],
    ("rnn", 0.001): [0.16, 0.17, 0.18, 0.15],
    ("rnn", 0.01): [0.14, None, 0.19, 0.2],
    (EVIL, 0.01): [0.1, 0.1, 0.1, 0.1],
}
SOLVED = 0.05


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep's directory with hostile names in it."""
    path = tmp_path_factory.mktemp("sweep <b>&")
    for (cell, lr), scores in SCORES.items():
        for seed, score in enumerate(scores):
            write_trial(path / "trials" / f"{cell[:3]}{lr}{seed}", cell, lr, seed, score)
    (path / "trials" / "unfinished").mkdir()
    (path / "trials" / "unfinished" / "config.json").write_text("{}")
    return path


def write_trial(path, cell, lr, seed, score):
    path.mkdir(parents=True)
    config = {
        "task": "adding",
        "task_options": {"variant": EVIL},
        "seq_len": 7,
        "cell": cell,
        "lr": lr,
        "seed": seed,
        "clip": 1.0,
    }
    about = {"versions": {"jax": EVIL}, "git": EVIL, "devices": {"platform": "cpu"}}
    (path / "config.json").write_text(json.dumps({"config": config} | about))
    solved_at = 20 if score is not None and score <= SOLVED else None
    rows = [{"step": s, "eval_mse": v, "diverged": -1} for s, v in ((10, 0.17), (20, 0.1 if score is None else score))]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs.save_arrays(path / "gradient_flow.npz", {"step": np.array([10, 20]), "layer0.h": np.full((2, 7), 0.5**seed)})
    result = {"task": "adding", "cell": cell, "score_name": "mse", "score": score, "baseline": 0.1667}
    result |= {
        "solved_threshold": SOLVED,
        "higher_is_better": False,
        "solved_at": solved_at,
        "gradient_reach": 3 + seed,
    }
    (path / "result.json").write_text(json.dumps(result | {"seconds": 2.0 + seed, "steps_per_second": 10.0}))


@pytest.fixture(scope="module")
def page(sweep):
    return write_report([str(sweep)], str(sweep / "report"))


def test_settings_csv_holds_numpys_numbers(page):
    with open(page.parent / "settings.csv", newline="") as file:
        rows = {(row["cell"], float(row["lr"])): row for row in csv.DictReader(file)}
    assert set(rows) == set(SCORES)
    medians = {}
    for key, row in rows.items():
        scores = np.array([np.inf if s is None else s for s in SCORES[key]])
        shown = [float(row[f"score_{name}"]) for name in ("q1", "median", "q3")]
        finite = scores[np.isfinite(scores)]
        if len(finite) == 4:
            np.testing.assert_allclose(shown, np.percentile(scores, [25, 50, 75]))
        else:
            np.testing.assert_allclose(shown[:2], [np.percentile(scores, 25), np.median(scores)])
            assert shown[2] == math.inf  # one of four is the worst there is
        medians[key] = np.median(scores)
        solved = int(np.sum(scores <= SOLVED))
        assert (int(row["solved"]), int(row["seeds"])) == (solved, 4)
        assert float(row["success_rate"]) == solved / 4
        assert float(row["median_gradient_reach"]) == 4.5 and float(row["median_seconds"]) == 3.5
    for (cell, lr), row in rows.items():
        is_best = medians[cell, lr] == min(value for (other, _), value in medians.items() if other == cell)
        assert row["best_of_cell"] == str(is_best)


def test_runs_csv_has_a_line_a_run(page, sweep):
    with open(page.parent / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert {Path(row["run"]).parent for row in rows} == {sweep / "trials"}
    assert sorted((row["cell"], float(row["lr"]), row["score"]) for row in rows) == sorted(
        (cell, lr, "" if score is None else str(score)) for (cell, lr), scores in SCORES.items() for score in scores
    )
    table = settings.runs_csv([settings.find_runs([str(sweep)])[0][0]._replace(config={"task.path": "=cmd()"})])
    assert next(csv.DictReader(io.StringIO(table)))["task.path"] == "'=cmd()"


class Page(html.parser.HTMLParser):
    """What a browser would make of it: elements, what they load, and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loads, self.texts, self.attributes = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attributes]
        self.loads += [value for name, value in attributes if name in ("src", "srcset", "href", "data", "action")]

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_escapes_every_name_and_loads_nothing(page):
    text = page.read_text()
    seen = Page(text)
    assert not {"script", "b&", "link", "iframe", "object"} & set(seen.tags)
    assert not [name for name in seen.attributes if name.startswith("on")]
    assert "http://" not in text and "https://" not in text and "@import" not in text and "url(" not in text
    assert len(seen.loads) >= 2 * (1 + 1 + 3) and all(load.startswith("data:image/png;base64,") for load in seen.loads)
    shown = " ".join(seen.texts)
    assert EVIL in shown  # as text: the cell, the variant and the versions
    assert f"adding, variant {EVIL}, T = 7" in shown
    assert "sweep <b>&" in shown


def test_the_page_shows_the_best_setting_of_each_cell_with_its_interval(page):
    shown = " ".join(" ".join(Page(page.read_text()).texts).split())
    assert "20 finished runs" in shown and "1 unfinished left out" in shown
    q1, median, q3 = (f"{v:.3g}" for v in np.percentile(SCORES["gru", 0.01], [25, 50, 75]))
    assert f"gru 0.01 {median} [{q1} to {q3}] 3/4 [30% to 95%]" in shown
    assert shown.index("gru 0.01") < shown.index("rnn 0.001") < shown.index("What differs between the runs")
    assert "lr 0.01 (12), 0.001 (8)" in shown


def test_the_page_says_which_settings_cannot_be_told_from_the_best(page, tmp_path):
    shown = " ".join(" ".join(Page(page.read_text()).texts).split())
    assert "1 of the 1 others of gru, 1 of the 1 others of rnn." in shown  # 4 seeds tell nothing apart
    for lr, error in ((0.1, 0.01), (0.2, 0.02), (0.3, 0.01)):
        for seed in range(6):
            write_trial(tmp_path / f"{lr}{seed}", "gru", lr, seed, error * (1 + (lr == 0.3) * (seed % 2) + seed / 10))
    text = write_report([str(tmp_path)], str(tmp_path / "page")).read_text()
    assert "1 of the 2 others of gru." in text


def test_what_is_missing_is_one_line(tmp_path, sweep):
    with pytest.raises(ValueError, match="is not a directory; allowed: a run directory"):
        settings.find_runs([str(tmp_path / "none")])
    with pytest.raises(ValueError, match=r"holds no run: there is no config\.json"):
        settings.find_runs([str(tmp_path)])
    with pytest.raises(ValueError, match=r"result\.json is missing; 1 of 1 runs unfinished"):
        settings.find_runs([str(sweep / "trials" / "unfinished")])
    write_trial(tmp_path / "run", "gru", 0.1, 0, 0.1)
    (tmp_path / "run" / "metrics.jsonl").unlink()
    command = [sys.executable, str(ROOT / "experiments/report.py"), f"--runs={tmp_path / 'run'}", f"--out={tmp_path}/x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "run/metrics.jsonl is missing" in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_batch_to_measure_on_is_drawn_from_data_that_the_program_is_given(monkeypatch):
    config = Config(task="text", cell="rnn", seq_len=4, hidden_size=3, batch_size=2)
    train = make_train(config)
    given = []

    def sample(*args, **options):
        given.append(options.get("data"))
        return train.task.sample(*args, **options)

    spied = train._replace(task=train.task._replace(sample=sample))
    monkeypatch.setattr(gradient_flow, "make_train", lambda config: spied)
    gradient_flow.make_profile(config)
    assert given and all(isinstance(a, jax.core.Tracer) for a in jax.tree.leaves(given, is_leaf=lambda a: a is None))
    validation_batch(config, spied)
    assert given[-1] is train.task.data


def test_the_gradient_profile_is_that_of_backpropagation_by_hand(tmp_path):
    """h_t = tanh(W_x x_t + W_h h_{t-1} + b), y = W h_L + c, L_b = (y - target)^2 of a sequence of L steps: dL_b/dh_t
    in NumPy, float64, one sequence after the other, rms over sequences at the same distance from their ends."""
    config = Config(task="adding", cell="rnn", seq_len=6, min_seq_len=2, hidden_size=5, batch_size=4)
    train = make_train(config)
    params = jax.jit(lambda key: train.init(key, hyperparameters(config)).params)(jax.random.key(7))
    run = runs.open_run(tmp_path / "run", {}, {})
    runs.save_params(run, params)
    runs.close_run(run)
    initial, trained = gradient_flow.make_profile(config)
    profile = trained(7, tmp_path / "run")
    np.testing.assert_array_equal(profile, initial(7))

    names = ("parameters/W_x", "parameters/W_h", "parameters/b", "readout/kernel", "readout/bias")
    arrays = runs.load_params(tmp_path / "run")
    W_x, W_h, b, W, c = (next(a.astype(float) for n, a in arrays.items() if f"{end}/" in n + "/") for end in names)
    batch = jax.jit(lambda key: train.task.sample(key, 4, split="validation"))(purpose_key(Purpose.DIAGNOSIS, 7))
    squares = np.zeros((6, 4))
    for k, L in enumerate(np.asarray(batch.lengths)):
        hs = [np.zeros(5)]
        for x in np.asarray(batch.inputs[:L, k], float):
            hs.append(np.tanh(x @ W_x + hs[-1] @ W_h + b))
        dh = W @ (2 * (hs[-1] @ W + c - np.asarray(batch.targets[k], float)))
        for back, h in enumerate(reversed(hs[1:])):
            squares[5 - back, k] = dh @ dh
            dh = W_h @ (dh * (1 - h**2))
    expected = np.sqrt(squares.mean(axis=1))
    assert len(set(np.asarray(batch.lengths).tolist())) > 1
    np.testing.assert_allclose(profile, expected, rtol=1e-5)
    first = np.flatnonzero(expected)[0]
    scaled = np.stack([expected, expected])[:, first:]
    np.testing.assert_allclose(gradient_flow.ratio(scaled), expected[first] / expected[-1])


def test_the_table_of_gradient_flow_shows_the_range_over_seeds():
    """A reach of 1, 2 and all 4 steps, and a cell whose seeds agree but for one that is not finite."""
    initial = 10.0 ** np.array([[-9, -8, -7, 0], [-9, -8, 0, 0], [-1, 0, 0, 0]])
    ill = initial[[2, 2, 2]]
    ill[0, 0] = np.nan
    text = io.StringIO()
    compared = [gradient_flow.Compared("lstm", initial, None), gradient_flow.Compared("rnn", ill, initial[[0, 0]])]
    Console(file=text, width=100).print(gradient_flow.table(compared))
    shown = [[c.strip() for c in line.strip("│").split("│")] for line in text.getvalue().splitlines() if "│" in line]
    assert shown == [
        ["lstm", "2", "–", "1.0e-09", "–"],
        ["", "1 to >= 4", "", "1.0e-09 to 1.0e-01", ""],
        ["rnn", ">= 4", "1", "1.0e-01", "1.0e-09"],
        ["", ">= 4 to not finite", "", "1.0e-01 to not finite", ""],
    ]


def test_trained_runs_are_those_of_the_best_setting_and_of_one_problem(sweep, tmp_path):
    for seed, score in enumerate((0.1, 0.2)):
        for lr in (0.01, 0.1):
            write_trial(tmp_path / f"{lr}{seed}", "gru", lr, seed, score * lr)
    for path in tmp_path.glob("*/config.json"):
        path.write_text(path.read_text().replace(json.dumps(EVIL), '"arjovsky"'))
    found = gradient_flow.find_trained([str(tmp_path)], None, None)
    assert [(c.lr, c.seed, path.name) for c, path in found["gru"]] == [(0.01, 0, "0.010"), (0.01, 1, "0.011")]
    with pytest.raises(ValueError, match="one problem at a time, of --task=adding --seq_len=7"):
        gradient_flow.find_trained([str(tmp_path)], "copy", None)


@pytest.mark.parametrize(
    ("profile", "reach", "ratio"),
    [
        ([1e-25, 1e-12, 1], "1", "1.0e-25"),
        ([0, 1e-12, 1], "1", "0 (below 1e-38)"),
        ([1, 1, 1], ">= 3", "1.0e+00"),
        ([np.nan, 1, 1], "not finite", "not finite"),
        ([0, 0, 0], "no gradient", "no gradient"),
    ],
)
def test_the_table_of_gradient_flow_tells_tiny_zero_and_not_finite_apart(profile, reach, ratio):
    compared = [gradient_flow.Compared("rnn", np.array([profile] * 3, "f"), None)]
    assert [next(column.cells) for column in gradient_flow.table(compared).columns] == ["rnn", reach, ratio]


@pytest.mark.slow
def test_a_run_of_an_own_cell_is_found_again_with_its_config(tmp_path, monkeypatch):
    """gradient_flow.py --runs beside a cell of the library; without --config every reader says which file it needs."""
    file = tmp_path / "own.py"
    file.write_text((ROOT / "configs/own_cell.py").read_text())
    monkeypatch.setitem(CELLS, "leaky", None)  # put back as it was afterwards
    command_line.config_of_file(str(file))
    config = Config(cell="leaky", seq_len=6, hidden_size=4, batch_size=2, steps=2, eval_every=2, eval_batch=2)
    run, result = tmp_path / "run", tmp_path / "out"
    assert lanes.run_sweep([config], run, types.SimpleNamespace(requested=False))
    command = [sys.executable, str(ROOT / "experiments/gradient_flow.py"), f"--config={file}", f"--runs={run}"]
    options = ["--cells=leaky,rnn", "--seeds=1", f"--out={result}"]
    quick = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # it compiles for most of its time
    done = subprocess.run([*command, *options], env=quick, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    arrays = runs.load_arrays(result / "gradient_flow.npz")
    assert {name: array.shape for name, array in arrays.items()} == {
        "leaky.initial": (1, 6), "leaky.trained": (1, 6), "rnn.initial": (1, 6)
    }  # fmt: skip
    trial = lanes.trial_directory(run, config)
    monkeypatch.delitem(CELLS, "leaky")
    with pytest.raises(runs.RunRefused, match=rf"cell 'leaky', which is not in the library: add --config={file}, the"):
        outputs.trained_config(trial)


def test_a_random_search_has_a_figure_that_fits_its_page(tmp_path):
    """64 learning rates made a heat map of 9,872 pixels by 500; the page shows a figure 544 pixels wide."""
    for seed, lr in enumerate(np.geomspace(1e-5, 1e-1, 16).tolist()):
        write_trial(tmp_path / "runs" / f"{seed}", "gru", lr, 0, lr)
    page = write_report([str(tmp_path / "runs")], str(tmp_path / "out")).read_text()
    images = [base64.b64decode(image) for image in re.findall(r"src='data:image/png;base64,([^']+)'", page)]
    sizes = [np.frombuffer(image[16:24], ">u4") for image in images]  # of the PNG's first chunk
    assert all(width < 1200 and height > width / 3 for width, height in sizes) and len(sizes) >= 3
    assert "lr: median score of each setting" in page
