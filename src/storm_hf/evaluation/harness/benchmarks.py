"""The benchmarks: their tasks in lmms-eval, the places of their questions and videos, and the state of the checkpoint.

Sizes are those of the published data sets; a progress bar reads them, nothing else.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

from storm_hf.checkpoints.adapter import find_adapter
from storm_hf.checkpoints.loading import check_place
from storm_hf.errors import CheckpointError, ConfigurationError, DatasetError, first_line


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


_CONFIGS = ("config.json", "adapter_config.json")


def resolve_commit(name_or_path: str, revision: str | None = None) -> str | None:
    """Look up the commit that a branch, a tag or nothing stands for, so that all of a run loads the same weights.

    Args:
        name_or_path (`str`):
            A folder or a name on the Hub.
        revision (`str`, *optional*):
            Branch, tag or commit; by default the main branch.

    Returns:
        `str` or `None`: The commit, that of the cached snapshot where the Hub cannot be reached; `None` for a folder.

    Raises:
        CheckpointError: If a folder is given with a revision, there is no such folder, model or revision, or neither Hub nor
            cache knows it.
    """
    check_place(name_or_path)
    if Path(name_or_path).exists():
        if revision is not None:
            raise CheckpointError(
                f"{name_or_path} is a folder, which has no revision {revision!r}. Leave the revision out."
            )
        return None
    try:
        return HfApi().model_info(name_or_path, revision=revision).sha
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{name_or_path} has no revision {revision!r} on the Hub.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise CheckpointError(
            f"There is no model folder {name_or_path}, and the Hub knows no model of that name, or not for this token."
        ) from error
    except (HfHubHTTPError, OSError) as error:  # no network, offline, or a server in trouble
        return _cached_commit(name_or_path, revision, first_line(error))


def describe_weights(name_or_path: str, revision: str | None = None) -> dict[str, Any]:
    """Tell one state of a checkpoint's weights from another, those of an adapter's base included.

    Args:
        name_or_path (`str`):
            A folder or a name on the Hub.
        revision (`str`, *optional*):
            The commit, of a name.

    Returns:
        `dict[str, Any]`: `weights`, see [`weights_stamp`]; of an adapter also `base_weights`.
    """
    state: dict[str, Any] = {"weights": weights_stamp(name_or_path)}
    adapter = find_adapter(name_or_path, **({} if revision is None else {"revision": revision}))
    if adapter is not None:
        state["base_weights"] = weights_stamp(adapter.base) or resolve_commit(adapter.base, adapter.revision)
    return state


def weights_stamp(name_or_path: str) -> str | None:
    """Tell one state of a folder's weights from another, so that answers of a model trained further are not taken for its own.

    Returns:
        `str` or `None`: Hash of the names, sizes and times of its files; None for a name on the Hub.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        return None
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])
    stamps = [f"{file.name} {(stat := file.stat()).st_size} {stat.st_mtime_ns}" for file in files]
    return sha256("\n".join(stamps).encode()).hexdigest()[:16]


def _cached_commit(name: str, revision: str | None, problem: str) -> str:
    """The commit of the snapshot that was downloaded last for a revision."""
    for file in _CONFIGS:
        found = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(found, str):
            return Path(found).parent.name
    raise CheckpointError(
        f"Expected {name} on the Hub or in the cache, but the Hub cannot be reached ({problem}), and "
        f"{revision or 'its main branch'} is not cached."
    )
