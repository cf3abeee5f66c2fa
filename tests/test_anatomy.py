"""The anatomy table: every seed measured as it would be alone, and a verdict only where the seeds support one."""

import json
import math
from types import SimpleNamespace

import anatomy
import jax
import numpy as np
import pytest
import seeds

from rnnjax.cells import CELLS, rnn
from rnnjax.diagnostics.evidence import gather
from rnnjax.diagnostics.verdict import judge
from rnnjax.figures import study_plots
from rnnjax.keys import Purpose, purpose_key
from rnnjax.reports.diagnosis_subject import find_params, loss_of_taps, subject_of, validation_batch
from rnnjax.sweeps import lanes
from rnnjax.training import make_train
from rnnjax.training.config import Config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The whole program on one tiny network and 3 seeds: (config, its directory, anatomy.json)."""
    out = tmp_path_factory.mktemp("anatomy")
    config = Config(steps=2, eval_every=1, eval_batch=4, hidden_size=3, batch_size=2, seq_len=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seeds, "SEEDS", 3)
        patch.setattr(anatomy, "ROWS", {"tanh RNN": {"cell": "rnn"}})
        patch.setattr(anatomy, "TASKS", ("adding",))
        patch.setattr(anatomy, "load_config", lambda: config)
        patch.setattr(anatomy, "WORKDIR", SimpleNamespace(value=str(out)), raising=False)
        patch.setattr(anatomy, "OUT", SimpleNamespace(value=None), raising=False)
        patch.setitem(CELLS, "rnn_gaussian", rnn)
        assert anatomy.main(None) == 0
    return config, out, json.loads((out / "anatomy.json").read_text())


@pytest.mark.slow
@pytest.mark.slow
def test_each_seed_has_the_verdict_and_the_gradients_that_its_run_has_alone(run):
    config, out, (row,) = run
    config = Config(**vars(config) | {"cell": "rnn", "seed": 2})
    train = make_train(config)
    batch = validation_batch(config, train)

    @jax.jit
    def alone(params):
        subject = subject_of(config, train, params, batch)
        taps = subject.model.make_taps(12, batch.inputs.shape[1:2])
        return gather(loss_of_taps(subject), taps, subject.layers, purpose_key(Purpose.PROBES))

    for when, path in (("start", None), ("trained", lanes.trial_directory(out, config))):
        loss, evidence = jax.device_get(alone(find_params(config, train, path)))
        measures = row[when][2]
        assert measures["verdict"] == judge(loss, evidence).verdict
        np.testing.assert_allclose(measures["log_sensitivity"], evidence[0].log_sensitivity, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(measures["gradient"], evidence[0].gradient, rtol=1e-4)
    assert measures["score"] == pytest.approx(json.loads((path / "result.json").read_text())["score"], rel=1e-5)


@pytest.mark.slow
def test_three_seeds_are_too_few_for_a_verdict_and_the_table_says_so(run):
    _, out, (row,) = run
    assert len({tuple(m["gradient"]) for m in row["start"]}) == 3
    assert row["verdict"]["start"].startswith("undecided (3 ") and row["verdict"]["trained"].startswith("undecided (3 ")
    table = (out / "anatomy.md").read_text()
    assert "Medians over 3 seeds, too few for an interval" in table and "3 seeds are too few for one" in table
    assert (out / "anatomy.png").stat().st_size and (out / "anatomy_dark.png").stat().st_size


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["healthy"] * 12, "healthy"),
        (["vanishing"] * 10 + ["healthy"] * 2, "vanishing"),
        (["vanishing"] * 7 + ["healthy"] * 5, "undecided (7 vanishing, 5 healthy)"),
        (["NaN"] * 9 + ["healthy"] * 2 + ["dead"], "undecided (9 NaN, 2 healthy, 1 dead)"),
    ],
)
def test_a_row_has_the_verdict_that_ten_of_twelve_seeds_share(names, shown):
    assert anatomy.verdict([{"verdict": name} for name in names]) == shown


def test_what_is_not_finite_shows_in_the_table_and_in_the_figure():
    values = [0.1 * k for k in range(1, 13)]
    assert seeds.with_interval(values) == "0.65 [0.3, 1]"
    assert seeds.with_interval([math.nan, *values[1:]]) == "nan [0.3, 1.1]"
    assert seeds.with_interval([math.inf] * 7 + values[:5]) == "inf [0.3, inf]"
    assert seeds.with_interval([2.0] * 12) == "2"
    assert seeds.with_interval([204.4] * 3 + [1.25e-7] * 9) == "1.2e-07 [1.2e-07, 204]"
    profiles = np.ones((12, 4))
    profiles[0, 0] = profiles[:3, 1] = np.nan  # one seed cannot move the interval, three can
    profiles[:7, 2] = np.inf
    figure = study_plots.anatomy({"copy": {"x": {"start": profiles, "trained": profiles}}}, {"x": "k"}, ylabel="y")
    band, line = figure.axes[0].collections[1].get_paths()[0].vertices, figure.axes[0].lines[1].get_ydata()
    at = {back: sorted(set(band[band[:, 0] == back][:, 1])) for back in range(4)}  # steps back from the last
    assert at == {0: [1], 1: [1, 1e3], 2: [1e-8, 1e3], 3: [1]}
    np.testing.assert_array_equal(line, [1, 1e3, 1, 1])


def test_a_score_has_three_digits_and_a_reach_says_where_it_ends_with_the_sequence():
    measures = [{"score": 0.2864, "reach": float(reach), "ratio": 0.2864, "steps": 50} for reach in [20] * 6 + [50] * 6]
    assert [anatomy._text(measures, name) for name in ("score", "ratio", "reach")] == [
        "0.286",
        "0.29",
        "35 [20, >= 50]",
    ]
