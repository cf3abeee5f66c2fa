"""A comparison: sizes that match, what the seeds support, and a table that reads what sweeps left."""

import dataclasses
import math

import pytest

from rnnjax.sweeps import matching
from rnnjax.sweeps.matching import count_parameters, matched, models_of, nearest_size, nearest_time
from rnnjax.training.config import Config
from rnnjax.training.refusals import BadSetting

TINY = Config(seq_len=4, hidden_size=12, steps=4, eval_every=2, eval_batch=4, batch_size=2)
NO_CLOCK = {"seconds": lambda config: pytest.fail("a clock was read")}


OF_A_LAYER = {  # parameters of H units that read D numbers
    "rnn": lambda H, D: H * (H + D + 1),
    "lstm": lambda H, D: 4 * H * (H + D + 1),
    "gru": lambda H, D: 3 * H * (H + D + 1) + H,
    "mgu": lambda H, D: 2 * H * (H + D + 1) + H,
}


def closed_form(cell, H, layers=1):
    """Parameters of a network on adding, with its readout."""
    return OF_A_LAYER[cell](H, 2) + (layers - 1) * OF_A_LAYER[cell](H, H) + H + 1


@pytest.mark.parametrize("cell", OF_A_LAYER)
def test_parameters_are_those_of_the_closed_form(cell):
    for H, layers in ((5, 1), (12, 2)):
        config = dataclasses.replace(TINY, cell=cell, hidden_size=H, num_layers=layers)
        assert count_parameters(config) == closed_form(cell, H, layers)


@pytest.mark.parametrize("H", [12, 57])
def test_no_width_has_a_nearer_number_of_parameters(H):
    models = models_of(dataclasses.replace(TINY, hidden_size=H), ["gru", "rnn", "lstm"])
    assert [m.label for m in models] == ["gru", "rnn", "lstm"]
    for model in matched(models, "parameters", **NO_CLOCK):
        off = {n: abs(closed_form(model.label, n) - closed_form("gru", H)) for n in range(1, 200)}
        assert model.config.hidden_size == min(off, key=lambda n: (off[n], n))


def test_the_nearest_size_is_found_among_multiples_and_the_smaller_of_two():
    for unit in (1, 3, 8):
        for target in (1, 7, 64, 65, 72, 1000, 5000):
            expected = min(range(unit, 120, unit), key=lambda n: (abs(n * n - target), n))
            assert nearest_size(lambda n: n * n, target, unit) == expected
    assert nearest_size(lambda n: 10 * n, 25) == 2


@pytest.mark.parametrize("unit", [1, 8])
@pytest.mark.parametrize("start", [8, 64, 512])
@pytest.mark.parametrize("time", [lambda n: 1 + 0.02 * n, lambda n: 0.3 + 1e-4 * n * n, lambda n: 0.05 * n])
def test_a_size_of_that_time_is_found_in_few_readings(time, start, unit):
    read = []

    def seconds(size):
        read.append(size)
        return time(size)

    for target in (2.0, 4.0):
        del read[:]
        found = nearest_time(seconds, target, unit, start)
        nearest = min(range(unit, 2000, unit), key=lambda n: abs(math.log(time(n) / target)))
        error = abs(math.log(time(found) / target))
        assert error <= max(0.06, abs(math.log(time(nearest) / target)) + 1e-9)
        assert len(read) == len(set(read)) <= matching.SIZES


def test_times_out_of_order_end_the_search():
    noisy = {8: 1.0, 16: 0.9, 24: 0.8}
    assert nearest_time(lambda n: noisy.get(n, 0.5), 0.95, 8, 8) in noisy


def test_a_model_matched_by_time_or_width():
    models = models_of(TINY, ["lstm", "rnn", "gru"])
    work = lambda config: config.hidden_size * {"lstm": 4, "rnn": 1, "gru": 3}[config.cell]  # noqa: E731
    assert [m.config.hidden_size for m in matched(models, "time", work)] == [12, 48, 16]
    assert [m.config.hidden_size for m in matched(models, "width", **NO_CLOCK)] == [12, 12, 12]


def test_a_model_may_have_options_and_settings_of_its_own():
    config = dataclasses.replace(TINY, cell_options={"peepholes": True})
    models = models_of(config, ["rnn:activation=relu", "lstm:coupled=true:lr=0.01", "lstm"])
    assert [m.label for m in models] == ["rnn:activation=relu", "lstm:coupled=true:lr=0.01", "lstm"]
    assert [dict(m.config.cell_options) for m in models] == [
        {"activation": "relu"},
        {"peepholes": True, "coupled": True},
        {"peepholes": True},
    ]
    assert [m.config.lr for m in models] == [1e-3, 0.01, 1e-3]


BAD = {
    "lstm": "allowed: two or more",
    "lstm,lsmt": "unknown cell 'lsmt'; did you mean 'lstm'?",
    "lstm,gru:gian=2": "cell 'gru' has no option 'gian'; did you mean 'gain'?",
    "lstm,gru:gain=big": "models='gru:gain=big': cell.gain='big': allowed: a number",
    "lstm,gru:seed=3": "seed is the same for all models; allowed: as --config.seed",
    "lstm,gru:task.variant=pascanu": "task.variant is the same for all models",
    "lstm,gru:hidden_size=3": "hidden_size is the same for all models",
    "lstm,gru,lstm": "models='lstm' and 'lstm' are the same; allowed: each once",
    "lstm,lstm:coupled=false": "models='lstm:coupled=false' and 'lstm' are the same",
    "lstm,gain=2": "allowed: CELL, or CELL:OPTION=VALUE",
    "lstm,gru:gain=2:x": "allowed: CELL, or CELL:OPTION=VALUE",
    "lstm,": "allowed: CELL, or CELL:OPTION=VALUE",
}


@pytest.mark.parametrize("texts", BAD)
def test_a_model_that_cannot_be_is_one_line(texts):
    with pytest.raises(BadSetting, match=r"^[^\n]*$") as raised:
        models_of(TINY, texts.split(","))
    assert BAD[texts] in str(raised.value)


def test_an_option_that_no_model_has_is_refused():
    config = dataclasses.replace(TINY, cell_options={"peepholes": True})
    with pytest.raises(BadSetting, match="has no option 'peepholes'"):
        models_of(config, ["rnn", "gru"])
    with pytest.raises(BadSetting, match="unknown match 'parameter'; did you mean 'parameters'"):
        matched(models_of(TINY, ["rnn", "gru"]), "parameter", **NO_CLOCK)
