"""A sweep from start to end: one command, beside one command a trial, and beside PyTorch in a process a core."""

import itertools
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags
from benchmark_turns import cores, environment, on_gpu, start

ROOT = pathlib.Path(__file__).resolve().parents[1]
CELLS, RATES, SEEDS = ("rnn", "lstm", "gru"), (1e-3, 2e-3, 4e-3, 8e-3), 8
flags.DEFINE_integer("trials_steps", 1000, "Training steps of each trial of the suite trials.", lower_bound=1)
flags.DEFINE_integer("trials_length", 100, "Length T of the adding problem of the suite trials.", lower_bound=2)
flags.DEFINE_integer("trials_alone", 2, "Trials a cell that are also run alone, as a command each.", lower_bound=1)
flags.DEFINE_string("trials_workdir", "", "Keep the sweep here, for a report; a temporary folder by default.")
FLAGS = flags.FLAGS


def check_workdir() -> None:
    """Raises UsageError where the sweep that is to be timed is there already."""
    if FLAGS.trials_workdir and pathlib.Path(FLAGS.trials_workdir).expanduser().exists():
        raise app.UsageError(f"--trials_workdir={FLAGS.trials_workdir} is there already; allowed: a folder to be made")


def trials() -> tuple[dict, list[str]]:
    """The suite: cells x learning rates x seeds on adding; (raw results, lines of markdown)."""
    settings = {"seq_len": FLAGS.trials_length, "hidden_size": 32, "batch_size": 32, "steps": FLAGS.trials_steps}
    settings |= {"eval_every": min(250, FLAGS.trials_steps), "eval_batch": 256}
    options = ["--config=configs/adding.py", *(f"--config.{name}={value}" for name, value in settings.items())]
    axes = {"cell": CELLS, "lr": RATES, "seed": range(SEEDS)}
    grid = [f"--grid={name}={','.join(map(str, values))}" for name, values in axes.items()]
    count = math.prod(len(values) for values in axes.values())
    alone = {}
    with tempfile.TemporaryDirectory() as folder:
        workdir = os.path.expanduser(FLAGS.trials_workdir) or f"{folder}/sweep"
        sweep = _launch("sweep", *options, *grid, f"--workdir={workdir}")
        results = [(*_settings(p), _score(p)) for p in pathlib.Path(workdir, "trials").iterdir()]
        for cell, seed in itertools.product(CELLS, range(FLAGS.trials_alone)):
            flags_ = [f"--config.cell={cell}", f"--config.seed={seed}", f"--workdir={folder}/{cell}{seed}"]
            alone[f"{cell} {seed}"] = _launch("train", *options, *flags_)
    begun = time.perf_counter()
    todo = list(itertools.product(CELLS, RATES, range(SEEDS)))
    tasks = [
        {"do": "torch_trials", "kind": "torch-1", "trials": todo[k :: cores()], **settings} for k in range(cores())
    ]
    processes = [start(task, stdout=subprocess.PIPE) for task in tasks]
    outputs = [process.communicate()[0] for process in processes]
    theirs = [tuple(row) for output in outputs if output for row in json.loads(output.splitlines()[-1])]
    torch = time.perf_counter() - begun
    missing = any(process.returncode for process in processes)
    sum_alone = count * statistics.mean(alone.values())
    row = "| PyTorch, {} processes | {:.0f} | **{:.1f}x** | {} |" if not missing else "| PyTorch | not installed | | |"
    table = [
        f"{len(CELLS)} cells x {len(RATES)} learning rates x {SEEDS} seeds, adding T={settings['seq_len']}, H=32, B=32",
        f"and {settings['steps']} steps, command start to end. Solved: seeds at the best learning rate.",
        "",
        f"| | seconds | | solved by {', '.join(CELLS)} |",
        "|-|-|-|-|",
        f"| one sweep, {len(CELLS)} buckets | {sweep:.0f} | | {_solved(results)} |",
        f"| {count} commands, reckoned from {len(alone)} | {sum_alone:.0f} | **{sum_alone / sweep:.1f}x** | |",
        row.format(cores(), torch, torch / sweep, "" if missing else _solved(theirs)),
    ]
    raw = {"settings": settings, "sweep": sweep, "alone": alone, "torch": torch, "results": results, "theirs": theirs}
    return raw, table


def torch_trials(trials, kind, seq_len, hidden_size, batch_size, steps, eval_every, eval_batch) -> None:
    """In a process of its own: trains as a PyTorch user does, and prints [cell, lr, seed, mse] of each trial."""
    try:
        import torch
    except ImportError:
        sys.exit(3)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as XLA does: vanishing gradients would slow it down
    device = "cuda" if on_gpu() else "cpu"

    def sample(B):
        value, half = torch.rand(seq_len, B, device=device), seq_len // 2
        first, second = torch.randint(half, (B,)), torch.randint(half, seq_len, (B,))
        marker, column = torch.zeros(seq_len, B, device=device), torch.arange(B)
        marker[first, column] = marker[second, column] = 1
        return torch.stack([value, marker], -1), (value * marker).sum(0)

    class Net(torch.nn.Module):
        def __init__(self, cell):
            super().__init__()
            layer = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](2, hidden_size)
            self.layer, self.readout = layer, torch.nn.Linear(hidden_size, 1)
            torch.nn.init.orthogonal_(layer.weight_hh_l0)

        def forward(self, xs):
            return self.readout(self.layer(xs)[0][-1])[:, 0]

    rows = []
    for cell, lr, seed in trials:
        torch.manual_seed(seed)
        net = Net(cell).to(device)
        optimizer = torch.optim.Adam(net.parameters(), lr)
        for step in range(steps):
            xs, target = sample(batch_size)
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.mse_loss(net(xs), target).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            if (step + 1) % eval_every == 0:
                with torch.inference_mode():
                    xs, target = sample(eval_batch)
                    mse = torch.nn.functional.mse_loss(net(xs), target).item()
        rows.append([cell, lr, seed, mse])
    print(json.dumps(rows))


def _launch(name, *options):
    """Seconds of a command from its start to its end."""
    env = environment("", {})
    begun = time.perf_counter()
    command = [sys.executable, str(ROOT / f"experiments/{name}.py"), *options]
    subprocess.run(command, check=True, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - begun


def _settings(trial):
    config = json.loads((trial / "config.json").read_bytes())["config"]
    return config["cell"], config["lr"], config["seed"]


def _score(trial):
    from rnnjax import runs  # here: the children of other libraries have no JAX

    return runs.read_result(trial)["score"]


def _solved(rows):
    """For each cell how many seeds have solved the task (0.05) at the learning rate where most have."""
    counts = {}
    for cell, lr, _, score in rows:
        counts.setdefault(cell, {}).setdefault(lr, []).append(score < 0.05)
    best = [max(map(sum, counts[cell].values())) for cell in CELLS]
    return ", ".join(f"{n} of {SEEDS}" for n in best)
