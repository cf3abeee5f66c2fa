"""Run directories that survive kills, damage and full disks: what they hold, who writes them and how they are read."""

from rnnjax.runs.checkpoints import latest_checkpoint, save_checkpoint
from rnnjax.runs.directories import RunBusy, check_directory, check_own_directory, check_report_file, own_directory
from rnnjax.runs.files import RunRefused, json_text, load_arrays, save_arrays, write_file, write_json
from rnnjax.runs.identity import read_config
from rnnjax.runs.metric_log import append_rows, read_rows
from rnnjax.runs.run import (
    EXIT_BAD_FLAGS,
    EXIT_DONE,
    EXIT_ERROR,
    EXIT_STOPPED,
    Run,
    RunFailed,
    check_sources,
    close_run,
    discard_run,
    finished_run,
    load_params,
    open_run,
    publish_run,
    read_result,
    remove_run,
    save_params,
    stop_signals,
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
    "append_rows",
    "check_directory",
    "check_own_directory",
    "check_report_file",
    "check_sources",
    "close_run",
    "discard_run",
    "finished_run",
    "json_text",
    "latest_checkpoint",
    "load_arrays",
    "load_params",
    "open_run",
    "own_directory",
    "publish_run",
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
