"""Forward pass and training step of one layer, beside other libraries."""

from absl import flags

from benchmarks.case import CELLS, flops, parse_case, title
from benchmarks.harness import drop_entries, enter, join_deployments, measure_peak, time_entries
from benchmarks.peers import LAYERS
from benchmarks.tables import layers_table, show_times
from benchmarks.workers import sharding, start_workers, stop_workers

FLAGS = flags.FLAGS
SHAPES = ["16x100x2x32", "32x200x2x64", "32x500x2x128", "64x100x64x512"]
flags.DEFINE_list("cells", list(CELLS), "Cells of the suite layers.")
flags.DEFINE_list("shapes", SHAPES, "Shapes BxTxIxH of the suite layers.")
flags.DEFINE_list("contenders", list(LAYERS), "Contenders of the suite layers; rnnjax always takes part.")


def layers() -> tuple[dict, list[str]]:
    """Every contender in every case, all of them taking turns."""
    workers = start_workers({"jax", "torch"} | ({"jax-sharded"} if sharding() else set()))
    results = {"peak_gflops": measure_peak(workers), "cases": []}
    try:
        for shape in FLAGS.shapes:
            for cell in FLAGS.cells:
                case = parse_case(cell, shape)
                names = [n for n in LAYERS if n in FLAGS.contenders or n.startswith("rnnjax")]
                entries, absent = enter("layers", names, case, workers)
                for what, passes in (("forward", 1), ("step", 3)):
                    times = time_entries(entries, what)
                    join_deployments(times)
                    operations = passes * flops(case)
                    results["cases"].append({"what": what, **case._asdict(), "flops": operations, "times": times})
                    results["cases"][-1]["absent"] = absent
                    print(f"{what} {title(case)}: " + show_times(times), flush=True)
                drop_entries(entries)
    finally:
        stop_workers(workers)
    return results, layers_table(results)
