"""The commands that are put under faults: each writes `Place.out`, and what it leaves there can be compared."""

import re
import runpy
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from tests.faults import hub
from tests.faults.files import Hashes, files_of, final_models, finished_files, hash_of, models_of
from tests.faults.place import Place

from storm_hf.atomic import write_atomically


ROOT = Path(__file__).parents[2]
_TIME_OF_DIAGNOSIS = re.compile(r'"seconds": [\d.]+\b|<dt>Time</dt><dd>[^<]+</dd>')


@dataclass(frozen=True)
class Command:
    """A command of a user.

    Args:
        name (`str`):
            What the table calls it.
        work (`Callable[[Place], None]`):
            What it does, in a process of its own.
        result (`Callable[[Path], Hashes]`):
            Of the folder that it wrote to its end: what every such run has in common.
        finished (`Callable[[Path], Hashes]`):
            Of the folder of an interrupted run: all that readers would take for finished.
        reads (`str`):
            Name of the folder that is away in faults of that kind.
        begins_with (`str`, *optional*):
            Name of a folder that is copied into the one that is written.
        before (`Callable[[Place], None]`, *optional*):
            What is done before, without a fault.
        writes (`str`, *optional*, defaults to `"out"`):
            The folder below the root that fills up.
    """

    name: str
    work: Callable[[Place], None]
    result: Callable[[Path], Hashes]
    finished: Callable[[Path], Hashes]
    reads: str
    begins_with: str | None = None
    before: Callable[[Place], None] | None = None
    writes: str = "out"


def script(path: str, *words: object) -> None:
    """Run a script as a user does."""
    sys.argv = [path, *map(str, words)]
    runpy.run_path(str(ROOT / path), run_name="__main__")


def storm(*words: object) -> None:
    """Run a command of `storm`."""
    from storm_hf.cli import main

    sys.argv = ["storm", *map(str, words)]
    main()


def build(place: Place) -> None:
    """Build a data set of thoughts from annotations."""
    storm("build", place.read("build.yaml"), "--out", place.out)


def build_with_decord(place: Place) -> None:
    """Build it with a decoder in a process of its own."""
    recipe = place.read("build with decord.yaml")
    if place.hanging_library.exists():
        sys.path.insert(0, str(place.hanging_library.parent))
    storm("build", recipe, "--out", place.out)


def worlds(place: Place) -> None:
    """Build a data set of a world."""
    storm("build", place.read("worlds.yaml"), "--out", place.out)


def align(place: Place) -> None:
    """Train Stage I."""
    script("trainers/align.py", "--config", place.read("align.yaml"))


def answer(place: Place) -> None:
    """Train Stage II."""
    script("trainers/answer.py", "--config", place.read("answer.yaml"))


def run(place: Place) -> None:
    """Train both stages by one command."""
    script("trainers/run.py", "--config", place.read("run.yaml"))


def demo(place: Place) -> None:
    """Run the demo, in small."""
    from tests.end_to_end.mini_demo import mini_recipe

    from storm_hf.cli.errors import ends_in_one_line
    from storm_hf.demo import run_demo

    with ends_in_one_line("storm demo"):
        run_demo(place.out, recipe=mini_recipe())


def imagine(place: Place) -> None:
    """Draw latents."""
    given = ("--model", place.out / "storm", "--dataset", place.read("data"), "--out", place.out / "pages")
    storm("imagine", *given, "--updates", 3, "--rows", 3, "--scenes", 1)


def diagnose(place: Place) -> None:
    """Test the use of latents."""
    given = ("--model", place.read("storm"), "--dataset", place.read("data"), "--out", place.out)
    storm("diagnose", *given, "--limit", 4)


def ask(place: Place) -> None:
    """Ask about a clip; the answer is written down, as a shell does."""
    place.out.mkdir(exist_ok=True)
    with (place.out / "answer.txt").open("w") as file, redirect_stdout(file):
        storm("ask", place.read("asked") / "clip.mp4", "where is the ball ?", "--model", place.read("storm"))


def push_data(place: Place) -> None:
    """Publish a data set."""
    storm("push", place.read("published"), "me/thoughts")


def push_model(place: Place) -> None:
    """Publish a checkpoint."""
    storm("push", place.read("checkpoint"), "me/storm")


def pull(place: Place) -> None:
    """Load the published data set as training does, and note its rows."""
    from storm_hf.training.loading import load_rows

    rows = load_rows("me/thoughts")["train"]
    write_atomically(place.out / "rows.txt", "\n".join(rows["id"]))


def results_of_demo(folder: Path) -> Hashes:
    """Weights of the demo's model, and the answers that its arms gave."""
    arms = {f"arms/{path.parent.name}": path for path in folder.glob("arms/*/results.json")}
    return {**final_models(folder / "storm"), **{name: _without_times(path) for name, path in arms.items()}}


def _without_times(path: Path) -> str:
    """The accuracy that an arm reached; what it took depends on the machine."""
    from storm_hf.atomic import read_json

    return str(read_json(path)["accuracy"])


def whole_results_of_demo(folder: Path) -> Hashes:
    """Arms that are finished, and weights wherever there are some."""
    arms = {f"arms/{path.parent.name}": _without_times(path) for path in folder.glob("arms/*/results.json")}
    model = {} if not (folder / "done" / "4_train").exists() else final_models(folder / "storm")
    return {**arms, **model}


def diagnosis_without_time(folder: Path) -> Hashes:
    """Everything but the seconds that the diagnosis took, in the record and on its page."""
    found = files_of(folder)
    for name in {"diagnosis.json", "diagnosis.html"} & set(found):
        text, count = _TIME_OF_DIAGNOSIS.subn("", (folder / name).read_text(encoding="utf-8"))
        found[name] = hash_of(text.encode()) if count == 1 else f"{count} times"
    return found


def nothing(folder: Path) -> Hashes:
    """Take no file for finished: a shell opens the file of an answer before there is one."""
    return {}


COMMANDS = {
    command.name: command
    for command in (
        Command("build", build, files_of, finished_files, "clips"),
        Command("build with decord", build_with_decord, files_of, finished_files, "clips"),
        Command("worlds", worlds, files_of, finished_files, "base"),
        Command("align", align, final_models, models_of, "thoughts"),
        Command("answer", answer, final_models, models_of, "thoughts"),
        Command("run", run, models_of, models_of, "thoughts"),
        Command("demo", demo, results_of_demo, whole_results_of_demo, "base"),
        Command("imagine", imagine, files_of, finished_files, "data", "storm"),
        Command("diagnose", diagnose, diagnosis_without_time, diagnosis_without_time, "data"),
        Command("ask", ask, files_of, nothing, "asked"),
        Command("push data", push_data, hub.published_once, hub.published, "published"),
        Command("push model", push_model, hub.published_once, hub.published, "checkpoint"),
        Command("pull", pull, hub.pulled, hub.pulled, "published", before=push_data, writes="hf"),
    )
}
