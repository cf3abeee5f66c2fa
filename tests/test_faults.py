"""Whole launchers, killed, stopped, starved of disk or started twice: the same command again ends with the same bits.

The long ones are marked slow: `make faults`. What a single save, lock or log line survives is in test_runs.py.
"""

import importlib.util
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMON = "--config.cell=rnn --config.seq_len=8 --config.hidden_size=3 --config.batch_size=2 --config.eval_batch=2"
PROGRAMS = {
    "train": f"train.py {COMMON} --config.steps=60 --config.eval_every=5 --save_seconds=0",
    "sweep": f"sweep.py {COMMON} --config.steps=30 --config.eval_every=5 --save_seconds=0 --lanes=2 --grid=seed=0:4",
}
LONG = "train.py " + COMMON + " --config.steps=1000000 --config.eval_every=5 --save_seconds=0"

# Each launcher runs in a process of its own, forked after the slow imports and before JAX has started.
FORKS = """
import json, os, runpy, sys
import jax, flax.nnx, optax, orbax.checkpoint, matplotlib.pyplot, rich.progress, rich.console, absl.flags

for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        print(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]), flush=True)
        continue
    process = os.fork()
    if process:
        print(process, flush=True)
        continue
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1), os.dup2(output, 2), os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if not order["cache"]:
        jax.config.update("jax_enable_compilation_cache", False)
    sys.argv = order["command"]
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit()
"""


class Ended(AssertionError):
    """A launcher ended before what was waited for."""


class Launch:
    """One start of a launcher."""

    def __init__(self, forks, command, workdir, cache=True):
        self.forks, self.workdir, self.output = forks, Path(workdir), Path(f"{workdir}.{time.monotonic_ns()}.txt")
        script, *flags = command.split()
        command = [str(ROOT / "experiments" / script), *flags, f"--workdir={workdir}"]
        order = {"command": command, "output": str(self.output), "cache": cache}
        self.process = int(self._ask(order))

    def wait(self):
        """The exit code; minus the signal that ended it."""
        return int(self._ask({"wait": self.process}))

    def send(self, number):
        os.kill(self.process, number)
        return self

    def printed(self):
        return self.output.read_text()

    def until(self, condition):
        """Waits until a condition holds; the launcher must still run."""
        deadline = time.monotonic() + 1800  # only what hangs ends here: a busy machine may take minutes
        while not condition():
            if Path(f"/proc/{self.process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                raise Ended(self.printed())
            assert time.monotonic() < deadline, self.printed()
            time.sleep(0.0005)
        return self

    def _ask(self, order):
        self.forks.stdin.write(json.dumps(order) + "\n")
        self.forks.stdin.flush()
        return self.forks.stdout.readline()


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("cache"))),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "experiments")]),  # as a script's own start does
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", FORKS], env=environment, **pipes) as forks:
        yield lambda *args, **options: Launch(forks, *args, **options)
        forks.stdin.close()


@pytest.fixture(scope="module")
def whole(launch, tmp_path_factory):
    """By program: what it leaves when nothing happens to it, and how long it took."""
    found = {}

    def get(program):
        if program not in found:
            folder = tmp_path_factory.mktemp("whole") / program
            began = time.monotonic()
            process = launch(PROGRAMS[program], folder)
            assert process.wait() == 0, process.printed()
            found[program] = results(folder), time.monotonic() - began
        return found[program]

    return get


def results(workdir):
    """What must be bitwise equal, by file: metric logs, gradient maps, parameters, and the state's digests."""
    names = ("metrics.jsonl", "gradient_flow.npz", "params.npz")
    found = {str(p.relative_to(workdir)): p.read_bytes() for p in entries(workdir) if p.name in names}
    for manifest in checkpoints(workdir)[-1:]:
        leaves = json.loads((manifest / "manifest.json").read_text())["manifest"]["leaves"]
        found |= {manifest.name: {name: leaf["sha256"] for name, leaf in leaves.items() if name != "1"}}  # 1: the time
    assert len(found) in (4, 12)  # a run and its last checkpoint, or four trials
    return found


def entries(folder):
    """All below a folder in which another process makes and removes things: pathlib's glob would raise."""
    return [Path(at, name) for at, folders, files in os.walk(folder) for name in folders + files]


def checkpoints(workdir):
    return sorted(path for path in entries(workdir) if path.name.startswith("checkpoint-"))


def saving(workdir):
    return any(path.name.startswith(".tmp-checkpoint") for path in entries(workdir))


def rows(workdir):
    return sum(path.read_bytes().count(b"\n") for path in entries(workdir) if path.name == "metrics.jsonl")


def assert_resumes(launch, program, workdir, expected):
    process = launch(PROGRAMS[program], workdir)
    assert process.wait() == 0, process.printed()
    assert results(workdir) == expected
    assert not [path for path in entries(workdir) if path.name.startswith(".tmp-") or path.name == "lock"]
    return process.printed()


def assert_killed_and_resumed(launch, whole, program, workdir, delay):
    expected, _ = whole(program)
    process = launch(PROGRAMS[program], workdir)
    time.sleep(delay)
    assert process.send(signal.SIGKILL).wait() in (-9, 0)
    assert "passed over" not in assert_resumes(launch, program, workdir, expected)


def struck(launch, program, workdir, number, condition, seconds, cache=True):
    """The exit code of a launcher that got a signal so many seconds after a condition held.

    On a busy machine this process may get its turn when the launcher is done: then another is started in its place.
    """
    for _ in range(10):
        process = launch(PROGRAMS[program], workdir, cache=cache)
        try:
            process.until(condition)
        except Ended:
            assert process.wait() == 0, process.printed()
        else:
            time.sleep(seconds)
            if code := process.send(number).wait():
                return code
        shutil.rmtree(workdir)
    pytest.fail(f"ten times {program} was done before it was seen to be on its way")


# ---- short: in `make test`


@pytest.mark.slow
@pytest.mark.parametrize("program", ["train", "sweep"])
def test_killed_and_damaged_it_ends_with_the_same_bits(program, launch, whole, tmp_path):
    """Killed in a save, and the newest checkpoint damaged: it goes back to the one before."""
    expected, _ = whole(program)
    process = launch(PROGRAMS[program], tmp_path / "run")
    process.until(lambda: len(checkpoints(tmp_path)) == 2 and saving(tmp_path)).send(signal.SIGKILL)
    assert process.wait() == -9
    newest = checkpoints(tmp_path / "run")[-1]
    array = max(newest.rglob("d/*"), key=lambda path: path.stat().st_size)
    data = bytearray(array.read_bytes())
    data[len(data) // 2] ^= 4
    array.write_bytes(data)
    printed = assert_resumes(launch, program, tmp_path / "run", expected)
    assert f"step {int(newest.name[-8:])} is passed over" in printed and array.name in printed


@pytest.mark.parametrize(
    "program, number, during",
    [("train", signal.SIGTERM, "training"), pytest.param("sweep", signal.SIGINT, "a save", marks=pytest.mark.slow)],
)
def test_a_signal_saves_and_exits_with_75(program, number, during, launch, whole, tmp_path):
    expected, _ = whole(program)
    process = launch(PROGRAMS[program], tmp_path / "run")
    process.until(lambda: checkpoints(tmp_path) if during == "training" else saving(tmp_path)).send(number)
    assert process.wait() == 75
    assert f"stopped; the same command resumes {tmp_path / 'run'}" in process.printed()
    if program == "train":  # nothing is lost: the last row is of the step that is saved
        last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
        assert last["step"] == int(checkpoints(tmp_path)[-1].name[-8:]) < 60
    assert_resumes(launch, program, tmp_path / "run", expected)


@pytest.mark.slow
def test_two_launchers_and_the_lock_of_a_dead_one(launch, tmp_path):
    first = launch(LONG, tmp_path / "run").until(lambda: rows(tmp_path) > 3)
    second = launch(LONG, tmp_path / "run")
    assert second.wait() == 1
    assert f"is in use by process {first.process}" in second.printed() and second.printed().count("\n") == 1
    assert first.send(signal.SIGKILL).wait() == -9
    assert (tmp_path / "run" / "lock").exists()
    before = rows(tmp_path)
    third = launch(LONG, tmp_path / "run").until(lambda: rows(tmp_path) > before + 3)
    assert third.send(signal.SIGTERM).wait() == 75
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(5, steps[-1] + 1, 5))


@pytest.mark.slow
def test_a_full_disk_is_an_error_and_the_run_goes_on_when_there_is_space(launch, whole, tmp_path):
    expected, _ = whole("train")
    process = launch(PROGRAMS["train"], tmp_path / "run").until(lambda: len(checkpoints(tmp_path)) == 2)
    resource.prlimit(process.process, resource.RLIMIT_FSIZE, (5500, 5500))  # what it prints is less
    assert process.wait() == 1
    lines = [line for line in process.printed().splitlines() if not re.match(r"step \d+/60 ", line)]
    assert len(lines) == 1 and lines[0].startswith("error: the checkpoint of step 1")
    assert len(checkpoints(tmp_path)) == 2 and rows(tmp_path) < 12
    assert_resumes(launch, "train", tmp_path / "run", expected)


@pytest.mark.parametrize("flag", ["--grid=lr=nan", "--grid=lr", "--grid=sed=0:8", "--lanes=0", "--sample=lr=log:1:0"])
def test_bad_flags_of_a_sweep(flag, launch, tmp_path):
    process = launch(f"{PROGRAMS['sweep']} {flag}", tmp_path / "run")
    assert process.wait() == 2
    assert process.printed().startswith("error: ") and process.printed().count("\n") == 1
    assert not (tmp_path / "run").exists()


OWN_CELL = """
from rnnjax.cells import CELLS, rnn
from rnnjax import Config

def own(hidden_size):
    return rnn(hidden_size, activation="tanh")

CELLS["own"] = own

def get_config():
    return Config(cell="own", gradient="tbptt:4")
"""


@pytest.mark.slow
def test_a_run_of_an_own_cell_ends_says_so_and_is_refused_once_the_cell_changed(launch, tmp_path):
    """With a gradient whose flow is not recorded: there is no map of it, and the run ends well all the same."""
    (tmp_path / "own.py").write_text(OWN_CELL)
    command = f"train.py {COMMON} --config={tmp_path / 'own.py'} --config.steps=10 --config.eval_every=5"
    command = command.replace("--config.cell=rnn ", "")
    first = launch(command, tmp_path / "run")
    assert first.wait() == 0, first.printed()
    assert "learning_curve.png" in first.printed() and "gradient_map" not in first.printed()
    before = {path: path.read_bytes() for path in entries(tmp_path / "run") if path.is_file()}
    second = launch(command, tmp_path / "run")
    assert second.wait() == 0 and "was finished before" in second.printed()
    (tmp_path / "own.py").write_text(OWN_CELL.replace("tanh", "relu"))
    third = launch(command, tmp_path / "run")
    assert third.wait() == 2 and third.printed().count("\n") == 1
    assert "cell 'own' changed since this run began" in third.printed() and "--accept_changes" in third.printed()
    assert {path: path.read_bytes() for path in entries(tmp_path / "run") if path.is_file()} == before


@pytest.mark.slow
def test_the_shards_of_a_run_are_those_that_it_began_with(launch, tmp_path):
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one device")
    first = launch(f"{PROGRAMS['train']} --shards=2", tmp_path / "run").until(lambda: checkpoints(tmp_path))
    assert first.send(signal.SIGTERM).wait() == 75
    other = launch(f"{PROGRAMS['train']} --shards=1", tmp_path / "run")
    assert other.wait() == 2 and "shards was 2 when this run began, now 1" in other.printed()
    again = launch(PROGRAMS["train"], tmp_path / "run")
    assert again.wait() == 0, again.printed()
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["numbers"]["shards"] == 2 and "history" not in record


# ---- several processes


@pytest.fixture
def job():
    """The flags of each of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [f"--coordinator=127.0.0.1:{port} --num_processes=2 --process_id={p}" for p in range(2)]


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(launch, whole, job, tmp_path):
    expected, _ = whole("sweep")
    both = [launch(f"{PROGRAMS['sweep']} {flags}", tmp_path / "run") for flags in job]
    assert [process.wait() for process in both] == [0, 0], both[0].printed() + both[1].printed()
    assert results(tmp_path / "run") == expected and "absl" not in both[1].printed()
    assert not list((tmp_path / "run" / "buckets").iterdir())
    for process in both:  # each had its half
        assert set(re.findall(r"/(\d) trials", process.printed())) == {"2"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_ends_ends_the_other_and_the_job_resumes(number, victim, launch, whole, job, tmp_path):
    expected, _ = whole("sweep")
    both = [launch(f"{PROGRAMS['sweep']} {flags} --lanes=1", tmp_path / "run") for flags in job]
    both[victim].until(lambda: len(checkpoints(tmp_path)) >= 2).send(number)
    codes = [process.wait() for process in both]
    printed = both[1 - victim].printed()
    if number == signal.SIGTERM:
        assert codes == [75, 75] and f"stopped, as process {victim} of this job was stopped" in printed
    elif victim == 1:
        assert codes == [75, -9] and "stopped, as process 1 of this job is gone" in printed
    else:  # JAX itself ends those that have lost process 0
        assert codes == [-9, -6] and "another task died" in printed
    both = [launch(f"{PROGRAMS['sweep']} {flags} --lanes=1", tmp_path / "run") for flags in job]
    assert [process.wait() for process in both] == [0, 0], both[0].printed() + both[1].printed()
    assert results(tmp_path / "run") == expected


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an optional extra")
def test_ray_with_a_killed_worker_publishes_every_trial_once(whole, tmp_path):
    expected, _ = whole("sweep")
    script, *flags = PROGRAMS["sweep"].split()
    command = [sys.executable, str(ROOT / "experiments" / script), *flags, f"--workdir={tmp_path / 'run'}"]
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0:  # Ray listens: here nobody hears
        command = ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *command]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "RAY_USAGE_STATS_ENABLED": "0"}
    with (tmp_path / "output.txt").open("w") as output:
        process = subprocess.Popen([*command, "--executor=ray"], env=environment, stdout=output, stderr=output)
    while not (made := checkpoints(tmp_path)):
        assert process.poll() is None, (tmp_path / "output.txt").read_text()
        time.sleep(0.01)
    worker = int(re.match(r"process (\d+) ", (made[0].parent / "lock").read_text())[1])
    os.kill(worker, signal.SIGKILL)
    assert process.wait() == 0, (tmp_path / "output.txt").read_text()
    assert results(tmp_path / "run") == expected
    assert not list((tmp_path / "run" / "buckets").iterdir())


# ---- long: in `make faults`


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_kill_9_at_twenty_random_times(program, launch, whole, tmp_path):
    _, seconds = whole(program)
    for n in range(20):
        delay = random.Random(n).uniform(0, seconds)
        assert_killed_and_resumed(launch, whole, program, tmp_path / str(n), delay)
        shutil.rmtree(tmp_path / str(n))


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_kill_9_inside_twenty_saves(program, launch, whole, tmp_path):
    expected, _ = whole(program)
    for n in range(20):
        workdir, chosen = tmp_path / str(n), random.Random(n)
        begun = lambda: len(checkpoints(workdir)) >= 1 + n % 2 and saving(workdir)  # noqa: B023, E731
        assert struck(launch, program, workdir, signal.SIGKILL, begun, chosen.uniform(0, 0.02)) == -9
        assert "passed over" not in assert_resumes(launch, program, workdir, expected)
        shutil.rmtree(workdir)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_sigterm_at_any_stage(program, launch, whole, tmp_path):
    expected, seconds = whole(program)
    for n in range(8):
        workdir = tmp_path / str(n)
        # Without the cache it compiles for seconds: half of the signals come then.
        begun = lambda: any(path.name == "config.json" for path in entries(workdir))  # noqa: B023, E731
        delay = random.Random(n).uniform(0, 1 if n % 2 else seconds / 2)
        assert struck(launch, program, workdir, signal.SIGTERM, begun, delay, cache=n % 2 == 0) == 75
        assert_resumes(launch, program, workdir, expected)
