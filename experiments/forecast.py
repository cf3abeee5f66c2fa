"""What a trained network expects after the end of its series, as a table and a figure.

    python experiments/forecast.py --workdir=runs/temperature --steps=48
    python experiments/forecast.py --workdir=runs/sales --csv=new_sales.csv --steps=90 --out=forecasts

Writes forecast.csv and forecast.png into --out, by default the run's directory. With --csv the forecast goes on from
the end of that file, which has the columns that the network was trained on.
"""

import csv
import io
from pathlib import Path

from absl import flags
from command_line import BadSetting, define_config, define_path, load_config, main_with_errors

import rnnjax
from rnnjax import runs
from rnnjax.figures import task_plots
from rnnjax.training import outputs
from rnnjax.training.devices import prepare_devices
from rnnjax.training.settings import checked
from rnnjax.types import Forecast


def main(_) -> int:
    workdir = WORKDIR.value
    if not workdir:
        raise BadSetting("--workdir is missing; allowed: the directory of a finished run, such as --workdir=runs/x")
    load_config()  # its file may hold the run's cell
    try:
        if OUT.value:
            runs.check_own_directory(OUT.value, "forecast")
        for name in ("config.json", "params.npz"):
            if not Path(workdir, name).is_file():
                raise ValueError(f"{Path(workdir, name)} is missing; allowed: the directory of a finished run")
        prepare_devices(checked(outputs.trained_config(workdir)))
        forecast = rnnjax.load(workdir).forecast(STEPS.value, CSV.value)
    except (ValueError, TypeError) as error:
        raise BadSetting(str(error)) from error
    out = runs.own_directory(OUT.value, "forecast") if OUT.value else Path(workdir)
    runs.write_file(out / "forecast.csv", as_csv(forecast))
    task_plots.draw(task_plots.forecast_plot(*forecast), out / "forecast.png")
    ends = ", ".join(f"{name} {values[-1]:.5g}" for name, values in forecast.values.items())
    print(f"{len(forecast.times)} steps after {forecast.past_times[-1]}; at {forecast.times[-1]}: {ends}")
    print(f"wrote {out / 'forecast.csv'} and {out / 'forecast.png'}")
    return runs.EXIT_DONE


def as_csv(forecast: Forecast) -> str:
    """A forecast as a table: a row a step, its time and what is expected."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["time", *forecast.values])
    columns = [[f"{value:.9g}" for value in values] for values in forecast.values.values()]
    writer.writerows(zip(forecast.times, *columns, strict=True))
    return file.getvalue()


if __name__ == "__main__":
    define_config()
    WORKDIR = define_path("workdir", None, "a finished run of a task that forecasts")
    CSV = define_path("csv", None, "a newer file with the same columns, to go on from its end")
    OUT = define_path("out", None, "the directory to write into; by default the run's own")
    STEPS = flags.DEFINE_integer("steps", 48, "how many steps to forecast", lower_bound=1)
    main_with_errors(main)
