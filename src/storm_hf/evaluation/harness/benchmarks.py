"""The four benchmarks: their tasks in lmms-eval, and where these look for questions and videos.

Sizes are those of the published data sets; a progress bar reads them, nothing else.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from storm_hf.errors import ConfigurationError, DatasetError


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as lmms-eval has it.

    Args:
        repository (`str`):
            Data set on the Hub; below the data root, the folder of the questions.
        videos (`str`):
            Folder of the videos below the data root.
        tasks (`dict[str, int]`):
            Number of questions of each task.
        revision (`str`, *optional*):
            Revision of the data set.
    """

    repository: str
    videos: str
    tasks: dict[str, int]
    revision: str | None = None

    def command(self, root: Path) -> str:
        """The command that gets the data."""
        at = f" --revision {self.revision}" if self.revision else ""
        return f"hf download {self.repository} --repo-type dataset{at} --local-dir {root / self.repository}"

    def check(self, root: Path) -> None:
        """Make sure that questions and videos are there.

        Raises:
            DatasetError: If they are not; the message is the command that gets them.
        """
        for folder, content in ((root / self.repository, "questions"), (root / self.videos, "videos")):
            if not (folder.is_dir() and any(folder.iterdir())):
                raise DatasetError(
                    f"The {content} of {self.repository} are not in {folder}. Get them with: {self.command(root)} and unpack its "
                    f"archives into {root / self.videos}."
                )


_MVBENCH = (
    "action_sequence",
    "moving_count",
    "action_prediction",
    "episodic_reasoning",
    "action_antonym",
    "action_count",
    "scene_transition",
    "object_shuffle",
    "object_existence",
    "fine_grained_pose",
    "unexpected_action",
    "moving_direction",
    "state_change",
    "object_interaction",
    "character_order",
    "action_localization",
    "counterfactual_inference",
    "fine_grained_action",
    "moving_attribute",
    "egocentric_navigation",
)

BENCHMARKS = {
    "videomme": Benchmark("lmms-eval/Video-MME", "videomme", {"videomme": 2700}),
    "videomme_w_subtitle": Benchmark("lmms-eval/Video-MME", "videomme", {"videomme_w_subtitle": 2700}),
    "mvbench": Benchmark(
        "OpenGVLab/MVBench", "mvbench_video", {f"mvbench_{name}": 200 for name in _MVBENCH}, revision="video"
    ),
    "tempcompass": Benchmark(
        "lmms-eval/TempCompass",
        "tempcompass",
        {
            "tempcompass_multi_choice": 1580,
            "tempcompass_yes_no": 2453,
            "tempcompass_caption_matching": 1503,
            "tempcompass_captioning": 2004,
        },
    ),
    "mmvu": Benchmark("lmms-eval/MMVU", "mmvu", {"mmvu_val": 1000}),
}
_BENCHMARK_OF = {task: name for name, benchmark in BENCHMARKS.items() for task in benchmark.tasks}


def tasks_of(names: Iterable[str]) -> list[str]:
    """Tasks of lmms-eval for names of benchmarks or of tasks, each once, in the order given.

    Raises:
        ConfigurationError: If a name is neither.
    """
    tasks: dict[str, None] = {}
    for name in names:
        if name in BENCHMARKS:
            tasks.update(dict.fromkeys(BENCHMARKS[name].tasks))
        elif name in _BENCHMARK_OF:
            tasks[name] = None
        else:
            raise ConfigurationError(
                f"There is no benchmark {name!r}; expected {', '.join(BENCHMARKS)}, or a task of lmms-eval in one of them, such "
                "as mvbench_action_sequence."
            )
    return list(tasks)


def benchmark_of(task: str) -> Benchmark:
    """The benchmark that a task belongs to."""
    return BENCHMARKS[_BENCHMARK_OF[task]]


def num_questions(task: str, limit: int | None = None) -> int:
    """Number of questions that are asked of a task."""
    size = benchmark_of(task).tasks[task]
    return size if limit is None else min(size, limit)
