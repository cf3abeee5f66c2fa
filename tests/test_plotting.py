"""Figures show the numbers that the files hold: drawn data are compared with NumPy's own from the same files."""

import json

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from rnnjax.figures import diagnostic_plots, plot_style, plotting, setting_plots
from rnnjax.runs import read as run_data

STEPS = np.array([10, 20, 30])


def write_run(path, scores, cell="lstm", seed=0, diverged=-1, flow=None, higher=False, **config):
    path.mkdir(parents=True)
    config = {"task": "adding", "cell": cell, "seed": seed, "lr": 0.01} | config
    (path / "config.json").write_text(
        json.dumps({"config": config, "versions": {"jax": "0"}, "devices": {}, "git": None})
    )
    rows = [
        {"step": int(s), "loss": 1.0, "eval_mse": v, "diverged": diverged if 0 <= diverged <= s else -1}
        for s, v in zip(STEPS, scores, strict=False)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = {"score_name": "mse", "score": scores[-1], "baseline": 0.16, "solved_threshold": 0.05, "solved_at": None}
    (path / "result.json").write_text(json.dumps(result | {"higher_is_better": higher}))
    if flow is not None:
        np.savez(path / "gradient_flow.npz", step=STEPS, **flow)
    return path


def lines_of(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def assert_drawn(path):
    pixels = imread(path)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_learning_curve_shows_median_and_quartiles_over_seeds(tmp_path):
    scores = np.array([[0.2, 0.1, 0.004], [0.16, 0.02, 0.001], [0.18, 0.15, 0.14], [0.17, 0.03, 0.002]])
    paths = [write_run(tmp_path / str(seed), s.tolist(), seed=seed) for seed, s in enumerate(scores)]
    paths.append(write_run(tmp_path / "rnn", [0.17, 0.16, 0.165], cell="rnn"))
    figure = plotting.learning_curve(paths, tmp_path / "out.png")
    axes = figure.axes[0]
    lines = lines_of(axes)
    np.testing.assert_array_equal(lines["lstm"].get_xdata(), STEPS)
    np.testing.assert_allclose(lines["lstm"].get_ydata(), np.median(scores, axis=0))
    np.testing.assert_allclose(lines["rnn"].get_ydata(), [0.17, 0.16, 0.165])
    (band,) = [c for c in axes.collections if len(c.get_paths()[0].vertices) > 4]
    vertices = band.get_paths()[0].vertices
    for k, step in enumerate(STEPS):
        drawn = vertices[vertices[:, 0] == step, 1]
        np.testing.assert_allclose([drawn.min(), drawn.max()], np.percentile(scores[:, k], [25, 75]))
    assert axes.get_yscale() == "log" and axes.get_ylabel().startswith("validation mse")
    assert {text.get_text() for text in axes.texts} == {"no memory 0.16", "solved 0.05"}
    levels = [line.get_ydata()[0] for line in axes.lines if line.get_label().startswith("_")]
    assert sorted(levels) == [0.05, 0.16]
    assert_drawn(tmp_path / "out.png")


def test_of_many_settings_the_best_are_named_in_colours_of_their_own(tmp_path):
    cells = [f"cell{i:02}" for i in range(14)]
    paths = [write_run(tmp_path / c, [0.2, 0.2, 0.1 - 0.005 * i], cell=c) for i, c in enumerate(cells)]
    (axes,) = plotting.learning_curve(paths).axes
    lines = lines_of(axes)
    assert set(lines) == {*cells[4:], "4 others"}
    assert len({line.get_color() for line in lines.values()}) == 11
    assert plot_style.distinct_colors(["lstm", "gru"]) == {c: plot_style.cell_color(c) for c in ("lstm", "gru")}


def test_no_label_is_cut_off_and_every_axis_has_numbers_to_read(tmp_path):
    path = write_run(tmp_path / "run", [0.2, 0.1, 0.05])
    for name in ("metrics.jsonl", "result.json"):
        (path / name).write_text((path / name).read_text().replace("mse", "bits_per_character"))
    figure = plotting.learning_curve([path])
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert axes.get_title() == "adding"
    label = axes.yaxis.label.get_window_extent()
    assert label.y0 >= 0 and label.y1 <= figure.bbox.height
    for top in (1.1, 3.0, 12.0, 1e3, 1e9):
        axes = diagnostic_plots.lines_over_steps({"h": np.geomspace(1, top, 9)}, tmp_path / "out.png", ylabel="").axes[
            0
        ]
        low, high = axes.get_ylim()
        ticks = [t for t in axes.yaxis.get_major_ticks() if low <= t.get_loc() <= high and t.label1.get_text()]
        assert len(ticks) >= 2
    axes = diagnostic_plots.gradient_errors(["a"], [0.5], [100.0], tmp_path / "out.png").axes[0]
    assert axes.get_xlim()[1] > 100


def test_settings_are_told_apart_and_divergence_is_marked(tmp_path):
    one = write_run(tmp_path / "a", [0.9, 0.8, 0.7], lr=0.1, higher=True)
    two = write_run(tmp_path / "b", [0.9, 0.8, 0.8], lr=0.2, higher=True, diverged=20)
    axes = plotting.learning_curve([one, two]).axes[0]
    assert axes.get_yscale() == "linear"
    lines = lines_of(axes)
    assert set(lines) == {"lstm lr=0.1", "lstm lr=0.2", "diverged here"}
    assert lines["lstm lr=0.1"].get_color() == lines["lstm lr=0.2"].get_color()
    assert lines["lstm lr=0.1"].get_linestyle() != lines["lstm lr=0.2"].get_linestyle()
    (mark,) = [line for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata()) == 1]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (20, 0.8)


def test_a_run_that_ended_early_keeps_its_last_score_and_one_that_is_not_finite_is_the_worst(tmp_path):
    runs = [
        run_data.read_run(write_run(tmp_path / "short", [0.5, 0.4])),
        run_data.read_run(write_run(tmp_path / "long", [0.5, float("nan"), 0.2], seed=1)),
        run_data.read_run(write_run(tmp_path / "lost", [0.6, float("inf"), float("nan")], seed=2)),
    ]
    steps, scores = run_data.score_over_time(runs, "mse")
    np.testing.assert_array_equal(steps, STEPS)
    np.testing.assert_array_equal(scores, [[0.5, 0.4, 0.4], [0.5, np.inf, 0.2], [0.6, np.inf, np.inf]])
    np.testing.assert_allclose(run_data.quartiles(scores)[1], [0.5, np.inf, 0.4])
    axes = plotting.learning_curve(runs, tmp_path / "out.png").axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.5, np.inf, 0.4])  # not the 0.4 of the only one left
    assert np.isfinite(axes.get_ylim()).all()


def test_gradient_map_draws_every_value_and_leaves_zeros_out_of_the_scale(tmp_path):
    t = np.arange(8)
    c = np.exp(0.5 * t) * np.array([[1e-3], [2e-3], [4e-3]])
    c[:, -1] = 0  # nothing reads c_T
    h = np.exp(3.0 * t) * np.array([[1e-20], [1e-14], [1e-10]])
    path = write_run(tmp_path / "run", [1.0, 1.0, 1.0], flow={"layer0.c": c, "layer0.h": h})
    figure = plotting.gradient_map(path, tmp_path / "out.png")
    left, right, bar = figure.axes
    low, high = left.collections[0].norm.vmin, left.collections[0].norm.vmax
    assert h.max() <= high < 10 * h.max()
    np.testing.assert_allclose(low, high * 1e-8)
    np.testing.assert_array_equal(np.ma.getmaskarray(left.collections[0].get_array()), c == 0)
    np.testing.assert_allclose(left.collections[0].get_array().compressed(), c[c > 0])
    np.testing.assert_allclose(right.collections[0].get_array(), np.maximum(h, low))
    corners = left.collections[0].get_coordinates()
    np.testing.assert_array_equal(corners[:, 0, 1], [0, 10, 20, 30])  # each row is the steps since the one below
    np.testing.assert_array_equal(corners[0, :, 0], np.arange(9) + 0.5)
    assert "dL/dc_t" in left.get_title() and "dL/dh_t" in right.get_title()
    assert figure.get_supxlabel().startswith("sequence step")
    assert kinds_of(figure)["0, or below 2e-308"] == plot_style.GREY
    assert figure.get_suptitle() == "lstm on adding"
    assert figure.get_supylabel() == "training step" and "rms over training batches" in bar.get_ylabel()
    assert_drawn(tmp_path / "out.png")


def kinds_of(figure):
    """{text: colour} of a legend of patches."""
    (legend,) = figure.legends
    colors = [matplotlib.colors.to_hex(patch.get_facecolor()) for patch in legend.get_patches()]
    return dict(zip((text.get_text() for text in legend.get_texts()), colors, strict=True))


@pytest.mark.parametrize("dark", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_zero_tiny_and_not_finite_are_three_colours_of_a_map_and_named(dark, tmp_path):
    values = np.array([[1, 0.1], [1e-30, 1], [np.nan, np.inf], [0, 1]], "f")
    names = {"0, or below 1e-38": plot_style.GREY, "below 1e-8": "#000004", "not finite": plot_style.NOT_FINITE.lower()}
    for draw in (
        lambda out: plotting.gradient_map({"step": np.arange(1, 5), "layer0.h": values}, out, dark=dark),
        lambda out: diagnostic_plots.time_by_time(np.tile(values, 2), out, label="", rows="", columns="", dark=dark),
    ):
        figure = draw(tmp_path / "out.png")
        assert kinds_of(figure) == names
        pixels = (255 * imread(tmp_path / "out.png")).round().astype(np.uint8).view(np.uint32)  # one number each
        pixels = {matplotlib.colors.to_hex(c / 255) for c in np.unique(pixels).view(np.uint8).reshape(-1, 4)}
        assert set(names.values()) <= pixels
    all_finite = plotting.gradient_map({"step": np.arange(1, 3), "layer0.h": values[:1].repeat(2, 0)})
    assert not all_finite.legends


def test_curves_say_where_they_are_zero_or_not_finite_and_how_many_seeds_are_not():
    seeds = np.array([[1, 1, 1], [0, 0, 1], [0, 0, 1], [np.nan, 1, 1]], "f")
    axes = plotting.gradient_profiles({"rnn": (seeds, np.zeros((2, 3), "f"))}).axes[0]
    line = lines_of(axes)["rnn (1 of 4 without a finite gradient)"]
    np.testing.assert_allclose(line.get_ydata(), [1, 0, 0])  # the median of three seeds, of two of which it is 0
    assert "rnn, trained (2 of 2 without a finite gradient)" in lines_of(axes)
    axes = diagnostic_plots.lines_over_steps({"h": np.array([np.nan, 0, 1, 2], "f")}, ylabel="").axes[0]
    crosses = lines_of(axes)
    assert list(crosses["not finite"].get_xdata()) == [1] and list(crosses["0, or below 1e-38"].get_xdata()) == [2]
    axes = diagnostic_plots.gradient_errors(["a", "b"], [1, np.nan], [np.inf, 1]).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a (not finite)", "b (not finite)"]
    diagnostic_plots.by_lag({"a": (np.arange(3), np.array([np.inf, 1, 0]))})


def test_gradient_map_has_a_row_a_layer_and_direction_in_order():
    names = [f"layer{layer}.{way}.{part}" for layer in (0, 10) for way in ("forward", "backward") for part in "ch"]
    figure = plotting.gradient_map({"step": STEPS} | {name: np.ones((3, 4)) for name in names})
    titles = [axes.get_title() for axes in figure.axes[:-1]]
    assert [title.split(":")[0] for title in titles[::2]] == [
        f"layer {layer} {way}" for layer in (0, 10) for way in ("forward", "backward")
    ]
    with pytest.raises(ValueError, match="no gradient flow was recorded"):
        plotting.gradient_map({"step": STEPS})


def test_gradient_profiles_are_relative_to_the_last_gradient(tmp_path):
    initial = np.array([[0.5, 1.0, 2.0, 4.0, 0.0], [0.25, 0.5, 1.0, 4.0, 0.0], [1.0, 2.0, 4.0, 8.0, 0.0]])
    trained = np.array([[0.0, 1.0, 1.0, 3.0, 6.0]])
    figure = plotting.gradient_profiles({"gru": (initial, trained), "mine": (initial, None)}, tmp_path / "out.svg")
    axes = figure.axes[0]
    lines = lines_of(axes)
    np.testing.assert_array_equal(lines["gru"].get_xdata(), [0, 1, 2, 3])
    np.testing.assert_allclose(lines["gru"].get_ydata(), [1, 1 / 2, 1 / 4, 1 / 8])
    np.testing.assert_allclose(lines["gru, trained"].get_ydata(), [1, 0.5, 1 / 6, 1 / 6, 0])
    two_of_three_vanish = np.array([[0, 0, 1.0], [0, 0, 2.0], [1.0, 1.0, 1.0]])
    figure = plotting.gradient_profiles({"gru": (two_of_three_vanish, None)})
    np.testing.assert_allclose(lines_of(figure.axes[0])["gru"].get_ydata(), [1, 0, 0])
    assert lines["gru"].get_color() == lines["gru, trained"].get_color() != lines["mine"].get_color()
    assert [lines[name].get_linestyle() for name in ("gru", "gru, trained")] == ["-", "--"]
    (dotted,) = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert set(dotted.get_ydata()) == {1e-3}
    assert axes.get_yscale() == "log" and "validation" in axes.get_title()
    assert (tmp_path / "out.svg").read_text().startswith("<?xml")


def test_heat_map_has_the_best_in_yellow_and_gaps_in_grey(tmp_path):
    texts = [["a", "b"], ["c", ""]]
    options = {"column_label": "lr", "label": "median"}
    figure = setting_plots.heat_map([[0.1, 0.9], [0.5, np.nan]], texts, "xy", "zw", tmp_path / "out.png", **options)
    (mesh,) = figure.axes[0].collections
    figure.canvas.draw()
    best, worst, _, gap = mesh.get_facecolors()[:, :3]
    assert best[0] > 0.9 and best[1] > 0.8 and worst.max() < 0.4
    assert matplotlib.colors.to_hex(gap) == plot_style.GREY
    assert [text.get_text() for text in figure.axes[0].texts] == ["a", "b", "c", ""]
    assert_drawn(tmp_path / "out.png")


def test_score_scatter_fills_what_was_solved_and_crosses_what_is_not_finite(tmp_path):
    points = {"rnn": ([1e-4, 1e-2], [0.1, np.inf], [False, False]), "gru": ([1e-3], [0.001], [True])}
    figure = setting_plots.score_scatter(points, tmp_path / "out.png", column_label="lr", label="median mse")
    axes = figure.axes[0]
    circles = [c for c in axes.collections if len(c.get_offsets())]
    assert [c.get_offsets().tolist() for c in circles] == [[[1e-4, 0.1]], [[1e-3, 0.001]]]
    assert [len(c.get_facecolors()) and c.get_facecolors()[0, 3] for c in circles] == [0, 1]
    assert axes.lines[0].get_xdata().tolist() == [1e-2]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert_drawn(tmp_path / "out.png")


def test_a_cell_has_one_colour_everywhere():
    assert len(set(plot_style.CELL_COLORS.values())) == len(plot_style.CELL_COLORS)
    assert not set(plot_style.CELL_COLORS.values()) & set(plot_style.OTHER_COLORS)
    assert plot_style.cell_color("mine") == "#C0578A"  # whatever else there is, and in every process


def test_any_text_is_a_label_and_matplotlib_stays_as_it_was(tmp_path):
    before = dict(matplotlib.rcParams)
    cells = (r"$\frac{$", "_hidden", "a\nb\n" + 200 * "x", "<script>")
    paths = [write_run(tmp_path / str(k), [1.0, 0.9, 0.8], cell=cell) for k, cell in enumerate(cells)]
    figure = plotting.learning_curve(paths, tmp_path / "out.png", dark=True)
    assert len(figure.legends[0].get_texts()) == len(cells)
    assert dict(matplotlib.rcParams) == before


def test_what_is_wrong_with_a_run_is_one_line_that_names_the_file(tmp_path):
    path = write_run(tmp_path / "run", [1.0, 1.0, 1.0])
    (path / "result.json").write_text('{"score": ')
    with pytest.raises(ValueError, match=r"run/result\.json is damaged"):
        run_data.read_run(path)
    (path / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match=r"run/metrics\.jsonl is missing"):
        plotting.learning_curve([path])
    other = write_run(tmp_path / "other", [1.0, 1.0, 1.0], task="copy")
    with pytest.raises(ValueError, match="one task and score; these have adding, copy"):
        plotting.learning_curve([other, write_run(tmp_path / "adding", [1.0, 1.0, 1.0])])
    with pytest.raises(ValueError, match="at least one run"):
        plotting.learning_curve([])
