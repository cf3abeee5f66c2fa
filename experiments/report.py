"""One page on many runs: what each cell reached, how surely, with which setting, and where its gradient went.

    python experiments/report.py --runs=runs/s1 --out=runs/s1/report

Reads run directories, or what lies in a sweep or any other parent of them, and writes index.html (one file that loads
nothing), settings.csv (a line for each setting: runs that differ in the seed alone) and runs.csv.
"""

from command_line import BadSetting, define_path, define_paths, main_with_errors

from rnnjax.reports.runs_page import write_report
from rnnjax.runs import EXIT_DONE


def main(_) -> int:
    if not RUNS.value:
        raise BadSetting("--runs is missing; allowed: run or sweep directories, such as --runs=runs/s1,runs/x")
    if not OUT.value:
        raise BadSetting("--out is missing; allowed: a directory for the page, such as --out=runs/s1/report")
    try:
        page = write_report(RUNS.value, OUT.value)
    except ValueError as error:
        raise BadSetting(str(error)) from error
    print(f"wrote {page}, {page.parent / 'settings.csv'} and {page.parent / 'runs.csv'}")
    return EXIT_DONE


if __name__ == "__main__":
    RUNS = define_paths("runs", "run directories, sweeps or parents of them, separated by commas")
    OUT = define_path("out", None, "the directory to write index.html, settings.csv and runs.csv into")
    main_with_errors(main)
