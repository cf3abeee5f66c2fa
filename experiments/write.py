"""What a trained network writes after a prompt.

    python experiments/write.py --workdir=runs/book --prompt="It was" --length=500 --temperature=0.7

Prints the prompt and the text; --out also writes them into a new file. A run under way writes from its last checkpoint.
"""

import sys
from pathlib import Path

from absl import flags
from command_line import BadSetting, define_config, define_path, load_config, main_with_errors

import rnnjax
from rnnjax import runs
from rnnjax.tasks.language import unknown_pieces
from rnnjax.training import outputs
from rnnjax.training.devices import prepare_devices
from rnnjax.training.settings import checked


def main(_) -> int:
    workdir, out, prompt = WORKDIR.value, OUT.value, PROMPT.value
    if not workdir:
        raise BadSetting("--workdir is missing; allowed: the directory of a run, such as --workdir=runs/x")
    if out and (Path(out).exists() or not Path(out).absolute().parent.is_dir()):
        raise BadSetting(f"--out={out}: allowed: a new file, in a directory that is there")
    load_config()  # its file may hold the run's cell
    try:
        if not Path(workdir, "config.json").is_file():
            raise ValueError(f"{Path(workdir, 'config.json')} is missing; allowed: the directory of a run")
        prepare_devices(checked(outputs.trained_config(workdir)))
        run = rnnjax.load(workdir)
        how = {"temperature": TEMPERATURE.value, "top_p": TOP_P.value, "seed": SEED.value}
        written = run.write(prompt, LENGTH.value, **how)
    except (ValueError, TypeError) as error:
        raise BadSetting(str(error)) from error
    if unknown := unknown_pieces(run.train.task.codec, prompt):
        named = outputs.for_terminal(", ".join(map(repr, unknown)))
        print(f"--prompt: the text that the run learned from does not have {named}", file=sys.stderr)
    print(outputs.for_terminal(written))
    if out:
        runs.write_file(out, written.encode(errors="backslashreplace").decode())
    return runs.EXIT_DONE


if __name__ == "__main__":
    define_config()
    WORKDIR = define_path("workdir", None, "a run of a task with a text, finished or under way")
    PROMPT = flags.DEFINE_string("prompt", "", "what to go on from; by default the beginning that the task names")
    LENGTH = flags.DEFINE_integer("length", 500, "how many characters to write", lower_bound=0)
    TEMPERATURE = flags.DEFINE_float("temperature", 0.7, "below 1 prefers what is likely, 0 takes the likeliest")
    TOP_P = flags.DEFINE_float(
        "top_p", 1.0, "below 1 writes only of the likeliest, that have this probability together"
    )
    SEED = flags.DEFINE_integer("seed", 0, "another one, another text", lower_bound=0, upper_bound=2**32 - 1)
    OUT = define_path("out", None, "a new file to write the text into, too")
    main_with_errors(main)
