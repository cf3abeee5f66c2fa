"""The benchmark's figure: every contender's times in every case of the suite layers."""

from benchmarks.case import case_of_row, title
from benchmarks.peers import LAYERS

COLOURS = ["#000000", "#56B4E9", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#F0E442", "#D55E00"]  # Okabe-Ito
MARKERS = "*oPsD^Xv"


def plot_layers(results, path):
    """Draws training step and forward pass side by side, a row for each case, and saves the figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = {what: [c for c in results["cases"] if c["what"] == what] for what in ("step", "forward")}
    height = 1.6 + 0.34 * len(rows["step"])
    figure, axes = plt.subplots(1, 2, figsize=(11, height), sharey=True, layout="constrained")
    for axis, (what, cases) in zip(axes, rows.items(), strict=True):
        for k, name in enumerate(n for n in LAYERS if n != "rnnjax sharded"):
            _points(axis, k, name, cases)
        heading = {"step": "training step", "forward": "forward pass"}[what]
        axis.set(xscale="log", xlabel="ms (median, min to max)", title=heading)
        axis.grid(axis="both", alpha=0.3)
    axes[0].set_yticks(range(len(rows["step"])), [title(case_of_row(c)) for c in rows["step"]])
    axes[0].set_ylim(len(rows["step"]) - 0.5, -0.5)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _points(axis, k, name, cases):
    """The k-th contender's median in each case that it has, with a bar from its least to its greatest."""
    rows = [(c["times"][name], y) for y, c in enumerate(cases) if name in c["times"]]
    if not rows:
        return
    times, ys = zip(*rows, strict=True)
    spread = [[1e3 * (t["median"] - t["min"]) for t in times], [1e3 * (t["max"] - t["median"]) for t in times]]
    style = {"fmt": MARKERS[k], "color": COLOURS[k], "ms": 7 if k else 11, "lw": 1, "mec": "k", "mew": 0.4}
    axis.errorbar([1e3 * t["median"] for t in times], ys, xerr=spread, label=name, zorder=3 if k else 4, **style)
