"""How far a sweep is, and how long it will take."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from rnnjax.sweeps import grid as sweep
from rnnjax.training.config import Config
from rnnjax.training.dotted import static_settings
from rnnjax.training.progress import Bar


class Progress:
    """How far the whole sweep is, and the time left: a bar, or a line every two seconds where there can be none."""

    def __init__(self, buckets: Sequence[sweep.Bucket], missing: Sequence[Config]):
        self.labels = bucket_labels(buckets)
        self.trials = sum(len(bucket.trials) for bucket in buckets)
        self.done, self.worked, self.steps = self.trials - len(missing), 0.0, 0
        self.work = sum(map(work_of, missing))
        self.began = time.monotonic()
        self.bar = Bar(self.work, seconds=2)

    def __enter__(self):
        self.bar.__enter__()
        return self

    def __exit__(self, *_):
        self.bar.__exit__()

    def report(self, bucket: sweep.Bucket, lanes: Sequence, score: str) -> None:
        """After a chunk of these `Lane`s."""
        config, now = bucket.config, time.monotonic()
        self.worked += len(lanes) * work_of(config) * config.eval_every / config.steps
        self.steps += len(lanes) * config.eval_every
        elapsed = now - self.began
        left = max(self.work - self.worked, 0) * elapsed / self.worked
        median = np.median([lane.records[-1][f"eval_{score}"] for lane in lanes])
        at = sorted({int(lane.records[-1]["step"]) for lane in lanes})
        text = (
            f"{self.done}/{self.trials} trials  {self.labels[sweep.bucket_id(config)]}: {len(lanes)} lanes "
            f"at step {'-'.join(map(str, at[:: max(len(at) - 1, 1)]))}/{config.steps}  "
            f"median validation {score} {median:.4g}  "
            f"{self.steps / elapsed:.0f} steps/s  {duration(left)} left"
        )
        self.bar.update(self.worked, text)

    def published(self, lane: Any) -> None:
        """After the end of a trial."""
        self.done += 1
        self.work -= work_of(lane.trial) * max(1 - int(lane.records[-1]["step"]) / lane.trial.steps, 0)


def bucket_labels(buckets: Sequence[sweep.Bucket]) -> dict[str, str]:
    """What tells each bucket from the others, such as `bucket 2/6 cell=lstm seq_len=100`, by its id."""
    static = [static_settings(bucket.config) for bucket in buckets]
    values: dict[str, set[str]] = {}
    for settings in static:
        for name, value in settings.items():
            values.setdefault(name, set()).add(str(value))
    labels = [
        [f"{name}={value}" for name, value in settings.items() if len(values[name]) > 1]  # of all that have it
        for settings in static
    ]
    return {
        sweep.bucket_id(bucket.config): " ".join([f"bucket {n}/{len(buckets)}", *label])
        for n, (bucket, label) in enumerate(zip(buckets, labels, strict=True), start=1)
    }


def work_of(config: Config) -> float:
    """Roughly how long a trial takes, in no unit: small nets take their time from the length of the sequences."""
    return float(config.steps) * config.seq_len * config.num_layers * (1 + config.bidirectional)


def duration(seconds: float) -> str:
    """`45 s`, `12 min` or `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
