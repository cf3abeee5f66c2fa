"""A bad flag, setting or config file is one line that says what is allowed, exit code 2, and nothing written."""

import copy
import functools
import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Literal

import command_line as settings
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from trials import parse_trials

from rnnjax import runs
from rnnjax.cells import CELLS, rnn
from rnnjax.reports import html_page
from rnnjax.sweeps import grid
from rnnjax.sweeps.progress import bucket_labels
from rnnjax.tasks import TASKS
from rnnjax.training import make_train, outputs
from rnnjax.training.checks import check
from rnnjax.training.config import Config
from rnnjax.training.devices import prepare_devices, set_numerics
from rnnjax.training.options import Option, options_of
from rnnjax.types import Array

ROOT = Path(__file__).parent.parent

FILES = {
    "good.py": "from rnnjax import Config\ndef get_config():\n    return Config(lr=1, seq_len=20)\n",
    "three.py": "def get_config():\n    return 3\n",
    "empty.py": "",
    "broken.py": "def get_config(:\n",
    "raises.py": "def get_config():\n    return {}['x']\n",
    "unknown.py": "from rnnjax import Config\ndef get_config():\n    return Config(hiden_size=3)\n",
    "wrong_type.py": "from rnnjax import Config\ndef get_config():\n    return Config(hidden_size=True)\n",
    "beside.py": "SEQ_LEN = 31\n",
    "imports.py": "import beside\nfrom rnnjax import Config\ndef get_config():\n"
    "    return Config(seq_len=beside.SEQ_LEN)\n",
    "old.py": "from rnnjax import Config\ndef get_config():\n    return Config(task='text', text_path='x')\n",
    "other_options.py": "from rnnjax import Config\ndef get_config():\n"
    "    return Config(cell='gru', cell_options={'peepholes': True})\n",
    "no_options.py": "from rnnjax import Config\ndef get_config():\n    return Config(cell_options=3)\n",
    "options.py": "from rnnjax import Config\ndef get_config():\n"
    "    return Config(cell_options={'peepholes': True, 'gain': 2})\n",
    "not_a_number.py": "from rnnjax import Config\ndef get_config():\n    return Config(lr=float('nan'))\n",
}

BAD = {
    "--config.hiden_size=3": "unknown setting config.hiden_size; did you mean 'hidden_size'?",
    "--config.qqqqqqq=3": "settings: task, seq_len, min_seq_len",
    "--config.lr=fast": "--config.lr=fast: allowed: a number",
    "--config.lr=": "--config.lr=: allowed: a number",
    "--config.lr": "--config.lr",
    "--config.lr=nan": "config.lr=nan; allowed: a finite number above 0",
    "--config.cell.gain=inf": "config.cell.gain=inf; allowed: 0, or a finite number",
    "--config.cell.gain=much": "--config.cell.gain=much: allowed: a number",
    "--config.cell.peephole=true": "cell 'lstm' has no option 'peephole'; did you mean 'peepholes'?",
    "--config.cell=gru --config.cell.peepholes=true": "cell 'gru' has no option 'peepholes'; options: gain",
    "--config.cell.peepholes=true --config.cell=gru_cho": "options: gain ('peepholes' is one of lstm",
    "--config.cell=lsmt --config.cell.gain=2": "unknown config.cell 'lsmt'; did you mean 'lstm'?",
    "--config.cell.w_h=3": "cell 'lstm' has no option 'w_h'",
    "--config.task=copy --config.task.symbols=8.5": "--config.task.symbols=8.5: allowed: an integer",
    "--config.cell=rnn --config.cell.activation=rleu": "did you mean 'relu': allowed: tanh, relu, sigmoid",
    "--config.task.variant=arjovski": "did you mean 'arjovsky': allowed: arjovsky, pascanu, hochreiter",
    "--config.task=copy --config.task.symbol=8": "task 'copy' has no option 'symbol'; did you mean 'symbols'?",
    "--config.task.min_seq_len=8": "task 'adding' has no option 'min_seq_len'",
    "--config.peepholes=true": "unknown setting config.peepholes; did you mean 'cell.peepholes'",
    "--config=old.py": "old.py: unknown setting config.text_path; did you mean 'task.path', that is task_options",
    "--config=other_options.py": "config.cell 'gru' has no option 'peepholes'",
    "--config=no_options.py": "cell_options=3; allowed: a dict of options by name",
    "--config.hidden_size=-3": "config.hidden_size=-3; allowed: 1 or more",
    "--config.steps=1.5": "--config.steps=1.5: allowed: an integer",
    "--config.seed=none": "--config.seed=none: allowed: an integer",
    "--config.residual=maybe": "--config.residual=maybe: allowed: true or false",
    "--config.cell=lsmt": "unknown config.cell 'lsmt'; did you mean 'lstm'?",
    "--config.cell=LSTM": "unknown config.cell 'LSTM'; did you mean 'lstm'? allowed: rnn,",
    "--config.cell=x": "unknown config.cell 'x'; allowed: rnn,",
    "--config.steps=3000000000": "config.steps=3000000000; allowed: 1 or more, below 2^31",
    "--config.clip=1e-50": "config.clip=1e-50; allowed: 0, or a finite number above, as float32 holds them",
    "--config.lr=1e39": "config.lr=1e+39; allowed: a finite number above 0, as float32 holds them",
    "--config.momentum=0.5": "momentum=0.5 changes nothing with optimizer='adam'; allowed: optimizer=momentum or rms",
    "--config.final_lr=0.5": "final_lr=0.5 changes nothing with schedule='constant'; allowed: schedule=cosine or",
    "--config.dropout=0.5": "dropout=0.5 changes nothing with num_layers=1; allowed: num_layers=2 or more",
    "--config.residual=true": "config.residual=True changes nothing with num_layers=1 and inputs 2 wide",
    "--config.cell.chrono_t_max=9 --config.cell.forget_bias=2": "forget_bias=2.0 and chrono_t_max=9.0 both set b_f",
    "--config.gradient=rtrl --config.segments=2": "segments=2 changes nothing with gradient='rtrl'; allowed: gradient=",
    "--config.gradient=uoro --config.cotangent_clip=1": "cotangent_clip=1.0 changes nothing with gradient='uoro'",
    "--config.gradient=snap1 --config.method=scan": "method='scan' changes nothing with gradient='snap1'",
    "--config.method=deferred --config.cell=gru_cho": "cell 'gru_cho': method 'deferred' needs a cell made of gates",
    "--config.method=deferred --config.cotangent_clip=1": "method='deferred' has a backward pass of its own, which",
    "--config.cell=a\n\x1b[31m": "unknown config.cell",
    "--config.seq_len=1": "seq_len",
    "--only_check_args": "unknown flag --only_check_args",
    "--wrkdir=x": "unknown flag --wrkdir; did you mean '--workdir'?",
    "--lr=3": "unknown flag --lr; did you mean '--config.lr'?",
    "config.lr=3": "unexpected argument 'config.lr=3'",
    "--config=goood.py": "no such file; did you mean 'good.py'?",
    "--config=three.py": "get_config() returns int; allowed: rnnjax.Config",
    "--config=empty.py": "no get_config()",
    "--config=broken.py": "broken.py: SyntaxError",
    "--config=raises.py": "raises.py: KeyError",
    "--config=unknown.py": "unknown setting config.hiden_size; did you mean 'hidden_size'?",
    "--config=wrong_type.py": "config.hidden_size=True: allowed: an integer",
    "--config=not_a_number.py": "config.lr=nan; allowed: a finite number above 0",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def launch(arguments, main=None):
    """The exit code, and the config that a launcher's main sees."""
    values, seen = flags.FlagValues(), []
    settings.define_config(values)
    flags.DEFINE_string("workdir", None, "where to run", flag_values=values)

    def load_and_write(argv):
        seen.append(settings.load_config(values))
        Path("written").touch()

    with pytest.raises(SystemExit) as exit_:
        settings.main_with_errors(main or load_and_write, ["launcher", *arguments], values)
    return exit_.value.code or 0, *seen


@pytest.mark.parametrize("argument", BAD)
def test_bad_flag(argument, folder, capsys):
    (code,) = launch(argument.split(" "))
    out, err = capsys.readouterr()
    assert code == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and err[:-1].isprintable()
    assert BAD[argument] in err
    assert {path.name for path in folder.iterdir()} == set(FILES)


def test_settings_override_the_file(folder):
    assert launch([]) == (0, Config())


def test_every_kind_of_value(folder):
    arguments = ["cell=gru", "lr=3e-4", "hidden_size=7", "num_layers=2", "residual=true", "gradient_flow=FALSE"]
    arguments += ["embedding_size=none"]
    code, config = launch(["--config=good.py", *(f"--config.{argument}" for argument in arguments)])
    expected = Config(seq_len=20, cell="gru", lr=3e-4, hidden_size=7, num_layers=2, residual=True, gradient_flow=False)
    assert (code, config) == (0, expected)
    code, config = launch(["--config=good.py", "--config.cell.gain", "2"])
    assert (code, config) == (0, Config(seq_len=20, lr=1.0, cell_options={"gain": 2.0}))
    assert (
        type(config.cell_options["gain"]) is float and type(config.lr) is float
    )  # 1 in the file, 2 on the command line


@pytest.mark.parametrize(
    "settings_",
    [
        {"momentum": 0.5, "optimizer": "rmsprop"},
        {"final_lr": 0.5, "schedule": "exponential"},
        {"cell_options": {"chrono_t_max": 100}, "momentum": 0.9, "final_lr": 0.1},  # idle, but as they were by default
        {"residual": True, "embedding_size": 128},
        {"residual": True, "task": "text"},
        {"method": "deferred", "cell": "gru"},
        {"cotangent_clip": 1.0, "gradient": "tbptt:3"},
    ],
)
def test_settings_that_act_are_taken(settings_):
    check(Config(**settings_))


CELLS_OF_USERS = {
    "a tuple, no Cell": (lambda H: (1, 2), "cell 'mine': a cell is a tuple; allowed: a Cell"),
    "a wrong W_h": (
        lambda H: rnn(H)._replace(init=lambda key, D: rnn(H).init(key, D) | {"W_h": jnp.zeros((2, 2))}),
        "cell 'mine': form.affine raises ValueError: 'W_h' has shape (2, 2); allowed: (128, 128)",
    ),
    "nested parameters": (
        lambda H: rnn(H)._replace(init=lambda key, D: {"all": rnn(H).init(key, D)}),
        "cell 'mine': init returns a dict for parameter 'all'; allowed: a real array",
    ),
    "a step that fails": (
        lambda H: rnn(H)._replace(step=lambda params, h, x: h @ params["W_hh"]),
        "cell 'mine': step raises KeyError: 'W_hh'",
    ),
    "a factory that fails": (lambda H: {}["x"], "cell 'mine' raises KeyError: 'x'"),
    "no factory": (rnn(3), "cell 'mine' raises TypeError: 'Cell' object is not callable"),
    "an option that it has not": (lambda H, gain=1.0: rnn(H), "cell 'mine' has no option 'peepholes'; options: gain"),
}


@pytest.mark.parametrize("name", CELLS_OF_USERS)
def test_a_malformed_cell_is_refused_by_name(name, monkeypatch):
    factory, message = CELLS_OF_USERS[name]
    monkeypatch.setitem(CELLS, "mine", factory)
    options = {"cell_options": {"peepholes": True}} if "option" in name else {}
    with pytest.raises(settings.BadSetting) as error:
        settings.checked(Config(cell="mine", **options))
    assert message in str(error.value)


# ---- what the environment says


HOSTILE = {  # what changes numbers, or ends a run, when it comes from a variable that no config.json holds
    "jax_enable_x64": True,
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 3,
    "jax_enable_custom_prng": True,
    "jax_legacy_prng_key": "error",
    "jax_high_dynamic_range_gumbel": True,
    "jax_default_matmul_precision": "bfloat16",
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_softmax_custom_jvp": True,
    "jax_disable_jit": True,
    "jax_disable_most_optimizations": True,
    "jax_debug_nans": True,
}
LAUNCHERS = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "experiments")])}
DRAW_AND_TRAIN = """
import json, os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax
import jax.numpy as jnp
import numpy as np
import command_line
from rnnjax import Config
from rnnjax.training.devices import prepare_devices
from tests.test_flags import numbers_of_a_run
def main(_):
    prepare_devices(command_line.checked(Config()))
    print(json.dumps([jax.device_count(), numbers_of_a_run()]))
command_line.main_with_errors(main)
"""


def numbers_of_a_run():
    config = Config(cell="rnn", seq_len=4, hidden_size=3, batch_size=2, steps=2, eval_every=2, eval_batch=2)
    train, values = make_train(config), {"lr": 0.1, "clip": 1.0, "weight_decay": 0.0}
    _, record = jax.jit(train.chunk)(jax.jit(train.init)(jax.random.key(3), values), values)
    return np.concatenate([np.ravel(value) for value in jax.tree.leaves(record)]).astype(float).tolist()


def test_the_environment_does_not_decide_numbers_nor_devices():
    """JAX_ENABLE_X64=1 and the like; and a process that `taskset` gave one core has one device."""
    environment = {name.upper(): str(value) for name, value in HOSTILE.items()} | {"XLA_FLAGS": ""}
    script = [sys.executable, "-c", DRAW_AND_TRAIN]
    out = subprocess.run(script, env=os.environ | environment | LAUNCHERS, stdout=subprocess.PIPE, check=True).stdout
    assert json.loads(out) == [1, numbers_of_a_run()]


def test_every_setting_of_jax_that_changes_numbers_is_set():
    before = {name: jax.config.values[name] for name in HOSTILE}
    try:
        for name, value in HOSTILE.items():
            jax.config.update(name, value)
        set_numerics()
        assert {name: jax.config.values[name] for name in HOSTILE} == before
        set_numerics("float64")
        assert jax.config.jax_enable_x64
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_the_library_refuses_a_dtype_that_jax_would_not_compute_in(dtype):
    with jax.enable_x64(dtype != "float64"), pytest.raises(ValueError, match=f"dtype='{dtype}' needs jax_enable_x64="):
        make_train(Config(dtype=dtype))


def test_a_platform_that_is_not_there_is_one_line(monkeypatch):
    def none():
        raise AssertionError

    monkeypatch.setattr(jax, "devices", none)
    with pytest.raises(settings.BadSetting, match="no such device here; allowed: cpu, or unset"):
        prepare_devices(Config())


def test_a_config_may_import_what_lies_beside_it(folder, monkeypatch):
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    path = list(sys.path)
    code, config = launch(["--config=imports.py"])
    assert (code, config.seq_len, sys.path) == (0, 31, path)
    assert {entry.name for entry in folder.iterdir()} == set(FILES) | {"written"}  # and no __pycache__


def test_a_tilde_is_the_home_in_every_path(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    text = folder / "book.txt"
    text.write_text("a text of few letters " * 3000)
    code, config = launch(["--config=~/good.py", "--config.task=text", "--config.task.path=~/book.txt"])
    assert (code, config.task_options) == (0, {"path": str(text)})
    of_text = Config(task="text", task_options={"path": "~/book.txt"})
    assert settings.parse_setting("task.path", "~/book.txt", within=[of_text]) == str(text)  # of --grid
    assert settings.checked(of_text).task_options == {"path": str(text)}  # of a config file
    values = flags.FlagValues()
    workdir = settings.define_path("workdir", "~/x", "where to run", values)
    values(["launcher"])
    assert workdir.value == str(folder / "x")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--runs=a,b"], ["a", "b"]),
        (["--runs=a,b,c,d"], ["a", "b,c", "d"]),
        (["--runs=b,c"], ["b,c"]),
        (["--runs=a", "--runs=b,c,,none"], ["a", "b,c", "none"]),
        (["--runs=~/a,none"], ["HOME/a", "none"]),
        ([], None),
    ],
)
def test_a_comma_belongs_to_the_path_that_has_it(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a", "b,c"):
        (tmp_path / name).mkdir()
    values = flags.FlagValues()
    paths = settings.define_paths("runs", "what to read", values)
    values(["launcher", *arguments])
    assert paths.value == (expected and [path.replace("HOME", str(tmp_path)) for path in expected])


STREAMS = """
import os, sys
import command_line
def main(argv):
    print("\\u2013 \\udcff")
    print("\\u2013", file=sys.stderr)
    sys.stderr.isatty()
    with open("file", "w") as file:
        assert file.fileno() > 2
    raise PermissionError(13, "Permission denied", "some/where")
command_line.main_with_errors(main)
"""


@pytest.mark.parametrize("closed", [False, True])
def test_a_terminal_that_cannot_show_a_letter_and_one_that_is_gone(closed, tmp_path):
    """A launcher does its work in an ASCII terminal, and with stdout and stderr closed; an OSError names the file."""
    script = [sys.executable, "-c", STREAMS]
    close = "exec >&- 2>&-; " if closed else ""
    command = ["sh", "-c", f'{close}exec "$@"', "sh", *script]
    environment = os.environ | LAUNCHERS | {"PYTHONIOENCODING": "ascii", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path)
    assert done.returncode == 1 and (tmp_path / "file").exists()
    if not closed:
        assert done.stdout == b"\\u2013 \\udcff\n"
        assert done.stderr == b"\\u2013\nerror: some/where: Permission denied\n"


def test_a_text_that_a_model_wrote_cannot_act_on_a_terminal():
    assert outputs.for_terminal("a\x1b[2J\x07b\n\tc\u202e") == "a\\x1b[2J\\x07b\n\\tc\\u202e"


def test_a_name_that_is_no_text_goes_into_a_page():
    assert html_page.escape("runs/\udcff<") == "runs/\\udcff&lt;"


def test_parse_setting():
    assert settings.parse_setting("cell.chrono_t_max", "none") is None
    assert settings.parse_setting("cell.peepholes", "true") is True
    assert math.isnan(settings.parse_setting("lr", "nan"))  # of a number's type; `checked` refuses its value
    with pytest.raises(settings.BadSetting, match="did you mean 'seq_len'"):
        settings.parse_setting("seqlen", "3")


@pytest.mark.parametrize(
    "error, code",
    [
        (runs.RunRefused("x"), 2),
        (settings.BadSetting("x"), 2),
        (runs.RunBusy("x"), 1),
        (OSError(28, "No space left on device"), 1),
        (KeyboardInterrupt(), 75),
    ],
)
def test_errors_of_a_run(error, code, capsys):
    def main(argv):
        raise error

    assert launch([], main) == (code,)
    assert capsys.readouterr().err.count("\n") == 1


def test_exit_code_is_what_main_returns():
    assert launch([], lambda argv: runs.EXIT_STOPPED) == (75,)


def test_a_bug_keeps_its_traceback():
    def main(argv):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        settings.main_with_errors(main, ["launcher"], flags.FlagValues())


def test_launcher_as_a_process(folder):
    launcher = folder / "launcher.py"
    launcher.write_text(
        """'''Says what it does.'''
import sys
from absl import flags as absl_flags
import command_line
command_line.define_config()
absl_flags.DEFINE_string("workdir", None, "where to run")
command_line.main_with_errors(lambda argv: print(command_line.load_config()))
"""
    )
    before = set(os.listdir(folder))
    environment = os.environ | LAUNCHERS | {"JAX_PLATFORMS": "cpu"}

    def launched(*arguments):
        return subprocess.run(
            [sys.executable, "launcher.py", *arguments], capture_output=True, text=True, env=environment, cwd=folder
        )

    help_ = launched("--helpshort")
    lines = " ".join(help_.stdout.split())
    assert help_.returncode == 0 and "Says what it does." in lines and "--workdir" in lines
    assert "--config.cell.peepholes: i and f see c_{t-1}" in lines and "(true or false; default: false)" in lines
    assert "--config.cell.gain: scale of the orthogonal U. [traced] (a number; default: 1.0)" in lines
    assert "--config.task.variant" in lines and "--config.task.symbols" not in lines
    for field in settings.FIELDS.values():
        assert f"--config.{field.name}: {' '.join(field.metadata['doc'].split())}" in lines
        default = {None: "none", True: "true", False: "false"}.get(field.default, str(field.default))
        default = str(field.default) if type(field.default) in (int, float) else default
        assert f"; default: {default})" in lines.split(f"--config.{field.name}: ")[1].split(" --config.")[0]
    bad = launched("--config=good.py", "--config.lr=fast")
    assert (bad.returncode, bad.stdout, bad.stderr) == (2, "", "error: --config.lr=fast: allowed: a number\n")
    assert set(os.listdir(folder)) == before


# ---- options of a cell of one's own


def with_options(hidden_size, *, gain: float | Array = 1.0, shape: Literal["tanh", "relu"] = "tanh", depth: int = 1):
    """A cell whose options are of every kind (Nobody 2020).

    Args:
      hidden_size: H.
      gain: how large W_h is
        at the start.
      depth: of nothing.
    """
    return rnn(hidden_size, activation=shape, gain=gain)


def test_an_own_cell_s_options_are_its_signature_s():
    found = options_of(with_options)
    assert list(found) == ["gain", "shape", "depth"]
    assert found["gain"] == Option("gain", 1.0, (float,), "how large W_h is at the start.", traced=True)
    assert found["shape"] == Option("shape", "tanh", (str,), choices=("tanh", "relu"))
    assert found["depth"].kinds == (int,) and not found["depth"].traced
    assert list(options_of(functools.partial(with_options, gain=2.0))) == ["gain", "shape", "depth"]
    assert set(options_of(CELLS["lstm"])) == {"forget_bias", "chrono_t_max", "peepholes", "coupled", "gain"}
    assert options_of(3) == {} and "path" in options_of(TASKS["text"])


# Words of the user's own: names of columns, series, and what stands between documents.
FREE = {"series": {"source", "target", "inputs", "date", "where"}, "text": {"separator"}}
OF_A_FILE = {"series": {"missing", "dates", "decimal"}}  # tests/test_tables.py gives these with one


@pytest.mark.parametrize("name", [*CELLS, *TASKS])
def test_help_says_what_every_option_is(name):
    """And allowed values are those that the factory takes."""
    factory = (CELLS | TASKS)[name]
    for option in options_of(factory).values():
        assert len(option.doc) > 10 and option.doc.endswith("."), option.name
        for choice in option.choices if option.name not in OF_A_FILE.get(name, ()) else ():
            factory(20, **{option.name: choice})
        is_free = option.is_path or option.name in FREE.get(name, ())
        assert option.choices or str not in option.kinds or is_free, f"{option.name}: a word of which kind?"


def test_an_own_cell_s_options_are_swept_and_its_traced_ones_share_a_program(monkeypatch):
    monkeypatch.setitem(CELLS, "own", with_options)
    base = Config(cell="own", seq_len=3, hidden_size=2, batch_size=2, steps=2, eval_every=2, eval_batch=2)
    trials = parse_trials(base, ["cell.gain=0,1.0,2", "cell.shape=tanh,relu"])
    assert len(trials) == 6 and [len(bucket.trials) for bucket in grid.buckets(trials)] == [3, 3]
    assert "cell.shape=relu" in list(bucket_labels(grid.buckets(trials)).values())[1]
    train = make_train(trials[0])
    keys, values = grid.lane_inputs(trials[::2])
    assert list(values["cell.gain"]) == [0, 1, 2]
    params = jax.vmap(train.init)(keys, values).params
    norms = [float(jnp.linalg.norm(W)) for W in params["stack"]["layers"][0]["parameters"]["W_h"][...]]
    np.testing.assert_allclose(norms, np.sqrt(2) * np.array([0, 1, 2]), rtol=1e-6)
    for text in ("cell.shape=rleu", "cell.gian=1", "cell.depth=1.5"):
        with pytest.raises(settings.BadSetting, match=r"did you mean|an integer") as error:
            parse_trials(base, [text])
        assert "\n" not in str(error.value)


def test_an_option_holds_for_those_cells_of_a_sweep_that_have_it():
    base = Config(cell="rnn", seq_len=4)
    trials = parse_trials(base, ["cell=rnn,lstm,mgu", "cell.forget_bias=0,2"])
    found = [(trial.cell, dict(trial.cell_options)) for trial in trials]
    assert found == [("rnn", {})] + [(cell, {"forget_bias": b}) for cell in ("lstm", "mgu") for b in (0.0, 2.0)]
    drawn = parse_trials(base, ["cell=rnn,lstm"], ["cell.forget_bias=uniform:0:1"], 3)
    assert [trial.cell for trial in drawn].count("lstm") == 3 and [trial.cell for trial in drawn].count("rnn") == 1
    for texts in (["cell=rnn,gru", "cell.forget_bias=0,1"], ["cell.forget_bias=0,1"]):
        with pytest.raises(settings.BadSetting, match="has no option 'forget_bias'"):
            parse_trials(base, texts)


def test_a_default_does_not_enter_a_trial_s_identity(monkeypatch):
    """So that a setting that is new orphans no old sweep; a value that is no default makes another trial."""
    monkeypatch.setitem(CELLS, "own", with_options)
    before = grid.trial_id(Config(cell="own"))
    same = [Config(cell="own", cell_options={"gain": 1.0, "depth": 1}), Config(cell="own", steps=5000)]
    assert {before, *map(grid.trial_id, same)} == {before}
    assert len(grid.unique([Config(cell="own"), *same])) == 1
    others = [Config(), Config(cell="own", cell_options={"gain": 2.0}), Config(cell="own", lr=0.5)]
    assert len({before, *map(grid.trial_id, others)}) == 4

    def newer(hidden_size, *, gain: float | Array = 1.0, shape: str = "tanh", depth: int = 1, brand_new: int = 3):
        return rnn(hidden_size)

    program = grid.bucket_id(Config(cell="own"))
    monkeypatch.setitem(CELLS, "own", newer)
    assert grid.trial_id(Config(cell="own")) == before and grid.bucket_id(Config(cell="own")) == program
    assert outputs.config_dict(Config(cell="own"))["cell_options"]["brand_new"] == 3


def test_a_program_is_what_is_static_and_not_at_its_default():
    forget = [grid.bucket_id(Config(cell_options={"forget_bias": bias})) for bias in (None, 1.0, 2.0)]
    assert forget[0] == grid.bucket_id(Config(lr=0.1, seed=3)) != forget[1] == forget[2]
    gain = [grid.bucket_id(Config(cell_options={"gain": gain})) for gain in (1.0, 2.0)]
    assert gain == [forget[0]] * 2  # traced, and never None
    others = [Config(cell="gru"), Config(segments=2), Config(cell_options={"peepholes": True}), Config(task="copy")]
    assert len({forget[0], forget[1], *map(grid.bucket_id, others)}) == 6


def test_options_are_frozen_and_travel():
    config = Config(cell_options={"peepholes": True, "gain": 2.0})
    assert config == Config(cell_options=(("gain", 2.0), ("peepholes", True))) and hash(config)
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config
    assert json.loads(json.dumps(outputs.config_dict(config)))["cell_options"]["gain"] == 2.0
    with pytest.raises(TypeError, match="frozen"):
        config.cell_options["gain"] = 3.0
    with pytest.raises(TypeError, match=r"unknown setting config.gain; did you mean 'cell.gain', that is cell_options"):
        Config(gain=2.0)


def test_a_file_s_options_go_with_its_cell(folder):
    kept = {"peepholes": True, "gain": 2.0}
    assert launch(["--config=options.py"])[1].cell_options == kept
    assert launch(["--config=options.py", "--config.cell.gain=3"])[1].cell_options == kept | {"gain": 3.0}
    assert launch(["--config=options.py", "--config.cell=gru"])[1].cell_options == {"gain": 2.0}
    assert launch(["--config.cell", "mgu", "--config.cell.forget_bias", "-1"])[1].cell_options == {"forget_bias": -1.0}
