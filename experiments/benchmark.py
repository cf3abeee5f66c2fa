"""rnnjax against PyTorch, Flax, Haiku, Equinox and Keras: the same work, side by side in one run.

    python experiments/benchmark.py                          all suites on all cores
    python experiments/benchmark.py --threads=1 --suite=layers --cells=lstm --shapes=32x200x2x64

Suites: layers (forward pass and training step), sweep (independent runs), diagnostics (gradient norms over time),
memory (peak against T), startup (process start to the end of the first step). Writes results.json, tables.md and
layers.png into --out. Times mean something on a quiet machine alone. On a GPU the same command runs there.

One process keeps the clock and gives the turns, round by round in a shuffled order. The contenders sit in worker
processes that sleep on a pipe until it is their turn: number of host devices and threads are settings of a process,
so JAX on one device, JAX on all virtual devices and PyTorch get one each, and none has another's thread pool beside it.
"""

import importlib.metadata
import itertools
import json
import math
import os
import pathlib
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from experiments import peers

SUITES = ("layers", "sweep", "diagnostics", "memory", "startup")
SHAPES = ["16x100x2x32", "32x200x2x64", "32x500x2x128", "64x100x64x512"]
FLAGS = flags.FLAGS
flags.DEFINE_list("suite", list(SUITES), f"Which of {', '.join(SUITES)}.")
flags.DEFINE_list("cells", ["rnn", "lstm", "gru"], "Cells of the suite layers.")
flags.DEFINE_list("shapes", SHAPES, "Shapes BxTxIxH of the suite layers.")
flags.DEFINE_list("contenders", list(peers.LAYERS), "Contenders of the suite layers; rnnjax always takes part.")
flags.DEFINE_list("sweep_shapes", ["16x100x2x32", "32x200x2x64"], "Shapes BxTxIxH of the suite sweep.")
flags.DEFINE_integer("sweep_runs", 16, "Independent LSTM runs of the suite sweep.")
flags.DEFINE_list("diagnostics_shapes", ["32x200x2x64", "32x500x2x128"], "Shapes BxTxIxH of the suite diagnostics.")
flags.DEFINE_list("memory_lengths", ["1000", "10000", "100000", "1000000"], "Lengths T of the suite memory.")
flags.DEFINE_float("memory_limit_gib", 2.0, "Skip a length whose predicted resident memory is above this.")
flags.DEFINE_float("memory_seconds", 600, "Give up a length after this long.")
flags.DEFINE_string("startup_shape", "lstm:32x200x2x64", "Cell and shape of the suite startup.")
flags.DEFINE_string("startup_command", "", "A command that trains one step and exits, to be timed in startup as well.")
flags.DEFINE_integer("rounds", 7, "Turns of every contender.", lower_bound=1)
flags.DEFINE_float("seconds", 0.3, "How long one measurement should last.")
flags.DEFINE_enum("threads", "all", ["1", "all"], "One core, or all that this process may use.")
flags.DEFINE_enum("device", "auto", ["auto", "cpu", "gpu"], "auto is the GPU where nvidia-smi finds one.")
flags.DEFINE_string("out", "runs/benchmark", "Folder for the results.")
flags.DEFINE_string("child", "", "Used by the benchmark itself: what this process is to do, as JSON.")

TOLERANCE = {"cpu": 1e-4, "gpu": 1e-2}  # relative, of loss and gradient norm; GPUs multiply in TF32 by default
PACKAGES = ("rnnjax", "jax", "jaxlib", "flax", "dm-haiku", "equinox", "keras", "torch", "numpy")


def main(_):
    if FLAGS.child:
        task = json.loads(FLAGS.child)
        return {"serve": serve, "memory": memory_point, "first_step": first_step}[task.pop("do")](**task)
    unknown = set(FLAGS.suite) - set(SUITES)
    if unknown:
        raise app.UsageError(f"unknown suite {', '.join(unknown)}; allowed: {', '.join(SUITES)}")
    if FLAGS.threads == "1":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the workers inherit it
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    results, report = {"machine": machine()}, []
    suites = {"layers": layers, "sweep": sweep, "diagnostics": diagnostics, "memory": memory, "startup": startup}
    for suite in FLAGS.suite:
        results[suite], table = suites[suite]()
        report += [f"## {suite}", "", *table, ""]
        print("\n".join(table), flush=True)
        (out / "results.json").write_text(json.dumps(results, indent=1))  # after each suite: a long run may be cut
        head = [f"{k}: {v}" for k, v in results["machine"].items()]
        (out / "tables.md").write_text("\n".join(["# Benchmark", "", *[f"- {line}" for line in head], "", *report]))
        if suite == "layers":
            plot_layers(results["layers"], out / "layers.png")
    print(f"wrote {out}/results.json, {out}/tables.md")


def machine() -> dict:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "command": " ".join(["python", *sys.argv]),
        "cpu": models[0].split(":")[1].strip() if models else platform.processor(),
        "cores": cores(),
        "gpu": subprocess.getoutput("nvidia-smi --query-gpu=name --format=csv,noheader") if on_gpu() else None,
        "load at the start": os.getloadavg()[0],
        "versions": versions,
    }


def cores() -> int:
    return len(os.sched_getaffinity(0))


def on_gpu() -> bool:
    if FLAGS.device != "auto":
        return FLAGS.device == "gpu"
    return shutil.which("nvidia-smi") is not None and subprocess.getstatusoutput("nvidia-smi -L")[0] == 0


# The suites: each returns (raw results, lines of markdown).


def layers():
    workers = start_workers({"jax", "torch"} | ({"jax-sharded"} if sharding() else set()))
    results = {"peak_gflops": measure_peak(workers), "cases": []}
    try:
        for shape in FLAGS.shapes:
            for cell in FLAGS.cells:
                case = parse_case(cell, shape)
                names = [n for n in peers.LAYERS if n in FLAGS.contenders or n.startswith("rnnjax")]
                seats = sit_down("LAYERS", names, case, workers)
                for what, passes in (("forward", 1), ("step", 3)):
                    times = measure(seats, what)
                    join_deployments(times)
                    operations = passes * peers.flops(case)
                    results["cases"].append({"what": what, **case._asdict(), "flops": operations, "times": times})
                    print(f"{what} {title(case)}: " + show_times(times), flush=True)
                stand_up(seats)
    finally:
        stop_workers(workers)
    return results, layers_table(results)


def sweep():
    """The runs on all virtual devices of one process, against PyTorch in as many processes as cores."""
    processes = 1 if on_gpu() else min(cores(), FLAGS.sweep_runs)
    workers = start_workers({"jax-sharded" if sharding() else "jax"} | {f"torch-1 {k}" for k in range(processes)})
    cases, table = [], ["| case | rnnjax | torch | ratio |", "|-|-|-|-|"]
    for shape in FLAGS.sweep_shapes:
        case = parse_case("lstm", shape)
        ours, *theirs = workers.values()
        devices = math.gcd(cores(), FLAGS.sweep_runs) if sharding() else 1
        seats = [Seat("rnnjax", [ours], "SWEEP", {"runs": FLAGS.sweep_runs, "devices": devices})]
        split = [FLAGS.sweep_runs * k // processes for k in range(processes + 1)]
        shares = [{"runs": b - a, "first": a} for a, b in itertools.pairwise(split)]
        seats.append(Seat("torch", theirs, "SWEEP", shares))
        seats = check_seats(seats, case)
        times = measure(seats, "step")
        stand_up(seats)
        cases.append({"runs": FLAGS.sweep_runs, "processes": processes, **case._asdict(), "times": times})
        table.append(f"| {FLAGS.sweep_runs} x {title(case)} | {cell_of(times, 'rnnjax')} | {cell_of(times, 'torch')} |")
        table[-1] += f" {ratio(times, 'torch')} |"
    stop_workers(workers)
    return cases, ["One training step of every run, ms: median [min..max].", "", *table]


def diagnostics():
    """A training step without and with |dL/dh_t| for every t."""
    workers = start_workers({"jax", "torch"} | ({"jax-sharded"} if sharding() else set()))
    cases = []
    table = [
        "| case | rnnjax step | with norms | price | torch step | with norms | torch / rnnjax |",
        "|-|-|-|-|-|-|-|",
    ]
    for shape in FLAGS.diagnostics_shapes:
        case = parse_case("lstm", shape)
        seats = sit_down("DIAGNOSTICS", list(peers.DIAGNOSTICS), case, workers)
        times = measure(seats, "step")
        join_deployments(times, "rnnjax")
        join_deployments(times, "rnnjax norms")
        stand_up(seats)
        cases.append({**case._asdict(), "times": times})
        price = median(times, "rnnjax norms") / median(times, "rnnjax") - 1
        gain = median(times, "torch norms") / median(times, "rnnjax norms")
        cells = [cell_of(times, n) for n in ("rnnjax", "rnnjax norms", "torch", "torch norms")]
        table.append(
            f"| {title(case)} | {cells[0]} | {cells[1]} | {price:+.1%} | {cells[2]} | {cells[3]} | {gain:.1f}x |"
        )
    stop_workers(workers)
    return cases, ["A training step, ms: median [min..max].", "", *table]


def memory():
    """Peak resident memory and time of one gradient of an LSTM (H=64, B=1) against T, each in a fresh process."""
    rows, table = [], ["| T | " + " | ".join(MEMORY) + " |", "|-" * (len(MEMORY) + 1) + "|"]
    for T in map(int, FLAGS.memory_lengths):
        line = []
        for name in MEMORY:
            before = [r for r in rows if r["name"] == name]
            row = {"name": name, "T": T, **memory_of(name, T, before)}
            rows.append(row)
            line.append(row.get("error") or f"{row['peak_mib']:.0f} MiB, {row['seconds']:.2f} s")
            print(f"memory T={T} {name}: {line[-1]}", flush=True)
        norms = [row["norm"] for row in rows if row["T"] == T and "norm" in row]
        if norms and max(norms) - min(norms) > 1e-3 * max(norms):
            raise AssertionError(f"at T={T} the gradient norms differ: {norms}")
        table.append(f"| {T} | " + " | ".join(line) + " |")
    slopes = [memory_slope([r for r in rows if r["name"] == name]) for name in MEMORY]
    table.append("| bytes a step | " + " | ".join(slopes) + " |")
    text = "Peak resident memory of a process, and the time of a gradient after the first: LSTM, B=1, I=2, H=64."
    return rows, [text, "", *table]


def startup():
    """Process start to the end of the first training step."""
    cell, shape = FLAGS.startup_shape.split(":")
    case = parse_case(cell, shape)
    times = {}
    with tempfile.TemporaryDirectory() as cache:
        cached = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        contenders = {}
        for name in ("rnnjax", "flax.nnx", "torch"):
            contenders[name] = ({"do": "first_step", "name": name, "case": case}, {})
            if name != "torch":
                contenders[f"{name}, cached"] = (contenders[name][0], cached)
        if FLAGS.startup_command:
            contenders["command"], contenders["command, cached"] = (None, {}), (None, cached)
        for name, (task, extra) in contenders.items():
            if extra:
                time_process(task, extra, name)  # fills the cache
        for _ in range(FLAGS.rounds):
            for name, (task, extra) in contenders.items():
                times.setdefault(name, []).append(time_process(task, extra, name))
    table = ["| contender | seconds, median [min..max] |", "|-|-|"]
    for name, s in times.items():
        table.append(f"| {name} | {statistics.median(s):.2f} [{min(s):.2f}..{max(s):.2f}] |")
    text = f"From the start of the process to the end of the first training step, {title(case)}"
    return {"case": case._asdict(), "times": times}, [text, "", *table]


# Turns: seats of contenders in workers, and the clock.


class Seat(NamedTuple):
    """A contender, and the workers that run it: several where its work is split over processes."""

    name: str
    workers: list
    suite: str
    options: dict | list  # keyword arguments of its function in peers.py; a list has one for each worker
    ways: dict = {}  # noqa: RUF012  what -> names of the ways to run it
    numbers: tuple = ()  # loss, gradient norm


def sit_down(suite, names, case, workers):
    """Seats for those of the contenders that are installed and can run this case, after their numbers were checked."""
    seats = []
    for name in names:
        worker, _ = getattr(peers, suite)[name]
        if worker in workers:
            seats.append(Seat(name, [workers[worker]], suite, {"devices": cores()} if "sharded" in name else {}))
    return check_seats(seats, case)


def check_seats(seats, case):
    """Builds the contenders. One that fails, or differs from rnnjax in loss or gradient norm, is not timed."""
    checked, references = [], {}
    for seat in seats:
        options = seat.options if isinstance(seat.options, list) else [seat.options]
        for worker, arguments in zip(seat.workers, options, strict=True):
            send(worker, do="make", suite=seat.suite, name=seat.name, case=case, options=arguments)
        answers = [receive(worker, strict=False) for worker in seat.workers]
        reason = next((a["skip"] for a in answers if "skip" in a), None)
        if not reason:
            numbers = tuple(sum(a["numbers"][k] for a in answers) for k in range(2))
            reference = references.setdefault("norms" in seat.name, numbers)  # rnnjax comes first
            reason = disagreement(numbers, answers[0].get("reference") or reference)
        if not reason:
            checked.append(seat._replace(ways=answers[0]["ways"], numbers=numbers))
        elif seat.name in ("rnnjax", "rnnjax norms"):
            raise RuntimeError(f"{seat.name} {title(case)}: {reason}")
        else:
            print(f"  {seat.name} sits out {title(case)}: {reason}", flush=True)
    return checked


def disagreement(numbers, expected):
    off = max(abs(a - b) / abs(b) for a, b in zip(numbers, expected, strict=True))
    if off <= TOLERANCE["gpu" if on_gpu() else "cpu"]:
        return None
    return f"disagrees: loss and gradient norm {numbers}, expected {expected}"


def measure(seats, what):
    """{contender: {"ways": {way: {"n", "seconds" a pass of each round}}, "way", "median", "min", "max"}}."""
    turns = {(seat.name, way): seat for seat in seats for way in seat.ways.get(what, ())}
    n = {turn: calibrate(seat, what, turn[1]) for turn, seat in turns.items()}
    seconds, order = {turn: [] for turn in turns}, list(turns)
    for round_ in range(FLAGS.rounds):
        random.Random(round_).shuffle(order)
        for turn in order:
            seconds[turn].append(clock(turns[turn], what, turn[1], n[turn]) / n[turn])
    times = {}
    for seat in seats:
        ways = {w: {"n": n[name, w], "seconds": s} for (name, w), s in seconds.items() if name == seat.name}
        if ways:
            times[seat.name] = {"ways": ways, "numbers": seat.numbers, **best_way(ways)}
    return times


def best_way(ways):
    way = min(ways, key=lambda w: statistics.median(ways[w]["seconds"]))
    seconds = ways[way]["seconds"]
    return {"way": way, "median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}


def join_deployments(times, name="rnnjax"):
    """`rnnjax` becomes the better of one device and the batch spread over all; both stay in the results."""
    sharded = times.get(f"{name} sharded")
    times[name]["deployment"] = "one device"
    times[f"{name} on one device"] = dict(times[name])
    if sharded and sharded["median"] < times[name]["median"]:
        times[name] = {**sharded, "deployment": "batch sharded"}


def calibrate(seat, what, way):
    """How many passes last about `--seconds`. The first run compiles."""
    clock(seat, what, way, 1)
    n = 1
    for _ in range(2):
        n = max(1, min(100_000, round(n * FLAGS.seconds / clock(seat, what, way, n))))
    return n


def clock(seat, what, way, n):
    """Wall time of n passes, until the last of the seat's workers is done."""
    start = time.perf_counter()
    for worker in seat.workers:
        send(worker, do="run", name=seat.name, what=what, way=way, n=n)
    for worker in seat.workers:
        receive(worker)
    return time.perf_counter() - start


def stand_up(seats):
    for seat in seats:
        for worker in seat.workers:
            ask(worker, do="drop", name=seat.name)


def measure_peak(workers):
    """The best rate of a large matmul by any deployment, in GFLOP/s; the least flattering for our fraction of it."""
    rates = {name: ask(worker, do="peak")["gflops"] for name, worker in workers.items()}
    print("matmul peak, GFLOP/s: " + ", ".join(f"{k} {v:.0f}" for k, v in rates.items()), flush=True)
    return rates


# Workers: processes that hold contenders and run them when told to, one JSON line a message.


def start_workers(names):
    workers = {}
    for name in sorted(names):
        workers[name] = start(
            {"do": "serve", "kind": name.split(" ")[0]}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    for name, worker in list(workers.items()):
        answer = receive(worker)
        if "skip" in answer:
            print(f"no {name}: {answer['skip']}", flush=True)
            del workers[name]
        elif answer["device"] != ("gpu" if on_gpu() else "cpu"):
            raise RuntimeError(f"{name} runs on the {answer['device']}; set --device")
    return workers


def start(task, extra=None, **pipes):
    command = [sys.executable, __file__, f"--child={json.dumps(task)}", f"--threads={FLAGS.threads}"]
    return subprocess.Popen(command, env=environment(task.get("kind", ""), extra or {}), text=True, **pipes)


def environment(kind, extra):
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **extra}
    if on_gpu():
        env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # several processes share the memory
    else:
        env |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    if kind == "jax-sharded":
        env["XLA_FLAGS"] = env.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={cores()}"
    if FLAGS.threads == "1" or kind == "torch-1":
        env["OMP_NUM_THREADS"] = "1"
    return env


def sharding() -> bool:
    return cores() > 1 and not on_gpu()


def stop_workers(workers):
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()


def send(worker, **message):
    worker.stdin.write(json.dumps(message) + "\n")
    worker.stdin.flush()


def receive(worker, strict=True):
    """The worker's answer. An error is raised, or where not `strict` taken as a reason to sit out."""
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError("a worker process died; its stderr is above")
    answer = json.loads(line)
    if "error" in answer and strict:
        raise RuntimeError(answer["error"])
    return {"skip": answer["error"]} if "error" in answer else answer


def ask(worker, **message):
    send(worker, **message)
    return receive(worker)


def serve(kind):
    """The life of a worker. Whatever a library prints goes to stderr, so that it cannot mix with the answers."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**message):
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        answer(device=set_up(kind))
    except ImportError as e:
        return answer(skip=str(e))
    contenders, handlers = {}, {"make": make, "run": run, "drop": drop, "peak": lambda _: peak(kind)}
    for line in sys.stdin:
        message = json.loads(line)
        try:
            answer(**(handlers[message.pop("do")](contenders, **message) or {}))
        except (ImportError, NotImplementedError) as e:
            answer(skip=str(e))
        except Exception as e:
            answer(error=f"{kind}: {message}: {type(e).__name__}: {e}")


def set_up(kind):
    if kind.startswith("torch"):
        import torch

        if FLAGS.threads == "1" or kind == "torch-1":
            torch.set_num_threads(1)
        torch.set_flush_denormal(True)  # as XLA does: vanishing gradients would slow it down
        return "gpu" if torch.cuda.is_available() else "cpu"
    import jax

    return jax.default_backend()


def make(contenders, suite, name, case, options):
    case = peers.Case(*case)
    contender = getattr(peers, suite)[name][1](case, **options)
    contenders[name] = contender
    answer = {"numbers": contender.check(), "ways": {w: list(getattr(contender, w)) for w in ("forward", "step")}}
    if contender.same_as != case.cell:
        answer["reference"] = peers.rnnjax(case, variant=contender.same_as).check()
    return answer


def run(contenders, name, what, way, n):
    getattr(contenders[name], what)[way](n)


def drop(contenders, name):
    contenders.pop(name, None)
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


def peak(kind):
    """The rate of a large matmul, one for each device at once."""
    size, seconds = 8192 if on_gpu() else 2048, []
    if kind.startswith("torch"):
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        a, count = torch.ones(size, size, device=device), 1

        def multiply():
            (a @ a)[0, 0].item()
    else:
        import jax
        import jax.numpy as jnp

        count = jax.device_count()
        spread = jax.NamedSharding(jax.make_mesh((count,), ("d",)), jax.sharding.PartitionSpec("d"))
        a = jax.device_put(jnp.ones((count, size, size)), spread)
        product = jax.jit(
            jax.shard_map(lambda a: (a[0] @ a[0])[None], mesh=spread.mesh, in_specs=spread.spec, out_specs=spread.spec)
        )

        def multiply():
            product(a).block_until_ready()

    for _ in range(8):
        start = time.perf_counter()
        multiply()
        seconds.append(time.perf_counter() - start)
    return {"gflops": count * 2 * size**3 / min(seconds) / 1e9}


# Memory and start-up: one fresh process a measurement.

MEMORY = {
    "rnnjax": ("jax", lambda T: 1),
    "rnnjax, sqrt(T) segments": ("jax", math.isqrt),
    "torch": ("torch", lambda T: 1),
}


def memory_of(name, T, before):
    worked = [r for r in before if "peak_mib" in r]
    if any("error" in r for r in before):
        return {"error": "-"}
    if worked:
        grown = worked[-1]["peak_mib"] - worked[-1]["start_mib"]
        power = 0.5 if "sqrt" in name else 1.0
        predicted = worked[-1]["start_mib"] + grown * (T / worked[-1]["T"]) ** power
        if predicted > 1024 * FLAGS.memory_limit_gib:
            return {"error": f"skipped, about {predicted / 1024:.1f} GiB"}
    kind, segments = MEMORY[name]
    process = start({"do": "memory", "kind": kind, "T": T, "segments": segments(T)}, stdout=subprocess.PIPE)
    try:
        output, _ = process.communicate(timeout=FLAGS.memory_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"error": f"over {FLAGS.memory_seconds:.0f} s"}
    if process.returncode:
        return {"error": "not installed" if process.returncode == 3 else f"failed ({process.returncode})"}
    return json.loads(output.splitlines()[-1])


def memory_point(kind, T, segments):
    """Prints the peak of this process after one gradient, and the time of a second."""
    case = peers.Case("lstm", 1, T, 2, 64)
    try:
        set_up(kind)
    except ImportError:
        sys.exit(3)
    contender = peers.torch_nn(case) if kind == "torch" else peers.rnnjax(case, segments=segments)
    start_mib = peak_mib()
    _, norm = contender.check()
    start = time.perf_counter()
    contender.check()
    seconds = time.perf_counter() - start
    print(json.dumps({"start_mib": start_mib, "peak_mib": peak_mib(), "seconds": seconds, "norm": norm}))


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_slope(rows):
    worked = [r for r in rows if "peak_mib" in r]
    if len(worked) < 2:
        return "-"
    return f"{(worked[-1]['peak_mib'] - worked[0]['peak_mib']) * 2**20 / (worked[-1]['T'] - worked[0]['T']):.0f}"


def time_process(task, extra, name):
    start_time = time.perf_counter()
    if task:
        process = start(task, extra, stdout=subprocess.DEVNULL)
    else:
        process = subprocess.Popen(
            FLAGS.startup_command, shell=True, env=environment("", extra), stdout=subprocess.DEVNULL
        )
    if process.wait():
        raise RuntimeError(f"{name} failed with exit code {process.returncode}")
    return time.perf_counter() - start_time


def first_step(name, case):
    case = peers.Case(*case)
    set_up(peers.LAYERS[name][0])
    ways = peers.LAYERS[name][1](case).step
    ways["call"](1)
    os._exit(0)  # the step is done: taking the process down is not part of it


# Tables and the figure.


def layers_table(results):
    lines = []
    peak_gflops = max(results["peak_gflops"].values())
    names = [n for n in peers.LAYERS if any(n in c["times"] for c in results["cases"]) and n != "rnnjax sharded"]
    for what, heading in (("step", "Training step (loss, gradient, SGD update)"), ("forward", "Forward pass")):
        cases = [c for c in results["cases"] if c["what"] == what]
        lines += [
            f"**{heading}**, ms: median [min..max], and how many times rnnjax's median.",
            f"Matmul peak of this machine: {peak_gflops:.0f} GFLOP/s.",
            "",
        ]
        lines += [
            "| cell (B, T, I, H) | " + " | ".join(names) + " | GFLOP/s | of peak |",
            "|-" * (len(names) + 3) + "|",
        ]
        for c in cases:
            times = c["times"]
            cells = [cell_of(times, n) + ("" if n == "rnnjax" else f" {ratio(times, n)}") for n in names]
            cells[0] += " (sharded)" if times["rnnjax"]["deployment"] == "batch sharded" else ""
            rate = c["flops"] / median(times, "rnnjax") / 1e9
            lines.append(
                f"| {title(parse_row(c))} | " + " | ".join(cells) + f" | {rate:.1f} | {rate / peak_gflops:.0%} |"
            )
        best, torch = geometric_means(cases)
        lines += ["", f"Geometric mean over the cases: {best} the best JAX peer of each case, {torch} PyTorch.", ""]
    return [*lines, *NOTES]


NOTES = (
    "Every contender has the same weights and gives the same loss and gradient norm; Haiku's are compared with the",
    "same variants here, for its VanillaRNN is a ReLU network and its GRU resets before the matmul. Equinox has no RNN",
    "cell, so that one is written in its style. flax.nnx.GRUCell lacks the bias b_hn. JAX contenders are the better of",
    "one jit call a step and steps looped in one jit; rnnjax is the better of one device and the batch over several.",
)


def geometric_means(cases):
    best, torch = [], []
    for c in cases:
        rest = [
            t["median"] for n, t in c["times"].items() if n in peers.LAYERS and not n.startswith(("rnnjax", "torch"))
        ]
        if rest:
            best.append(min(rest) / median(c["times"], "rnnjax"))
        if "torch" in c["times"]:
            torch.append(median(c["times"], "torch") / median(c["times"], "rnnjax"))
    return tuple(f"{statistics.geometric_mean(ratios):.2f}x" if ratios else "-" for ratios in (best, torch))


def plot_layers(results, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = ["#000000", "#56B4E9", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#F0E442", "#D55E00"]  # Okabe-Ito
    markers = "*oPsD^Xv"
    names = [n for n in peers.LAYERS if n != "rnnjax sharded"]
    rows = {what: [c for c in results["cases"] if c["what"] == what] for what in ("step", "forward")}
    height = 1.6 + 0.34 * len(rows["step"])
    figure, axes = plt.subplots(1, 2, figsize=(11, height), sharey=True, layout="constrained")
    for axis, (what, cases) in zip(axes, rows.items(), strict=True):
        for k, name in enumerate(names):
            points = [(c["times"][name], y) for y, c in enumerate(cases) if name in c["times"]]
            if points:
                x = [1e3 * t["median"] for t, _ in points]
                spread = [
                    [1e3 * (t["median"] - t["min"]) for t, _ in points],
                    [1e3 * (t["max"] - t["median"]) for t, _ in points],
                ]
                size = 11 if name == "rnnjax" else 7
                axis.errorbar(
                    x,
                    [y for _, y in points],
                    xerr=spread,
                    fmt=markers[k],
                    color=colours[k],
                    ms=size,
                    lw=1,
                    mec="k",
                    mew=0.4,
                    label=name,
                    zorder=3 if k else 4,
                )
        axis.set(
            xscale="log",
            xlabel="ms (median, min to max)",
            title={"step": "training step", "forward": "forward pass"}[what],
        )
        axis.grid(axis="both", alpha=0.3)
    axes[0].set_yticks(range(len(rows["step"])), [title(parse_row(c)) for c in rows["step"]])
    axes[0].set_ylim(len(rows["step"]) - 0.5, -0.5)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def parse_case(cell, shape):
    try:
        return peers.Case(cell, *map(int, shape.split("x")))
    except (TypeError, ValueError):
        raise app.UsageError(f"shape {shape!r}; write BxTxIxH, such as 32x200x2x64") from None


def parse_row(row):
    return peers.Case(*(row[k] for k in peers.Case._fields))


def title(case):
    return f"{case.cell} ({case.B}, {case.T}, {case.I}, {case.H})"


def median(times, name):
    return times[name]["median"]


def cell_of(times, name):
    if name not in times:
        return "-"
    t = times[name]
    return f"{1e3 * t['median']:.3g} [{1e3 * t['min']:.3g}..{1e3 * t['max']:.3g}]"


def ratio(times, name):
    return f"**{median(times, name) / median(times, 'rnnjax'):.2f}x**" if name in times else ""


def show_times(times):
    return ", ".join(f"{name} {1e3 * t['median']:.3g} ms" for name, t in times.items())


if __name__ == "__main__":
    app.run(main)
