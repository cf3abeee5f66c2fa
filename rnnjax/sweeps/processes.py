"""Several processes that share one job through a shared directory: who is still there, and whether all should stop."""

import contextlib
import threading
import time

import jax
from jax._src import distributed  # the job's key-value store; jax has no public name for it

from rnnjax.runs import StopRequest

BEAT_SECONDS = 1.0
GONE_SECONDS = 15.0  # without a beat


class Job:
    """One process's view of the job. Each tells the others every second that it lives, and at last how it ended."""

    def __init__(self, processes: int, index: int):
        self.processes, self.index = processes, index
        self.client = distributed.global_state.client
        self.seen: dict[int, tuple[str, float]] = {p: ("", time.monotonic()) for p in range(processes)}
        self.ended: dict[int, str] = {}
        self.leaving = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    @property
    def gone(self) -> list[int]:
        """Processes that have stopped beating without saying that they ended."""
        limit = time.monotonic() - GONE_SECONDS
        return [p for p, (_, at) in self.seen.items() if p != self.index and p not in self.ended and at < limit]

    @property
    def broken(self) -> str | None:
        """Why this process should save and end, if it should."""
        if self.gone:
            return f"process {self.gone[0]} of this job is gone"
        stopped = [p for p, how in self.ended.items() if how == "stopped" and p != self.index]
        return f"process {stopped[0]} of this job was stopped" if stopped else None

    def end(self, finished: bool) -> bool:
        """Says how this process ended, and waits for the others; returns whether all have finished.

        A stopped one does not wait, but process 0, without which the others could not hear of it.
        """
        self.client.key_value_set(f"rnnjax/ended/{self.index}", "finished" if finished else "stopped")
        self.ended[self.index] = "finished" if finished else "stopped"
        while (finished or self.index == 0) and set(range(self.processes)) - set(self.ended) - set(self.gone):
            time.sleep(BEAT_SECONDS / 5)
        if self.index == 0:
            time.sleep(2 * BEAT_SECONDS)  # the others still read from it that all have ended
        self.leaving.set()
        self.thread.join()
        return set(self.ended.values()) == {"finished"} and len(self.ended) == self.processes

    def _watch(self):
        beat = 0
        while not self.leaving.wait(BEAT_SECONDS):
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # process 0 is leaving
                self.client.key_value_set(f"rnnjax/beat/{self.index}", str(beat := beat + 1), allow_overwrite=True)
                for key, value in self.client.key_value_dir_get("rnnjax/beat"):
                    p = int(key.rsplit("/", 1)[1])
                    if value != self.seen[p][0]:
                        self.seen[p] = value, time.monotonic()
                for key, value in self.client.key_value_dir_get("rnnjax/ended"):
                    self.ended[int(key.rsplit("/", 1)[1])] = value


def join(coordinator: str, processes: int, index: int) -> Job:
    """Joins the `jax.distributed` job of the process 0 that listens at `coordinator`, HOST:PORT, and there alone.

    The end of another process is left to `Job.broken`; only that of process 0 itself makes JAX end this one.
    """
    jax.config.update("jax_enable_recoverability", True)
    jax.distributed.initialize(coordinator, processes, index, coordinator_bind_address=coordinator)
    jax.devices()  # waits for all the others: before any of them counts as gone
    return Job(processes, index)


class Stop:
    """`requested` once a signal came to this process, or once the job is broken."""

    def __init__(self, signals: StopRequest, job: Job | None):
        self.signals, self.job = signals, job

    @property
    def requested(self) -> bool:
        """Whether to save and end."""
        return self.signals.requested or bool(self.job and self.job.broken)
