"""What the norm of dL/dh_t at every t adds to a training step."""

from absl import flags

from benchmarks.case import parse_case, title
from benchmarks.harness import drop_entries, enter, join_deployments, time_entries
from benchmarks.peers import DIAGNOSTICS
from benchmarks.suites.layers import SHAPES
from benchmarks.tables import cell_of, median, paired_price
from benchmarks.workers import sharding, start_workers, stop_workers

FLAGS = flags.FLAGS
flags.DEFINE_list("diagnostics_shapes", SHAPES[:3], "Shapes BxTxIxH of the suite diagnostics.")


def diagnostics() -> tuple[list, list[str]]:
    """A training step without and with |dL/dh_t| for every t."""
    workers = start_workers({"jax", "torch"} | ({"jax-sharded"} if sharding() else set()))
    cases = []
    table = [
        "| case | rnnjax step | with norms | price | torch step | with norms | torch / rnnjax |",
        "|-|-|-|-|-|-|-|",
    ]
    for shape in FLAGS.diagnostics_shapes:
        case = parse_case("lstm", shape)
        entries, absent = enter("diagnostics", list(DIAGNOSTICS), case, workers)
        times = time_entries(entries, "step")
        join_deployments(times, "rnnjax")
        join_deployments(times, "rnnjax norms")
        drop_entries(entries)
        cases.append({**case._asdict(), "times": times, "absent": absent})
        price = paired_price(times)
        gain = f"{median(times, 'torch norms') / median(times, 'rnnjax norms'):.1f}x" if "torch norms" in times else "-"
        cells = [cell_of(times, n) for n in ("rnnjax", "rnnjax norms", "torch", "torch norms")]
        table.append(f"| {title(case)} | {cells[0]} | {cells[1]} | {price:+.1%} | {cells[2]} | {cells[3]} | {gain} |")
    stop_workers(workers)
    return cases, ["A training step, ms: median [min..max]; the price is the median over the rounds.", "", *table]
