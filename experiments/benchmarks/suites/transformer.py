"""A training step of a causal Transformer, beside a plain one of Flax."""

from absl import flags

from benchmarks.case import parse_case, title
from benchmarks.harness import drop_entries, enter, time_entries
from benchmarks.peers import TRANSFORMER
from benchmarks.tables import cell_of, ratio
from benchmarks.workers import start_workers, stop_workers

FLAGS = flags.FLAGS
SHAPES = ["32x100x2x64", "32x256x64x128", "8x1024x64x128"]
flags.DEFINE_list("transformer_shapes", SHAPES, "Shapes BxTxIxH of the suite transformer; four divides H.")


def transformer() -> tuple[list, list[str]]:
    """Loss at every step, gradient and SGD update, of the same weights."""
    workers = start_workers({"jax"})
    cases, table = [], ["| case | rnnjax | flax.nnx | ratio |", "|-|-|-|-|"]
    for shape in FLAGS.transformer_shapes:
        case = parse_case("transformer", shape)
        entries, absent = enter("transformer", list(TRANSFORMER), case, workers)
        times = time_entries(entries, "step")
        drop_entries(entries)
        cases.append({**case._asdict(), "times": times, "absent": absent})
        table.append(f"| {title(case)} | {cell_of(times, 'rnnjax')} | {cell_of(times, 'flax.nnx')} |")
        table[-1] += f" {ratio(times, 'flax.nnx')} |"
    stop_workers(workers)
    return cases, [
        "A training step, ms: median [min..max], the better of a call a step and steps in a loop.",
        "",
        *table,
    ]
