"""A sweep on a Ray cluster, or on a Ray of this machine's own: `pip install ray`."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from rnnjax import runs
from rnnjax.sweeps import grid as sweep
from rnnjax.sweeps.files import TABLES, open_store
from rnnjax.sweeps.lanes import Options, run_sweep
from rnnjax.sweeps.tracing import traced_lanes
from rnnjax.training import outputs
from rnnjax.training.config import Config
from rnnjax.training.devices import set_numerics
from rnnjax.training.refusals import BadSetting
from rnnjax.training.settings import config_of_file

ROOT = Path(__file__).resolve().parents[2]


def run_on_ray(
    trials: Sequence[Config],
    workdir: str | Path,
    stop: runs.StopRequest,
    options: Options,
    address: str | None,
    config_file: str | None = None,
) -> bool:
    """Runs what is missing as Ray tasks, each with a share of a bucket's trials. False if it was stopped on the way.

    Every node sees `workdir`. A task whose worker dies is run again, and goes on from its share's checkpoint; trials
    are published by their content, so one that is run twice is there once. Without an address, Ray is started here,
    on the loopback interface. `config_file` is run by each worker too: it may define cells and tasks.
    """
    import ray

    store, missing = open_store(workdir, trials, options.early, options.accept_changes)
    jax.config.update("jax_platforms", "cpu")  # here runs are traced alone: the workers have the devices
    for bucket in sweep.buckets(missing):
        traced_lanes(bucket.config, jax.devices()[:1], 1, 1)
    workdir = runs.own_directory(workdir, "sweep", *TABLES)
    alone = {} if address else {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    ray.init(address, runtime_env={"env_vars": {"PYTHONPATH": path}}, logging_level="warning", **alone)
    try:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        workers = gpus or int(resources["CPU"])
        # A worker ends with its task: JAX takes its devices once a process.
        task = ray.remote(num_cpus=1, num_gpus=bool(gpus), max_calls=1, max_retries=3)(run_share)
        pending = []
        for bucket in sweep.buckets(trials):
            missing = sum(not store.is_done(trial) for trial in bucket.trials)
            shares = [options._replace(share=(k, min(workers, missing))) for k in range(min(workers, missing))]
            digests = {name: source.sha256 for name, source in store.sources_of(bucket.config).items()}
            file = config_file and str(Path(config_file).absolute())
            args = list(bucket.trials), str(workdir.absolute())
            pending += [task.remote(*args, share, file, digests) for share in shares]
        failures: list[BaseException] = []
        finished, cancelled = True, False
        while pending:
            done, pending = ray.wait(pending, timeout=1)
            finished &= all([_finished(ray, ref, failures) for ref in done])
            if stop.requested and not cancelled:
                cancelled = True
                for ref in pending:
                    ray.cancel(ref)  # reaches the worker as Ctrl-C does
        if failures:
            raise failures[0]
        return finished
    finally:
        ray.shutdown()


def run_share(
    trials: list[Config],
    workdir: str,
    options: Options,
    config_file: str | None = None,
    digests: Mapping[str, str] | None = None,
) -> bool:
    """A task: `run_sweep` of a share, on this worker's devices, if its sources are those of the `digests`."""
    if config_file:
        config_of_file(config_file)
    found = {name: source.sha256 for name, source in outputs.sources(trials[0]).items()}
    if digests is not None and found != digests:
        raise runs.RunRefused(
            f"{', '.join(set(found) | set(digests))}: another on this worker than where it was started"
        )
    set_numerics()
    jax.config.update("jax_num_cpu_devices", 1)
    with runs.stop_signals() as stop:
        while True:
            try:
                return run_sweep(trials, workdir, stop, options)
            except runs.RunBusy:  # the worker that is thought dead still runs: what it publishes counts too
                time.sleep(1)


def _finished(ray, ref, failures):
    """Whether a task is; what follows training may have failed for some of its trials: that is for the end."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, runs.RunRefused | BadSetting):  # a worker has not the file of an own cell
            raise error.cause from None
        if not isinstance(error.cause, runs.RunFailed):
            raise
        failures.append(error.cause)
        return True
    except ray.exceptions.TaskCancelledError:
        return False
