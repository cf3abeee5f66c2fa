"""The benchmark's tables, as lines of markdown."""

import statistics

from benchmarks.case import case_of_row, title
from benchmarks.peers import LAYERS


def layers_table(results):
    lines = []
    peak_gflops = max(results["peak_gflops"].values())
    names = [n for n in LAYERS if any(n in c["times"] for c in results["cases"]) and n != "rnnjax sharded"]
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
                f"| {title(case_of_row(c))} | " + " | ".join(cells) + f" | {rate:.1f} | {rate / peak_gflops:.0%} |"
            )
        best, torch = geometric_means(cases)
        lines += ["", f"Geometric mean over the cases: {best} the best JAX peer of each case, {torch} PyTorch.", ""]
    lines += left_out(results["cases"])
    return [*lines, *NOTES]


NOTES = (
    "Every contender has the same weights and gives the same loss and gradient norm; Haiku's are compared with the",
    "same variants here, for its VanillaRNN is a ReLU network and its GRU resets before the matmul. Equinox has no RNN",
    "cell, so that one is written in its style. flax.nnx.GRUCell lacks the bias b_hn. JAX contenders are the better of",
    "one jit call a step and steps looped in one jit; rnnjax is the better of one device and the batch over several.",
)


def left_out(cases):
    """A line for each reason why a contender is missing."""
    titles = {title(case_of_row(c)) for c in cases}
    reasons = {}
    for c in cases:
        for name, reason in c["absent"].items():
            reasons.setdefault((name, reason), set()).add(title(case_of_row(c)))
    lines = [
        f"- {name} is left out of {'all cases' if where == titles else ', '.join(sorted(where))}: {reason}"
        for (name, reason), where in reasons.items()
    ]
    return [*lines, ""] if lines else []


def geometric_means(cases):
    best, torch = [], []
    for c in cases:
        rest = [t["median"] for n, t in c["times"].items() if n in LAYERS and not n.startswith(("rnnjax", "torch"))]
        if rest:
            best.append(min(rest) / median(c["times"], "rnnjax"))
        if "torch" in c["times"]:
            torch.append(median(c["times"], "torch") / median(c["times"], "rnnjax"))
    return tuple(f"{statistics.geometric_mean(ratios):.2f}x" if ratios else "-" for ratios in (best, torch))


def median(times, name):
    return times[name]["median"]


def paired_price(times):
    """What the norms add to a step, as a fraction: the median over the rounds of the ratio within each."""
    with_norms, plain = times["rnnjax norms"], times["rnnjax"]
    pairs = zip(*(t["ways"][t["way"]]["seconds"] for t in (with_norms, plain)), strict=True)
    return statistics.median(a / b for a, b in pairs) - 1


def cell_of(times, name):
    if name not in times:
        return "-"
    t = times[name]
    return f"{1e3 * t['median']:.3g} [{1e3 * t['min']:.3g}..{1e3 * t['max']:.3g}]"


def ratio(times, name):
    return f"**{median(times, name) / median(times, 'rnnjax'):.2f}x**" if name in times else ""


def show_times(times):
    return ", ".join(f"{name} {1e3 * t['median']:.3g} ms" for name, t in times.items())
