"""`storm evaluate`: every variant on every task, each finished pair once.

RUN/fingerprint.json                       what the run was made with
RUN/storm/storm_samples_videomme.jsonl     the samples of a finished pair
RUN/storm/storm_results_videomme.json      lmms-eval's own numbers for it
RUN/storm/answers-0.jsonl                  the answers so far, a file for each process
RUN/storm/lmms_eval.log                    what lmms-eval printed, of a second process lmms_eval-1.log
"""

import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from huggingface_hub import constants

from storm_hf.checkpoints.loading import is_storm, place_of
from storm_hf.errors import CheckpointError, ConfigurationError, StageError
from storm_hf.evaluation.harness.benchmarks import benchmark_of, describe_weights, num_questions, resolve_commit
from storm_hf.evaluation.harness.launch import are_running, failed_rank, log_file, started_together
from storm_hf.evaluation.harness.settings import WITHOUT_EFFECT
from storm_hf.evaluation.harness.task_process import FAILED, SENTENCE, VariantTasks, samples_file
from storm_hf.optional import require
from storm_hf.pipeline.workspace import claim
from storm_hf.settings import PositiveInt, check_values
from storm_hf.video.library_backends import other_backend


Variant = Literal["storm", "direct", "cot"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
_LOOK_EVERY_SECONDS = 0.5
_RETRIED = "tenacity.RetryError"
_WRAPPED = "The above exception was the direct cause of the following exception:"
_RAISED = re.compile(r"[\w.]+(Error|Exception|NotFound): ")
_NO_NETWORK = re.compile("ConnectError|ConnectionError|LocalEntryNotFound|OfflineMode")


@dataclass(frozen=True)
class EvaluationRun:
    """A model, the variants in which it answers, and the tasks.

    Args:
        model (`str`):
            A STORM, an adapter's folder or, without the variant `storm`, a plain checkpoint.
        tasks (`tuple[str, ...]`):
            Tasks of lmms-eval; see `tasks_of`.
        out (`Path`):
            Folder of the run.
        variants (`tuple[str, ...]`, *optional*, defaults to `("storm", "direct")`):
            `storm` thinks in latents; `direct` answers at once and `cot` reasons in words, both without latents. Nothing else
            differs between them.
        backbone (`str`, *optional*):
            The checkpoint of `direct` and `cot`, by default `model`.
        data_root (`Path`, *optional*):
            A local copy of the benchmarks, laid out as lmms-eval looks for them. Without it they are had from the Hub.
        limit (`int`, *optional*):
            Questions per task.
        revision (`str`, *optional*):
            Branch, tag or commit of `model`. It is resolved once: a run belongs to a commit.
        backbone_revision (`str`, *optional*):
            The same of `backbone`.
        settings (`Mapping[str, Any]`, *optional*):
            Further arguments of [`~storm_hf.evaluation.harness.settings.ChatSettings`] for all variants; `num_latents` is that of the variant
            `storm`.
        num_processes (`int`, *optional*, defaults to `1`):
            Processes that share the questions, one for each GPU. The report is that of one, whatever their number, which may be
            another one when a run goes on.
    """

    model: str
    tasks: tuple[str, ...]
    out: Path
    variants: tuple[Variant, ...] = ("storm", "direct")
    backbone: str | None = None
    data_root: Path | None = None
    limit: int | None = None
    settings: Mapping[str, Any] | None = None
    revision: str | None = None
    backbone_revision: str | None = None
    num_processes: PositiveInt = 1

    def __post_init__(self) -> None:
        check_values(self, ["num_processes"])
        if self.num_processes > 1 and (self.settings or {}).get("device_map") is not None:
            raise ConfigurationError(
                f"`device_map` spreads one model over the devices, of which {self.num_processes} processes need one each. Leave it "
                "out, or set num_processes=1."
            )

    def arguments(self, variant: Variant) -> dict[str, Any]:
        """Settings of the chat model for one variant."""
        shared = {name: value for name, value in (self.settings or {}).items() if value is not None}
        is_backbone = variant != "storm" and self.backbone is not None
        checkpoint = self.backbone if is_backbone else self.model
        revision = place_of(self.backbone_revision if is_backbone else self.revision)
        if variant == "storm":
            return {**shared, "pretrained": checkpoint, **revision}
        own = {"num_latents": 0, "prompt": "cot" if variant == "cot" else "direct", "latents": "own"}
        return {**shared, **own, "pretrained": checkpoint, **revision}

    def bound(self) -> "EvaluationRun":
        """The same run of a commit of each model, whatever is pushed later.

        Raises:
            CheckpointError: If there is no such model or revision.
        """
        if self.backbone is None and self.backbone_revision is not None:
            raise ConfigurationError(
                "A revision of the backbone is given, but no backbone. Name it, or leave both out."
            )
        backbone = None if self.backbone is None else resolve_commit(self.backbone, self.backbone_revision)
        return replace(self, revision=resolve_commit(self.model, self.revision), backbone_revision=backbone)

    def folder(self, variant: Variant) -> Path:
        """Folder of a variant."""
        return self.out.resolve() / variant

    def pending(self, variant: Variant) -> tuple[str, ...]:
        """The tasks that a variant has not finished."""
        return tuple(task for task in self.tasks if not samples_file(self.folder(variant), variant, task).exists())


def evaluate(run: EvaluationRun, on_progress: Callable[[Variant, int, int], None] | None = None) -> None:
    """Run what is not finished.

    Args:
        run ([`EvaluationRun`]):
            Settings of the run.
        on_progress (`Callable[[str, int, int], None]`, *optional*):
            Called again and again with a variant, the number of its answers, and how many there will be.

    Raises:
        DependencyError: If lmms-eval is not installed.
        ConfigurationError: If a variant is unknown, or there is nothing to do.
        DatasetError: If data are missing; the message says how to get them.
        StaleWorkError: If the folder holds a run with other settings.
        StageError: If lmms-eval fails; the message names its log.
    """
    if find_spec("lmms_eval") is None:
        require("lmms_eval")
    run = run.bound()
    _check(run)
    for variant in run.variants:
        claim(run.out, variant, _parameters(run, variant))
    for variant in run.variants:
        if run.pending(variant):
            _run_variant(run, variant, on_progress or _nothing)


def _parameters(run: EvaluationRun, variant: Variant) -> dict[str, Any]:
    """Everything on which the answers of a variant depend."""
    arguments = run.arguments(variant)
    known = {name: value for name, value in arguments.items() if name not in WITHOUT_EFFECT}
    decoder = other_backend(known.pop("video_backend", None) or "auto")
    weights = describe_weights(arguments["pretrained"], arguments.get("revision"))
    return {**known, **decoder, **weights, "limit": run.limit}


def _check(run: EvaluationRun) -> None:
    if unknown := [variant for variant in run.variants if variant not in VARIANTS]:
        raise ConfigurationError(f"There is no variant {unknown[0]!r}; expected some of {', '.join(VARIANTS)}.")
    if not run.variants or not run.tasks:
        raise ConfigurationError("Expected at least one variant and one task.")
    if "storm" in run.variants:
        _check_thinks(run.model, run.revision)
    if run.data_root is not None and any(run.pending(variant) for variant in run.variants):
        for task in run.tasks:
            benchmark_of(task).check(run.data_root)


def _check_thinks(model: str, revision: str | None) -> None:
    if not is_storm(model, revision):
        raise CheckpointError(
            f"{model} is a plain checkpoint, which cannot be the variant `storm`. Evaluate it with --variant direct --variant cot."
        )


def _run_variant(run: EvaluationRun, variant: Variant, on_progress: Callable[[Variant, int, int], None]) -> None:
    folder = run.folder(variant)
    folder.mkdir(parents=True, exist_ok=True)
    root = (run.data_root or run.out).resolve()
    arguments = {**run.arguments(variant), "answers": str(folder)}
    work = VariantTasks(variant, run.pending(variant), arguments, str(folder), str(root), run.limit)
    total = sum(num_questions(task, run.limit) for task in run.tasks)
    command = [sys.executable, "-P", "-m", "storm_hf.evaluation.harness.task_process", work.to_json()]
    with started_together(command, run.num_processes, folder, _environment(run)) as processes:
        while are_running(processes):
            on_progress(variant, min(_num_answers(folder), total), total)
            time.sleep(_LOOK_EVERY_SECONDS)
        failed = failed_rank(processes)
    on_progress(variant, min(_num_answers(folder), total), total)
    if failed is not None:
        exit_code = processes[failed].returncode
        raise StageError(_why(log_file(folder, failed), exit_code), exit_code)


def _environment(run: EvaluationRun) -> dict[str, str]:
    """Environment of a task's process: cached data of its own, models and tokens where they were before.

    A task of TempCompass does not load where HF_HOME is unset.
    """
    home = run.data_root.resolve() if run.data_root else Path(constants.HF_HOME)
    found = {"HF_HUB_CACHE": constants.HF_HUB_CACHE, "HF_TOKEN_PATH": constants.HF_TOKEN_PATH, "HF_HOME": str(home)}
    if run.data_root:
        found["HF_DATASETS_CACHE"] = str(run.out.resolve() / ".datasets")  # the copy may be read only
    return {**os.environ, **found, "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}


def _num_answers(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("answers-*.jsonl"))


def _why(log: Path, exit_code: int) -> str:
    """The sentence with which the process ended, or where to look for one."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    sentences = [line.removeprefix(SENTENCE) for line in lines if line.startswith(SENTENCE)]
    if exit_code == FAILED and sentences:
        return sentences[-1]  # a progress bar may write after it
    cause = _cause(lines)
    hint = " Where there is no network, name a copy of the data with --data-root." if _NO_NETWORK.search(cause) else ""
    return f"lmms-eval ended with code {exit_code}: {cause}.{hint} All that it printed is in {log}."


def _cause(lines: list[str]) -> str:
    """Original error, unwrapped from the error of retrying."""
    if lines and lines[-1].startswith(_RETRIED) and _WRAPPED in lines:
        inner = lines[: len(lines) - 1 - lines[::-1].index(_WRAPPED)]
        lines = [line for line in inner if _RAISED.match(line)] or lines
    return (lines or ["it said nothing"])[-1].rstrip(".")


def _nothing(variant: Variant, done: int, total: int) -> None:
    """Show no progress."""
