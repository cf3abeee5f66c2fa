"""Settings on the command line: --config=FILE and --config.NAME=VALUE, and one line for whatever is wrong with them.

The options of the chosen cell and task are --config.cell.NAME and --config.task.NAME: which these are is known once
--config, --config.cell and --config.task are, so they become flags just before the command line is parsed.
"""

import contextlib
import itertools
import os
import sys
import typing

from absl import app, flags

from rnnjax import runs
from rnnjax.training import config as configs
from rnnjax.training.config import FIELDS, OWNERS, known_options, unknown_setting
from rnnjax.training.devices import set_numerics
from rnnjax.training.dotted import with_fitting_options, with_settings
from rnnjax.training.options import REQUIRED
from rnnjax.training.refusals import BadSetting, nearest
from rnnjax.training.settings import allowed_values, checked, config_of_file, parse_setting, setting_of

flags.disclaim_key_flags()  # --helpshort then lists the settings as the launcher's own
for _flag in flags.FLAGS.flags_by_module_dict().get("absl.app", []):
    delattr(
        flags.FLAGS, _flag.name
    )  # --only_check_args, --pdb, ...: `app.run` obeys them, and `main_with_errors` is none


def define_config(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines --config and a --config.NAME for every field of `Config`."""
    file_help = "a Python file with get_config() -> rnnjax.Config; the defaults below if not given"
    define_path("config", None, file_help, flag_values)
    for name in FIELDS:
        _define_setting(name, configs.DEFAULTS, flag_values)


def define_options(argv: list[str], flag_values: flags.FlagValues = flags.FLAGS) -> configs.Config:
    """Defines a --config.cell.NAME and --config.task.NAME for each option of the cell and task that `argv` chooses.

    Returns the config that names these.
    """
    named = {kind: name for kind in OWNERS if (name := _last(argv, f"config.{kind}")) is not None}
    chosen = _chosen(_last(argv, "config"), named, flag_values)
    for kind in OWNERS:
        for name in known_options(chosen, kind):
            if f"config.{kind}.{name}" not in flag_values:
                _define_setting(f"{kind}.{name}", chosen, flag_values)
    return chosen


def define_path(name: str, default: str | None, help_: str, flag_values: flags.FlagValues = flags.FLAGS):
    """Defines a flag for a file or directory; `~` is the user's home, whichever way the shell passed it on."""
    return flags.DEFINE(_PathParser(), name, default, help_, flag_values)


def define_paths(name: str, help_: str, flag_values: flags.FlagValues = flags.FLAGS):
    """Defines a flag for paths, given one by one or between commas; a comma in a path that is there belongs to it."""
    flag = _PathsFlag(_PathParser(), flags.ArgumentSerializer(), name, None, help_)
    return flags.DEFINE_flag(flag, flag_values)


def load_config(flag_values: flags.FlagValues = flags.FLAGS) -> configs.Config:
    """The config of the file --config, or the defaults, with every --config.NAME=VALUE put in. Raises BadSetting.

    Options of the file's cell go where --config.cell names one that does not have them; so with the task.
    """
    given = given_settings(flag_values)
    named = {kind: given[kind] for kind in OWNERS if kind in given}
    return checked(with_settings(_chosen(flag_values["config"].value, named, flag_values), given))


def given_settings(flag_values: flags.FlagValues = flags.FLAGS) -> dict[str, object]:
    """What was given as --config.NAME=VALUE, by name."""
    names = [name.removeprefix("config.") for name in flag_values if name.startswith("config.")]
    given = {name: flag_values[f"config.{name}"] for name in names}
    return {name: flag.value for name, flag in given.items() if not flag.using_default_value}


def main_with_errors(
    main, argv: list[str] | None = None, flag_values: flags.FlagValues = flags.FLAGS
) -> typing.NoReturn:
    """Parses the flags, calls `main(argv)` and exits with what it returns (None: 0).

    Bad flags and settings, and a run directory that cannot be used, are one line on stderr and exit code 2; a
    directory in use, a full disk or another failing file is one line and 1; Ctrl-C is 75. A bug keeps its traceback.
    `absl.app.run` would print the usage too, exit with 1, and turn on the INFO messages of every library.
    """
    _open_streams()
    set_numerics()  # already a config is checked by shapes and dtypes
    try:
        sys.exit(main(_parse_flags(sys.argv if argv is None else argv, flag_values)))
    except (BadSetting, flags.Error, app.UsageError, runs.RunRefused) as error:
        _fail(error, runs.EXIT_BAD_FLAGS)
    except (runs.RunBusy, runs.RunFailed) as error:
        _fail(error, runs.EXIT_ERROR)
    except OSError as error:
        named = error.strerror and error.filename is not None
        _fail(f"{os.fsdecode(error.filename)}: {error.strerror}" if named else error, runs.EXIT_ERROR)
    except KeyboardInterrupt:
        _fail("interrupted", runs.EXIT_STOPPED)


class _SettingParser(flags.ArgumentParser):
    def __init__(self, name, config):
        self.name, self.config, self.setting = name, config, setting_of(name, config)
        default = "" if self.setting.default is REQUIRED else f"; default: {_shown(self.setting.default)}"
        self.syntactic_help = f"{allowed_values(self.setting)}{default}"

    def parse(self, argument):
        return parse_setting(self.name, argument, within=(self.config,))

    def flag_type(self):
        return allowed_values(self.setting)


class _PathParser(flags.ArgumentParser):
    syntactic_help = "a path"

    def parse(self, argument):
        return os.path.expanduser(argument)


class _PathsFlag(flags.MultiFlag):
    def _parse(self, arguments):
        texts = [arguments] if isinstance(arguments, str) else arguments
        return [path for text in texts or () for path in _split_paths(text)]


def _split_paths(text):
    """The longest runs of pieces between commas that are paths there are; a piece that is none stands alone."""
    pieces, paths = text.split(","), []
    while pieces:
        joined = [os.path.expanduser(",".join(pieces[:n])) for n in range(len(pieces), 0, -1)]
        path = next((path for path in joined if os.path.exists(path)), joined[-1])
        paths.append(path)
        del pieces[: len(pieces) - joined.index(path)]
    return [path for path in paths if path]


def _define_setting(name, config, flag_values):
    parser = _SettingParser(name, config)
    doc = parser.setting.doc + " [traced]" * parser.setting.traced
    flags.DEFINE(parser, f"config.{name}", None, doc, flag_values=flag_values)


def _chosen(file, named, flag_values):
    """The config of the file, which is run once, with the cell and task that flags name."""
    flag = flag_values["config"]
    if file is None:
        return with_settings(configs.Config(), named)
    path = os.path.expanduser(file)
    if getattr(flag, "loaded", ("", None))[0] != path:
        flag.loaded = path, config_of_file(path)
    config = flag.loaded[1]
    chosen = with_settings(config, named)
    return with_fitting_options(chosen, [kind for kind in named if getattr(chosen, kind) != getattr(config, kind)])


def _last(argv, name):
    """The value that the command line gives to a flag last, None if none."""
    value = None
    for argument, following in itertools.zip_longest(argv, argv[1:]):
        if argument == "--":
            break
        flag, equals, text = argument.partition("=")
        if flag in (f"--{name}", f"-{name}"):
            value = text if equals else following
    return value


def _open_streams():
    """Prints whatever a terminal or a name may hold, and into nothing where a stream was closed: no run ends for it."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            with contextlib.suppress(OSError):
                while os.open(os.devnull, os.O_RDWR) < number:  # else the next file to be opened is the stream
                    pass
            setattr(sys, name, open(os.devnull, "w", errors="backslashreplace"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _parse_flags(argv, flag_values):
    app.define_help_flags()
    argv = flag_values.read_flags_from_files(argv, force_gnu=False)
    chosen = define_options(argv, flag_values) if "config" in flag_values else None
    try:
        rest = flag_values(argv)
    except flags.IllegalFlagValueError as error:
        # absl puts its own name of the flag before the one line of ours.
        raise error.__context__ if isinstance(error.__context__, BadSetting) else error from None
    except flags.UnrecognizedFlagError as error:
        raise BadSetting(_unknown_flag(error.flagname, flag_values, chosen)) from None
    except SystemExit:
        sys.exit(runs.EXIT_DONE)  # --help, which absl ends with 1
    if len(rest) > 1:
        raise BadSetting(f"unexpected argument {rest[1]!r}; allowed: --NAME=VALUE, see --helpshort")
    return rest


def _unknown_flag(name, flag_values, chosen):
    group, _, setting = name.partition(".")
    if chosen is not None and group == "config":
        kind = setting.partition(".")[0]
        if kind in OWNERS and not known_options(chosen, kind):
            checked(chosen)  # raises, where it has no options as there is none of that name
        return unknown_setting(setting, chosen)
    if chosen is not None and (name in FIELDS or group in OWNERS):
        return f"unknown flag --{name}; did you mean '--config.{name}'?"
    known = [f"--{other}" for other in flag_values if not other.startswith("config.")]
    return f"unknown flag --{name}{nearest(f'--{name}', known) or '; see --helpshort'}"


def _shown(value):
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _fail(error, code):
    line = " ".join(str(error).split())
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    print(f"error: {printable}", file=sys.stderr)
    sys.exit(code)
