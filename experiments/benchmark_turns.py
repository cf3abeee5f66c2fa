"""Who of the contenders is timed, when, and by which clock; and the worker processes that they sit in."""

import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

import peers
from absl import flags
from benchmark_tables import title

FLAGS = flags.FLAGS
TOLERANCE = {"cpu": 1e-4, "gpu": 1e-2}  # relative, of loss and gradient norm; GPUs multiply in TF32 by default

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
    """As `check_seats`, of the contenders of a suite by their names."""
    seats, absent = [], {}
    for name in names:
        worker, _ = getattr(peers, suite)[name]
        if worker in workers:
            seats.append(Seat(name, [workers[worker]], suite, {"devices": cores()} if "sharded" in name else {}))
        elif "sharded" not in name:
            absent[name] = "not installed"
    seats, more = check_seats(seats, case)
    return seats, absent | more


def check_seats(seats, case):
    """Builds the contenders: (those to be timed, why each other is not).

    One that cannot run the case, fails, or differs from rnnjax in loss or gradient norm sits out.
    """
    checked, absent, references = [], {}, {}
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
            absent[seat.name] = reason
            print(f"  {seat.name} sits out {title(case)}: {reason}", flush=True)
    return checked, absent


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
    command = [
        sys.executable,
        str(pathlib.Path(__file__).with_name("benchmark.py")),
        f"--child={json.dumps(task)}",
        f"--threads={FLAGS.threads}",
    ]
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


def cores() -> int:
    return len(os.sched_getaffinity(0))


def on_gpu() -> bool:
    if FLAGS.device != "auto":
        return FLAGS.device == "gpu"
    return shutil.which("nvidia-smi") is not None and subprocess.getstatusoutput("nvidia-smi -L")[0] == 0
