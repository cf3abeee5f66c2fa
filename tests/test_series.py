"""Forecasting: windows by loops, references in NumPy, no look into the future, and what is refused."""

import csv
import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnjax
from rnnjax.tasks import series
from rnnjax.tasks.series import pinball
from rnnjax.tasks.series_data import find_season, mase_scale, prepare
from rnnjax.tasks.series_references import errors, fit_ridge, predict_ridge, reference_forecasts
from rnnjax.tasks.series_report import Window, forecast, predict
from rnnjax.tasks.tables import Table

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
N, T, H, M = 90, 5, 4, 3  # rows, steps of a window, horizon, season
COLUMNS = {
    "a": np.tile([4.0, 9.0, 1.0], N // M) + RNG.normal(size=N),
    "b": np.tile([-40.0, 10.0, 60.0], N // M) + 5 * RNG.normal(size=N) + 100,
    "z": RNG.normal(size=N),
}
PARTS = {"train": (0, 63), "validation": (63, 76), "test": (76, 90)}


def write(path, columns=COLUMNS):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "own.csv")


def make(path, **options):
    return series(T, path=path, **({"target": "a,b", "inputs": "z", "horizon": H, "season": M} | options))


def table(columns=COLUMNS, times=None, step=None):
    return Table("own.csv", times or [""] * len(columns["a"]), step, columns, "0")


def window(columns=COLUMNS, ahead=H, quantiles=(0.5,), inputs=True, levels=True):
    columns = columns if inputs else {name: columns[name] for name in "ab"}
    return Window(prepare(table(columns), 2, M, H), T, H, ahead, quantiles, levels)


class Linear:
    """A model that is one matrix at each step, as an oracle can compute it."""

    def __init__(self, W):
        self.W = W

    def __call__(self, inputs):
        return jnp.cumsum(inputs, axis=0) @ self.W


def draw(task, batch_size, split="train"):
    return jax.tree.map(np.asarray, jax.jit(lambda key: task.sample(key, batch_size, split=split))(KEY))


def launch(*arguments):
    command = [sys.executable, str(Path(__file__).parents[1] / "experiments/forecast.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def scaled(name):
    train = COLUMNS[name][:63]
    return (COLUMNS[name] - train.mean()) / train.std()


@pytest.mark.parametrize("split", PARTS)
@pytest.mark.parametrize("strategy", ["direct", "recursive"])
def test_windows_and_targets_are_those_of_a_loop(split, strategy, path):
    task = make(path, strategy=strategy)
    batch = draw(task, 40, split)
    ahead, ends = H if strategy == "direct" else 1, set()
    x = np.stack([scaled(name) for name in "abz"], axis=1)
    first, end = PARTS[split]
    for i in range(40):
        (o,) = [o for o in range(N) if abs(x[o] - batch.inputs[-1, i, :3]).max() < 1e-5]
        ends.add(o)
        assert o - T - M >= -1 and first <= o + 1 and o + ahead < end  # the targets of the last step are in the part
        for s in range(T):
            t = o - T + 1 + s
            assert batch.weights[s, i] == (s >= T // 2 if split == "train" else s == T - 1)
            if batch.weights[s, i]:
                assert first <= t + 1 and t + ahead < end
            np.testing.assert_allclose(batch.inputs[s, i, :3], x[t], atol=1e-5)
            for k, name in enumerate("ab"):
                y = COLUMNS[name]
                scale = np.mean([abs(y[j] - y[j - M]) for j in range(M, 63)])
                assert batch.inputs[s, i, 3 + k] == pytest.approx((y[t] - y[t - M]) / scale, abs=1e-4)
                step = np.std([y[j] - y[j - 1] for j in range(1, 63)])
                assert batch.inputs[s, i, 5 + k] == pytest.approx((y[t] - y[t - 1]) / step, abs=1e-4)
                for h in range(1, ahead + 1):
                    naive = y[t + h - M] if h <= M else y[t + h - 2 * M]
                    assert batch.targets[s, i, h - 1, k] == pytest.approx((y[t + h] - naive) / scale, abs=1e-4)
    if split != "train":  # 40 windows at even distances show all there are
        assert ends == set(range(first - 1, end - ahead))


def test_the_score_is_mase_by_hand(path):
    task = make(path)
    batch = draw(task, 10, "validation")  # 10 windows there are
    naive = jnp.zeros((T, 10, task.output_size))  # corrects nothing
    metrics = task.metrics(naive, batch)
    by_hand = {"a": [], "b": []}
    for name, found in by_hand.items():
        y = COLUMNS[name]
        found += [abs(y[o + h] - y[o + h - M * (1 + (h > M))]) for o in range(62, 72) for h in range(1, H + 1)]
    mae = {name: np.mean(found) for name, found in by_hand.items()}
    scale = {name: np.mean(np.abs(y[M:63] - y[: 63 - M])) for name, y in COLUMNS.items() if name != "z"}
    mase = np.mean([mae[name] / scale[name] for name in "ab"])
    assert float(metrics["mase"]) == pytest.approx(mase, rel=1e-5)
    assert float(metrics["mae"]) == pytest.approx(np.mean(list(mae.values())), rel=1e-5)
    rmse = np.sqrt(np.mean(np.square(list(by_hand.values()))))
    assert float(metrics["rmse"]) == pytest.approx(rmse, rel=1e-5)
    assert float(task.loss(naive, batch)) == pytest.approx(mase, rel=1e-5)
    assert task.references()["seasonal naive"] == pytest.approx(mase, rel=1e-6)
    last = [
        np.mean([abs(y[o + h] - y[o]) for o in range(62, 72) for h in range(1, H + 1)]) / scale[name]
        for name, y in COLUMNS.items()
        if name != "z"
    ]
    assert task.baseline == task.references()["last value"] == pytest.approx(np.mean(last), rel=1e-6)
    assert task.solved == min(task.references().values())


def test_training_knows_nothing_of_what_comes_later(tmp_path, path):
    changed = {name: np.concatenate([y[:76], 7 * y[76:] + 5]) for name, y in COLUMNS.items()}
    one, two = make(path), make(write(tmp_path / "other.csv", changed))
    for split in ("train", "validation"):
        jax.tree.map(np.testing.assert_array_equal, draw(one, 20, split), draw(two, 20, split))
    assert one.references() == two.references()
    assert not np.array_equal(draw(one, 9, "test").targets, draw(two, 9, "test").targets)
    changed = {name: np.concatenate([y[:63], 7 * y[63:] + 5]) for name, y in COLUMNS.items()}
    two = make(write(tmp_path / "other.csv", changed))
    jax.tree.map(np.testing.assert_array_equal, draw(one, 20), draw(two, 20))
    assert draw(one, 20).weights.shape == (T, 20)


def test_no_forecast_depends_on_what_comes_after_it():
    W = jnp.asarray(RNG.normal(size=(7, H * 2)))
    o = 80
    changed = {name: np.concatenate([y[: o + 1], y[o + 1 :] + 50]) for name, y in COLUMNS.items()}
    found = [predict(window(columns), Linear, W, range(o, o + 1)) for columns in (COLUMNS, changed)]
    np.testing.assert_array_equal(*found)
    references = [reference_forecasts(window(c).data, range(o, o + 1), T + M, H) for c in (COLUMNS, changed)]
    jax.tree.map(np.testing.assert_array_equal, *references)


@pytest.mark.parametrize("ahead", [H, 1, 3])
@pytest.mark.parametrize("inputs, levels", [(True, True), (False, True), (True, False)])
def test_a_rollout_is_that_of_a_loop(ahead, inputs, levels):
    form = window(ahead=ahead, inputs=inputs, levels=levels)
    D, where = (3 if inputs else 2), range(70, 73)
    W = 0.1 * RNG.normal(size=(form.input_size, ahead * 2))
    assert form.input_size == D + (4 if levels else 2)
    found = predict(form, Linear, jnp.asarray(W), where)
    assert found.shape == (3, H, 2, 1)
    columns = np.stack([COLUMNS[name] for name in "abz"[:D]], axis=1)
    mean, deviation = columns[:63].mean(0), columns[:63].std(0)
    scale = np.abs(columns[M:63, :2] - columns[: 63 - M, :2]).mean(0)
    for i, o in enumerate(where):
        known = columns[: o + 1].copy()
        while len(known) < o + 1 + H:
            read = known[-T:]
            change = (read[:, :2] - known[-T - M : -M, :2]) / scale
            one = (read[:, :2] - known[-T - 1 : -1, :2]) / np.diff(columns[:63, :2], axis=0).std(0)
            shown = (read - mean) / deviation
            total = np.concatenate([shown if levels else shown[:, 2:], change, one], axis=1).sum(0)
            correction = (total @ W).reshape(ahead, 2) * scale
            naive = np.stack([known[-M + h % M, :2] for h in range(ahead)])
            held = np.repeat(known[-1:, 2:], ahead, axis=0)
            known = np.concatenate([known, np.concatenate([naive + correction, held], axis=1)])
        np.testing.assert_allclose(found[i, ..., 0], known[o + 1 : o + 1 + H, :2], rtol=2e-4)


def test_the_pinball_loss_is_that_of_numpy():
    errors_ = np.array([-2.0, -0.5, 0.0, 3.0])
    levels = (0.1, 0.5, 0.9)
    found = np.asarray(pinball(jnp.asarray(errors_)[:, None] * jnp.ones(3), levels))
    expected = [[2 * (q * e if e > 0 else (q - 1) * e) for q in levels] for e in errors_]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    values = RNG.normal(size=4001)
    guesses = np.linspace(-2, 2, 401)
    losses = np.asarray(pinball(jnp.asarray(values[:, None, None] - guesses[:, None]), (0.1, 0.9))).mean(0)
    np.testing.assert_allclose(guesses[losses.argmin(0)], np.quantile(values, [0.1, 0.9]), atol=0.02)


def test_ridge_is_least_squares_with_rows_for_the_penalty():
    data, rows = window().data, T + M
    model = fit_ridge(data, rows, H)
    x = np.stack([scaled(name) for name in "abz"], axis=1)
    where = range(rows - 1, 63 - H)
    X = np.stack([np.concatenate([x[o - lag] for lag in range(model.lags)]) for o in where])
    Y = np.stack([(x[o + 1 : o + 1 + H, :2] - x[o, :2]).ravel() for o in where])
    F = X.shape[1]
    augmented = np.concatenate([X - X.mean(0), np.sqrt(model.penalty) * np.eye(F)])
    wanted = np.concatenate([Y - Y.mean(0), np.zeros((F, Y.shape[1]))])
    weights = np.linalg.lstsq(augmented, wanted, rcond=None)[0]
    np.testing.assert_allclose(model.weights, weights, rtol=1e-6, atol=1e-8)
    one = np.concatenate([x[80 - lag] for lag in range(model.lags)])
    expected = (one - X.mean(0)) @ weights + Y.mean(0)
    np.testing.assert_allclose(predict_ridge(model, data.x, range(80, 81))[0], expected, rtol=1e-6)


def test_the_seasonal_naive_forecast_and_its_errors_by_hand():
    data = window().data
    found = reference_forecasts(data, range(75, 86), T + M, H)["seasonal naive"]
    for i, o in enumerate(range(75, 86)):
        for k, name in enumerate("ab"):
            y = COLUMNS[name]
            assert list(found[i, :, k]) == [y[o - 2], y[o - 1], y[o], y[o - 2]]
    score = errors(found, data, range(75, 86))
    by_step = [
        np.mean([abs(COLUMNS[n][o + h] - COLUMNS[n][o + h - M * (1 + (h > M))]) for o in range(75, 86) for n in "ab"])
        for h in range(1, H + 1)
    ]
    np.testing.assert_allclose(score["mae_by_step"], by_step)
    assert score["mae"] == pytest.approx(np.mean(by_step))


@pytest.mark.parametrize(
    "values, step, season",
    [
        (np.sin(2 * np.pi * np.arange(300) / 25), None, 25),
        (np.sin(2 * np.pi * np.arange(300) / 7) + np.arange(300) * 3 + RNG.normal(size=300) / 5, None, 7),
        (RNG.normal(size=400), None, 1),
        (np.cumsum(RNG.normal(size=400)), "month", 12),
        (np.arange(50.0), None, 1),
        (np.arange(9.0), "month", 1),  # less than two years
    ],
)
def test_the_season_is_found(values, step, season):
    assert find_season(values, step) == season


def test_a_series_that_repeats_itself_exactly_is_scaled_by_its_steps():
    y = np.tile([0.0, 1.0, 3.0], 10)[:, None]
    assert mase_scale(y, 3) == pytest.approx(np.abs(np.diff(y[:, 0])).mean())
    assert mase_scale(np.arange(5.0)[:, None], 2) == 2


@pytest.mark.parametrize("steps", [2, 7])
def test_a_forecast_goes_on_from_the_end_of_the_data_or_of_a_new_table(steps):
    form = window(quantiles=(0.1, 0.5, 0.9))
    W = jnp.asarray(0.1 * RNG.normal(size=(7, H * 2 * 3)))
    found = forecast(form, Linear, W, steps)
    assert list(found.values) == ["a", "b", "a 0.1", "b 0.1", "a 0.9", "b 0.9"] and len(found.times) == steps
    cut = {name: y[:80] for name, y in COLUMNS.items()}
    new = forecast(form, Linear, W, steps, table(cut))
    expected = predict(form, Linear, W, range(79, 80))[0]  # scaled by what was trained on, not by the new table
    np.testing.assert_allclose(new.values["b"][:H], expected[:steps, 1, 1], rtol=1e-5)
    np.testing.assert_allclose(new.values["b 0.9"][:H], expected[:steps, 1, 2], rtol=1e-5)
    np.testing.assert_array_equal(new.past["a"], COLUMNS["a"][80 - len(new.past_times) : 80])
    with pytest.raises(ValueError, match=r"own.csv has 7 rows; a forecast needs the last 8"):
        forecast(form, Linear, W, steps, table({name: y[:7] for name, y in COLUMNS.items()}))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"strategy": "drect"}, "unknown strategy 'drect'; did you mean 'direct'"),
        ({"horizon": 0}, "horizon is 0; it must be an integer, 1 or more"),
        ({"horizon": 14}, r"horizon is 14, but the validation part of own.csv has 13 of its 90 rows"),
        ({"horizon": 100}, r"horizon is 100, but the train part of own.csv has 63 of its 90 rows"),
        ({"seq_len": 60}, r"with seq_len=60 and horizon=4 a window takes 67 rows, but the train part of own.csv ends"),
        ({"season": 63}, "season is 63; it must be an integer from 1 to 62"),
        ({"season": 0}, "season is 0; it must be an integer from 1"),
        ({"quantiles": True, "strategy": "recursive"}, "quantiles=True needs strategy='direct'"),
        ({"source": "lorenz"}, "path and source='lorenz' are both given; allowed: one of them"),
        ({"target": "c"}, "unknown column 'c'"),
    ],
)
def test_what_cannot_be_forecast_is_one_line(options, message, path):
    with pytest.raises(ValueError, match=message) as error:
        series(options.pop("seq_len", T), path=path, **({"target": "a", "horizon": H, "season": M} | options))
    assert "\n" not in str(error.value)


def test_a_column_that_never_changes_and_a_table_of_few_rows_are_refused(tmp_path):
    constant = write(tmp_path / "own.csv", COLUMNS | {"z": np.where(np.arange(N) < 63, 2.0, 3.0)})
    with pytest.raises(ValueError, match=r"column 'z' of own.csv is 2 in all of the first 63 rows"):
        make(constant)
    with pytest.raises(ValueError, match=r"own.csv has 3 rows"):
        make(write(tmp_path / "own.csv", {name: y[:3] for name, y in COLUMNS.items()}))
    with pytest.raises(ValueError, match="unknown split 'tset'; did you mean 'test'"):
        series(5).sample(KEY, 2, split="tset")


@pytest.mark.slow
def test_nothing_beats_the_last_value_of_a_random_walk(tmp_path):
    """... and what a run leaves: its numbers beside the references', a table by step, figures, and a forecast."""
    walk = {"price": np.cumsum(np.random.default_rng(5).normal(size=4000)) + 100}
    options = {"path": str(write(tmp_path / "walk.csv", walk)), "horizon": 2, "season": 5}
    sizes = {"hidden_size": 4, "batch_size": 16, "eval_batch": 64, "steps": 40, "eval_every": 20, "lr": 3e-3}
    config = rnnjax.Config(task="series", task_options=options, cell="gru", seq_len=8, gradient_flow=False, **sizes)
    run = rnnjax.fit(config, tmp_path / "run", progress=False)
    result = run.result
    for name in ("", "_ridge", "_seasonal_naive"):
        assert result[f"test_mae{name}"] > 0.98 * result["test_mae_last_value"]
    assert result["test_mae_seasonal_naive"] > 1.5 * result["test_mae_last_value"]
    assert result["report"]["figures"] == ["error_by_step.png", "forecast_test.png"]
    rows = list(csv.DictReader((tmp_path / "run/report_by_step.csv").open()))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert float(rows[1]["mae_ridge"]) == pytest.approx(result["test_mae_at_horizon_ridge"], rel=1e-4)
    assert run.sources["the file of task.path"].file == options["path"]
    again = rnnjax.load(tmp_path / "run")
    ahead = again.forecast(5)
    assert len(ahead.values["price"]) == 5 and abs(ahead.values["price"][0] - walk["price"][-1]) < 5
    new = write(tmp_path / "new.csv", {"price": walk["price"][:50]})
    done = launch(f"--workdir={tmp_path / 'run'}", f"--csv={new}", "--steps=3", f"--out={tmp_path / 'out'}")
    assert done.returncode == 0 and "3 steps after 50" in done.stdout
    rows = list(csv.reader((tmp_path / "out/forecast.csv").open()))
    assert rows[0] == ["time", "price"] and [row[0] for row in rows[1:]] == ["51", "52", "53"]
    np.testing.assert_allclose([float(row[1]) for row in rows[1:]], again.forecast(3, new).values["price"], rtol=1e-5)
    assert (tmp_path / "out/forecast.png").exists() and not (tmp_path / "run/forecast.csv").exists()
    write(tmp_path / "walk.csv", {"price": walk["price"] + 1})
    with pytest.raises(ValueError, match=r"the file of task\.path"):
        rnnjax.load(tmp_path / "run")


def test_a_chunk_is_compiled_once():
    config = rnnjax.Config(task="series", seq_len=6, hidden_size=2, batch_size=2, eval_batch=2, steps=2, eval_every=1)
    config = dataclasses.replace(config, cell="rnn", task_options={"horizon": 2, "quantiles": True})
    train = rnnjax.make_train(config)
    values = {"lr": jnp.float32(1e-3), "weight_decay": jnp.float32(0), "clip": jnp.float32(1)}
    chunk, state = jax.jit(train.chunk), train.init(KEY, values)
    losses = []
    for _ in range(3):
        state, record = chunk(state, values, train.task.data)
        losses.append(float(record["loss"]))
    assert chunk._cache_size() == 1 and np.isfinite(losses).all()
