"""Run directories that survive kills, damage and full disks: what they hold, who writes them and how they are read."""

from rnnjax.runs.checkpoints import latest_checkpoint, read_checkpoint, save_checkpoint
from rnnjax.runs.directories import (
    RunBusy,
    check_directory,
    check_own_directory,
    check_plot_file,
    check_report_file,
    own_directory,
)
from rnnjax.runs.ending import (
    EXIT_BAD_FLAGS,
    EXIT_DONE,
    EXIT_ERROR,
    EXIT_STOPPED,
    RunFailed,
    StopRequest,
    stop_signals,
)
from rnnjax.runs.files import RunRefused, json_text, load_arrays, save_arrays, write_file, write_json
from rnnjax.runs.identity import read_config
from rnnjax.runs.metric_log import append_rows, read_rows
from rnnjax.runs.results import finished_run, load_params, read_result, save_params
from rnnjax.runs.run import (
    Run,
    check_sources,
    close_run,
    discard_run,
    lengthen_run,
    open_run,
    publish_run,
    remove_run,
)

__all__ = [
    "EXIT_BAD_FLAGS",
    "EXIT_DONE",
    "EXIT_ERROR",
    "EXIT_STOPPED",
    "Run",
    "RunBusy",
    "RunFailed",
    "RunRefused",
    "StopRequest",
    "append_rows",
    "check_directory",
    "check_own_directory",
    "check_plot_file",
    "check_report_file",
    "check_sources",
    "close_run",
    "discard_run",
    "finished_run",
    "json_text",
    "latest_checkpoint",
    "lengthen_run",
    "load_arrays",
    "load_params",
    "open_run",
    "own_directory",
    "publish_run",
    "read_checkpoint",
    "read_config",
    "read_result",
    "read_rows",
    "remove_run",
    "save_arrays",
    "save_checkpoint",
    "save_params",
    "stop_signals",
    "write_file",
    "write_json",
]
