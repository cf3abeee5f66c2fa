"""Processes that hold contenders and run them when told to, one JSON line a message.

They sleep on a pipe until it is their turn: number of host devices and threads are settings of a process, so JAX on one
device, JAX on all virtual devices and PyTorch get one each, and none has another's thread pool beside it.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

from absl import flags

from benchmarks import peers
from benchmarks.case import Case

FLAGS = flags.FLAGS
flags.DEFINE_enum("threads", "all", ["1", "all"], "One core, or all that this process may use.")
flags.DEFINE_enum("device", "auto", ["auto", "cpu", "gpu"], "auto is the GPU where nvidia-smi finds one.")
flags.DEFINE_string("child", "", "Used by the benchmark itself: what this process is to do, as JSON.")

LAUNCHER = pathlib.Path(__file__).parents[1] / "benchmark.py"


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
    command = [sys.executable, str(LAUNCHER), f"--child={json.dumps(task)}"]
    command += [f"--threads={FLAGS.threads}", f"--device={FLAGS.device}"]
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
    case = Case(*case)
    contender = peers.build(suite, name, case, **options)
    contenders[name] = contender
    answer = {"numbers": contender.check(), "ways": {w: list(getattr(contender, w)) for w in ("forward", "step")}}
    variant = peers.same_as(suite, name, case.cell)
    if variant != case.cell:
        answer["reference"] = peers.build("layers", "rnnjax", case, variant=variant).check()
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
    count, multiply = (_torch_matmul if kind.startswith("torch") else _jax_matmul)(size)
    for _ in range(8):
        start = time.perf_counter()
        multiply()
        seconds.append(time.perf_counter() - start)
    return {"gflops": count * 2 * size**3 / min(seconds) / 1e9}


def _torch_matmul(size):
    import torch

    a = torch.ones(size, size, device="cuda" if torch.cuda.is_available() else "cpu")
    return 1, lambda: (a @ a)[0, 0].item()


def _jax_matmul(size):
    import jax
    import jax.numpy as jnp

    count = jax.device_count()
    spread = jax.NamedSharding(jax.make_mesh((count,), ("d",)), jax.sharding.PartitionSpec("d"))
    a = jax.device_put(jnp.ones((count, size, size)), spread)
    product = jax.jit(
        jax.shard_map(lambda a: (a[0] @ a[0])[None], mesh=spread.mesh, in_specs=spread.spec, out_specs=spread.spec)
    )
    return count, lambda: product(a).block_until_ready()


def cores() -> int:
    return len(os.sched_getaffinity(0))


def on_gpu() -> bool:
    if FLAGS.device != "auto":
        return FLAGS.device == "gpu"
    return shutil.which("nvidia-smi") is not None and subprocess.getstatusoutput("nvidia-smi -L")[0] == 0
