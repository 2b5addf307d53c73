# /// script
# dependencies = ["storm-hf[train]"]
# ///
"""A run of several stages as one command: Stage I, Stage II, reinforcement, or any other curriculum.

    python trainers/run.py --config trainers/recipes/worlds_tiny_run.yaml \
        --model_name_or_path runs/demo/base --dataset_name runs/demo/data

`storm run` is the same.

Each stage is a process of its own, `accelerate launch trainers/align.py` or its like, which starts from what the one before
it saved. Ctrl-C finishes the running step, saves and stops; the same command goes on there, and repeats nothing. Other
arguments replace those of all stages, and what comes after `--` is for `accelerate launch`, on each machine its own:

    python trainers/run.py --config RECIPE --output_dir runs/mine -- \
        --config_file trainers/accelerate/zero3.yaml --num_machines 2 --machine_rank 1 --main_process_ip 10.0.0.1
"""

import sys
from functools import partial
from pathlib import Path

import typer

from storm_hf.curriculum.launch import AccelerateLauncher, RunCommand
from storm_hf.curriculum.recipe import RunRecipe
from storm_hf.curriculum.run import StagedRun
from storm_hf.errors import StormError


say = partial(typer.echo, err=True)


def main(arguments: list[str]) -> None:
    """Run the stages that are not finished."""
    command = RunCommand.parse(arguments, description=__doc__)
    recipe = RunRecipe.read(command.config, command.overrides)
    launch = AccelerateLauncher(Path(__file__).parent, command.launch_arguments)

    folder = StagedRun(recipe, launch, say).run()

    say(f"The last checkpoint is {folder}.")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except StormError as error:
        say(f"{Path(sys.argv[0]).name}: {error}")
        sys.exit(getattr(error, "exit_code", 2))
    except KeyboardInterrupt:
        say(f"{Path(sys.argv[0]).name}: Interrupted. The same command goes on where it stopped.")
        sys.exit(130)
