"""The logged samples of a run scored again, by every scorer that the literature uses, with the differences between variants."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from storm_hf.errors import ConfigurationError
from storm_hf.evaluation.bootstrap import paired_difference
from storm_hf.evaluation.judges import Judge, judge_readings
from storm_hf.evaluation.results.page import write_report
from storm_hf.evaluation.results.report import Cost, Difference, Report, Result, Score, cluster_of, score_readings
from storm_hf.evaluation.results.samples import Sample, benchmark_of_task, read_samples
from storm_hf.evaluation.scorers import SCORERS, Reading, read_answer
from storm_hf.pipeline.workspace import read_fingerprint


_Marked = list[tuple[Sample, Reading]]


def report_run(
    run: Path,
    scorers: Sequence[str] = SCORERS,
    judge: Judge | None = None,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    command: str | None = None,
) -> Report:
    """Score the logged samples of a run again, and write `report.json` and `report.html` beside them.

    Args:
        run (`Path`):
            Folder with a folder for each variant, in which lmms-eval's files `*_samples_<task>.jsonl` lie, documents included.
        scorers (`Sequence[str]`, *optional*, defaults to `("official", "lmms", "strict")`):
            Parsers of the answers.
        judge ([`~storm_hf.evaluation.judges.Judge`], *optional*):
            Judge of the answers that a scorer leaves open. Without one, the report gives the number of those answers.
        num_resamples (`int`, *optional*, defaults to `10_000`):
            Of the bootstrap between variants.
        seed (`int`, *optional*, defaults to `0`):
            Of its draws.
        command (`str`, *optional*):
            Command that reproduces the report, to stand in it.

    Returns:
        [`Report`]: What was written.

    Raises:
        ConfigurationError: If there is no such scorer.
        DatasetError: If the folder holds no samples, or they lack their documents.
        StormError: If the judge cannot be reached; what it answered is kept for the next call.
    """
    if not scorers or set(scorers) - set(SCORERS):
        raise ConfigurationError(f"Expected scorers out of {', '.join(SCORERS)} but got {list(scorers)}.")
    samples = read_samples(run)
    name = None if judge is None else judge.name
    results: list[Result] = []
    differences: list[Difference] = []
    for scorer in scorers:
        marked = {variant: _mark_parts(tasks, scorer, judge) for variant, tasks in samples.items()}
        for variant, parts in marked.items():
            results.extend(
                Result(variant, part, group, scorer, name, _score(rows))
                for part, whole in parts.items()
                for group, rows in _groups(part, whole)
            )
        differences.extend(_differences(marked, scorer, num_resamples, seed))
    costs = tuple(
        _cost(variant, part, rows) for variant, tasks in samples.items() for part, rows in _parts(tasks).items()
    )
    report = Report(name, tuple(results), tuple(differences), costs, command, _models(run, samples))
    write_report(run, report)
    return report


def _models(run: Path, variants: Iterable[str]) -> dict[str, str]:
    """The checkpoint of each variant, as the run was begun with it; none for samples that came from elsewhere."""
    begun = {
        variant: step["parameters"] for variant, step in read_fingerprint(run).items() if variant in set(variants)
    }
    return {
        variant: f"{known['pretrained']} at commit {known['revision']}"
        if known.get("revision")
        else known["pretrained"]
        for variant, known in begun.items()
    }


def _parts(tasks: Mapping[str, list[Sample]]) -> dict[str, list[Sample]]:
    """The samples of each benchmark and each of its tasks. Video-MME's and MMVU's tasks are settings, which are not mixed."""
    parts: dict[str, list[Sample]] = {}
    for task, samples in tasks.items():
        benchmark = benchmark_of_task(task)
        if benchmark in ("mvbench", "tempcompass"):
            parts.setdefault(benchmark, []).extend(samples)
        parts[task] = samples
    return parts


def _mark_parts(tasks: Mapping[str, list[Sample]], scorer: str, judge: Judge | None) -> dict[str, _Marked]:
    marks: dict[tuple[str, int], Reading] = {}
    for task, samples in tasks.items():
        benchmark = benchmark_of_task(task)
        readings = [read_answer(benchmark, scorer, sample.completion, sample.question) for sample in samples]
        if judge is not None:
            questions, completions = [sample.question for sample in samples], [sample.completion for sample in samples]
            readings = judge_readings(judge, questions, completions, readings)
        marks |= {sample.key: reading for sample, reading in zip(samples, readings, strict=True)}
    return {part: [(sample, marks[sample.key]) for sample in samples] for part, samples in _parts(tasks).items()}


def _groups(part: str, whole: _Marked) -> Iterator[tuple[str | None, _Marked]]:
    """The part itself, then its sub-scores, of which there are none in a task of a larger benchmark."""
    yield None, whole
    if part == benchmark_of_task(part) or part.startswith(("videomme", "mmvu")):
        members: dict[str, _Marked] = {}
        for sample, reading in whole:
            for name, value in sample.question.groups.items():
                members.setdefault(f"{name}: {value}", []).append((sample, reading))
        yield from sorted(members.items())


def _score(rows: _Marked) -> Score:
    return score_readings([sample.question for sample, _ in rows], [reading for _, reading in rows])


def _differences(
    marked: Mapping[str, Mapping[str, _Marked]], scorer: str, num_resamples: int, seed: int
) -> Iterator[Difference]:
    for first, second in combinations(marked, 2):
        for part in marked[first]:
            others = {sample.key: reading for sample, reading in marked[second].get(part, []) if reading.counted}
            pairs = [
                (bool(reading.correct), bool(others[sample.key].correct), cluster_of(sample.question, index))
                for index, (sample, reading) in enumerate(marked[first][part])
                if reading.counted and sample.key in others
            ]
            if pairs:
                ours, theirs, clusters = zip(*pairs, strict=True)
                interval = paired_difference(ours, theirs, clusters=clusters, num_resamples=num_resamples, seed=seed)
                yield Difference(first, second, part, scorer, interval, len(pairs), len(set(clusters)))


def _cost(variant: str, part: str, samples: Sequence[Sample]) -> Cost:
    def logged(name: str) -> list[float]:
        return [sample.cost[name] for sample in samples if name in sample.cost]

    seconds, passes, tokens = logged("seconds"), logged("forward_passes"), logged("output_tokens")
    return Cost(
        variant,
        part,
        statistics.median(seconds) if seconds else None,
        statistics.fmean(passes) if passes else None,
        statistics.fmean(tokens) if tokens else None,
    )
