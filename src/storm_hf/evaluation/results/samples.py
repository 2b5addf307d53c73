"""Questions and answers of an lmms-eval 0.7 run: its files `*_samples_<task>.jsonl`, one line per question."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from storm_hf.errors import DatasetError
from storm_hf.evaluation.scorers import Question, QuestionKind


@dataclass(frozen=True)
class Sample:
    """A question and what a model answered.

    Args:
        task (`str`):
            Task of lmms-eval.
        number (`int`):
            Position of the question in its data set.
        question ([`~storm_hf.evaluation.scorers.Question`]):
            Question that was asked.
        completion (`str`):
            The whole answer, reasoning included.
        cost (`Mapping[str, float]`, *optional*):
            Logged values of `output_tokens`, `forward_passes` and `seconds`.
    """

    task: str
    number: int
    question: Question
    completion: str
    cost: Mapping[str, float]

    @property
    def key(self) -> tuple[str, int]:
        """Key that identifies the same question in another variant."""
        return self.task, self.number


_COSTS = ("output_tokens", "forward_passes", "seconds")


def read_samples(run: Path) -> dict[str, dict[str, list[Sample]]]:
    """Read the samples of a run.

    Args:
        run (`Path`):
            Its folder, with a folder for each variant in which files `*_samples_<task>.jsonl` lie at any depth. Of two files about
            one task, the one whose name sorts last counts: lmms-eval begins it with the date.

    Returns:
        `dict`: From variant to task to samples, in the order of the questions.

    Raises:
        DatasetError: If there are none, or a line is no sample with its document.
    """
    found: dict[str, dict[str, list[Sample]]] = {}
    for path in sorted(run.glob("*/**/*_samples_*.jsonl"), key=lambda path: path.name):
        variant, task = path.relative_to(run).parts[0], path.stem.partition("_samples_")[2]
        found.setdefault(variant, {})[task] = _read_file(path, task)
    if not found:
        raise DatasetError(
            f"Expected files VARIANT/*_samples_TASK.jsonl in {run} but there are none. Run `storm evaluate` first."
        )
    return {variant: dict(sorted(found[variant].items())) for variant in sorted(found)}


def _read_file(path: Path, task: str) -> list[Sample]:
    lines = path.read_text(encoding="utf-8").split("\n")
    samples = [_read_line(line, path, task) for line in lines if line]
    return sorted(samples, key=lambda sample: sample.number)


def _read_line(line: str, path: Path, task: str) -> Sample:
    try:
        row = json.loads(line)
        document, number, completion = row["doc"], int(row["doc_id"]), _completion(row)
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path} has a line that is no sample with its document ({error}). lmms-eval itself leaves documents out of its files; "
            "run `storm evaluate`, which keeps them."
        ) from error
    return Sample(task, number, read_document(task, document), completion, _cost(row))


def _completion(row: Mapping[str, Any]) -> str:
    """The answer as generated; `resps` is left out where cutting reasoning changed nothing."""
    answer = row.get("resps") or row["filtered_resps"]
    while isinstance(answer, list):
        answer = answer[0]
    return str(answer)


def _cost(row: Mapping[str, Any]) -> dict[str, float]:
    counts: Iterable[Any] = row.get("token_counts") or []
    logged = next((count for count in counts if isinstance(count, dict)), {})
    return {name: float(logged[name]) for name in _COSTS if logged.get(name) is not None}


# The subjects of MMVU by discipline (the benchmark's paper, figure 2), as lmms-eval groups them.
_DISCIPLINES = {
    "Science": "Astronomy Biology Chemistry Electromagnetism Geography Materials_Science Mechanics Modern_Physics Neurobiology"
    " Thermodynamics",
    "Engineering": "Biomedical_Engineering Civil_Engineering Computer_Science Electrical_Engineering"
    " Electronics_and_Communication Mechanical_Engineering",
    "Healthcare": "Basic_Medicine Clinical_Medicine Dentistry Pharmacy Preventive_Medicine",
    "Humanities and social science": "Art Economics History Law Literature Management",
}
_DISCIPLINE_OF = {subject: name for name, subjects in _DISCIPLINES.items() for subject in subjects.split()}
_LETTERED = re.compile(r"\s*\(?([A-Z])[.):]\s*(.*)", re.DOTALL)  # the published options are spaced in several ways
_CAPTION = re.compile(r"([^:]+): (.*)")
_FORMATS: dict[str, QuestionKind] = {
    "mc": "multiple-choice",
    "multi_choice": "multiple-choice",
    "yes_no": "yes_no",
    "caption_matching": "caption_matching",
    "captioning": "captioning",
}


def benchmark_of_task(task: str) -> str:
    """The benchmark that a task of lmms-eval belongs to.

    Raises:
        DatasetError: If it is none of the four.
    """
    for benchmark in _READERS:
        if task == benchmark or task.startswith(f"{benchmark}_"):
            return benchmark
    raise DatasetError(f"Expected a task of {', '.join(_READERS)} but got {task!r}. Score its samples with lmms-eval.")


def read_document(task: str, document: Mapping[str, Any]) -> Question:
    """Read a document of a task.

    Args:
        task (`str`):
            Task of lmms-eval, such as `mvbench_action_sequence`.
        document (`Mapping[str, Any]`):
            The document with the data set's own fields.

    Raises:
        DatasetError: If the task is none of ours, or a field is missing.
    """
    try:
        return _READERS[benchmark_of_task(task)](task, document)
    except (KeyError, IndexError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"A document of {task} lacks {error} or has it in another form: {sorted(document)}. Use the data set of lmms-eval 0.7."
        ) from error


def _videomme(task: str, document: Mapping[str, Any]) -> Question:
    texts = tuple(_without_letter(option) for option in document["options"])
    groups = {name: document[name] for name in ("duration", "domain", "sub_category", "task_type")}
    name, video = str(document["question_id"]), str(document["videoID"])
    return Question(document["question"], texts, document["answer"], id=name, video=video, groups=groups)


def _mvbench(task: str, document: Mapping[str, Any]) -> Question:
    options = tuple(document["candidates"])
    answer = ascii_uppercase[options.index(document["answer"])]
    return Question(document["question"], options, answer, video=str(document["video"]))


def _tempcompass(task: str, document: Mapping[str, Any]) -> Question:
    kind = _FORMATS[task.removeprefix("tempcompass_").replace("-", "_")]
    groups = {"aspect": document["dim"], "format, aspect": f"{kind}, {document['dim']}"}
    asked = "mc_question" if kind == "captioning" else "question"
    answer = document["mc_answer" if kind == "captioning" else "answer"]
    return tempcompass_question(document[asked], answer, kind, str(document["video_id"]), groups)


def tempcompass_question(
    text: str, answer: str, kind: QuestionKind, video: str = "", groups: Mapping[str, str] | None = None
) -> Question:
    """Take apart a question of TempCompass, whose options are lines of its text.

    Args:
        text (`str`):
            Question and options; of captioning, the multiple-choice question that its judge gets.
        answer (`str`):
            The whole line of the correct option, or `yes` or `no`.
        kind (`str`):
            The format.
        video (`str`, *optional*, defaults to `""`):
            Name of the clip.
        groups (`Mapping[str, str]`, *optional*):
            Groups of sub-scores that it belongs to.

    Raises:
        ValueError: If a line is no option.
    """
    if kind == "yes_no":
        return Question(text, (), answer, kind, video=video, groups=groups or {})
    form = _CAPTION if kind == "caption_matching" else _LETTERED
    asked, *lines = text.split("\n")
    matches = [form.fullmatch(line) for line in (*lines, answer)]
    options = [(match[1], match[2]) for match in matches if match is not None]
    if len(options) != len(matches):
        raise ValueError(f"options in lines like those of {kind}: {lines}, {answer!r}")
    *options, (right, _) = options
    labels, texts = tuple(label for label, _ in options), tuple(option for _, option in options)
    return Question(asked, texts, right, kind, labels, video=video, groups=groups or {})


def _mmvu(task: str, document: Mapping[str, Any]) -> Question:
    video, kind = str(document["video_path"]), document["question_type"]
    subject = video.split("/")[-2]
    groups = {"discipline": _DISCIPLINE_OF.get(subject, "other"), "subject": subject, "kind": kind}
    choices = document["choices"] if kind == "multiple-choice" else {}
    labels, texts = tuple(choices), tuple(choices.values())
    return Question(document["question"], texts, document["answer"], kind, labels, str(document["id"]), video, groups)


def _without_letter(option: str) -> str:
    match = _LETTERED.fullmatch(option)
    return match[2] if match else option


_READERS: dict[str, Callable[[str, Mapping[str, Any]], Question]] = {
    "videomme": _videomme,
    "mvbench": _mvbench,
    "tempcompass": _tempcompass,
    "mmvu": _mmvu,
}
