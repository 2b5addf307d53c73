"""Progress of a build, read from its folder. Nothing is written, so it can be read from any machine during the build."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from storm_hf.builder.progress import (
    ANNOTATIONS,
    INDEX,
    PROMPTS,
    REJECTED,
    SELECTION_STEP,
    THOUGHTS,
    Plan,
    Selection,
    contents_of,
    record_path,
)
from storm_hf.errors import DatasetError
from storm_hf.pipeline import Workspace, read_fingerprint
from storm_hf.target_trajectory.schema import DATA, MANIFEST


_NUM_RECENT = 32  # shards that the rate is measured on


@dataclass(frozen=True)
class StepStatus:
    """Progress of one step.

    Args:
        name (`str`):
            Of the step.
        num_done (`int`):
            Shards that are complete.
        num_shards (`int`, *optional*):
            All its shards, once that is known.
        num_rows (`int`):
            Rows in the complete shards.
        num_rejected (`dict[str, int]`):
            From the kind of reason to how many rows the step rejected.
        rows_per_second (`float`, *optional*):
            Over the last shards; None before the second one, and where files have the same time.
        remaining_seconds (`float`, *optional*):
            Estimated time left at that rate; 0 when the step is done.
        parameters (`dict[str, Any]`):
            Parameters of the step.
    """

    name: str
    num_done: int
    num_shards: int | None
    num_rows: int
    num_rejected: dict[str, int]
    rows_per_second: float | None
    remaining_seconds: float | None
    parameters: dict[str, Any]


@dataclass(frozen=True)
class BuildStatus:
    """Progress of a build.

    Args:
        folder (`Path`):
            The data set.
        steps (`tuple[StepStatus, ...]`):
            In their order.
        is_complete (`bool`):
            Whether the manifest is there.
    """

    folder: Path
    steps: tuple[StepStatus, ...]
    is_complete: bool


def build_status(folder: str | Path) -> BuildStatus:
    """Look at the folder of a build.

    Raises:
        DatasetError: If no build was begun there.
    """
    workspace = Workspace(Path(folder).absolute())
    known = read_fingerprint(workspace.root)
    if ANNOTATIONS not in known:
        raise DatasetError(
            f"Expected the folder of a build but {folder} holds none. Begin one with `storm build RECIPE`, and name its "
            "folder here."
        )
    plan, selection = Plan.load(workspace), Selection.load(workspace)
    rejected = _count_rejected(workspace, plan, selection) if plan else {}
    steps = [_annotations(workspace, plan)]
    steps += [_records(workspace, step, plan) for step in (PROMPTS, THOUGHTS)]
    steps += [_selection(selection), _features(workspace, selection)]
    return BuildStatus(
        workspace.root,
        tuple(_with(step, rejected, known) for step in steps),
        (workspace.root / MANIFEST).exists(),
    )


def _count_rejected(workspace: Workspace, plan: Plan, selection: Selection | None) -> dict[str, dict[str, int]]:
    """Count the rejected rows of each step by kind, as `finish.count_kinds` does, reading no shard twice."""
    paths = {ANNOTATIONS: [workspace.shard(ANNOTATIONS, REJECTED)]}
    paths |= {step: [record_path(workspace, step, shard) for shard in plan.num_rows] for step in (PROMPTS, THOUGHTS)}
    counts = {
        Path(step).name: sum(
            (Counter(contents_of(path).num_refused) for path in each if path.exists()), Counter[str]()
        )
        for step, each in paths.items()
    }
    refused = selection.refused.values() if selection else ()
    counts[Path(SELECTION_STEP).name] = Counter(reason.partition(":")[0] for reason in refused)
    return {step: dict(sorted(kinds.items())) for step, kinds in counts.items() if kinds}


def _with(step: StepStatus, rejected: dict[str, dict[str, int]], known: dict[str, Any]) -> StepStatus:
    """Add what is known of a step by its name."""
    name = Path(step.name).name
    parameters = known.get(step.name, {}).get("parameters", {})
    return StepStatus(**vars(step) | {"name": name, "num_rejected": rejected.get(name, {}), "parameters": parameters})


def _annotations(workspace: Workspace, plan: Plan | None) -> StepStatus:
    shards = [path for path in workspace.shards(ANNOTATIONS) if path.name not in (INDEX, REJECTED)]
    num_rows = sum(plan.num_rows.values()) if plan else 0
    return _step(ANNOTATIONS, len(shards), len(plan.num_rows) if plan else None, num_rows)


def _records(workspace: Workspace, step: str, plan: Plan | None) -> StepStatus:
    if plan is None:
        return _step(step, 0, None, 0)
    done = {name: path for name in plan.num_rows if (path := record_path(workspace, step, name)).exists()}
    rows = Counter({name: contents_of(path).num_rows for name, path in done.items()})
    seen = {done[name]: plan.num_rows[name] for name in done}  # rejected ones took their time as well
    left = sum(plan.num_rows.values()) - sum(seen.values())
    return _step(step, len(done), len(plan.num_rows), rows.total(), seen, left)


def _selection(selection: Selection | None) -> StepStatus:
    num_rows = sum(selection.num_rows.values()) if selection else 0
    return _step(SELECTION_STEP, int(selection is not None), 1, num_rows)


def _features(workspace: Workspace, selection: Selection | None) -> StepStatus:
    if selection is None:
        return _step(DATA, 0, None, 0)
    rows = {
        path: count for name, count in selection.num_rows.items() if (path := workspace.shard(DATA, name)).exists()
    }
    left = sum(selection.num_rows.values()) - sum(rows.values())
    return _step(DATA, len(rows), len(selection.num_rows), sum(rows.values()), rows, left)


def _step(
    name: str,
    num_done: int,
    num_shards: int | None,
    num_rows: int,
    rows_of: dict[Path, int] | None = None,
    left: int = 0,
) -> StepStatus:
    rate = _rate(rows_of or {})
    remaining = 0.0 if num_done == num_shards else (left / rate if rate else None)
    return StepStatus(name, num_done, num_shards, num_rows, {}, rate, remaining, {})


def _rate(rows_of: dict[Path, int]) -> float | None:
    """Rows per second between the first and the last of the shards that were completed last."""
    written: Iterable[tuple[float, int]] = sorted((path.stat().st_mtime, rows) for path, rows in rows_of.items())
    recent = list(written)[-_NUM_RECENT:]
    if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
        return None
    return sum(rows for _, rows in recent[1:]) / (recent[-1][0] - recent[0][0])


_UNKNOWN = "-"


def status_table(status: BuildStatus) -> Table:
    """One line per step: shards, rows, rejected rows by reason, rate and the time that is left."""
    table = Table(
        title=f"{status.folder}: {'complete' if status.is_complete else 'not complete'}", title_justify="left"
    )
    table.add_column("step", no_wrap=True)
    for name in ("shards", "rows", "rejected", "rows/s", "time left"):
        table.add_column(name, justify="right")
    table.add_column("reasons", overflow="fold")
    for step in status.steps:
        table.add_row(*(Text(cell) for cell in _cells(step)))
    return table


def parameters_page(status: BuildStatus) -> RenderableType:
    """Parameters of each step, as a page."""
    return Group(
        *(
            Text(f"{step.name}: {_parameters(step.parameters)}", overflow="fold")
            for step in status.steps
            if step.parameters
        )
    )


def _cells(step: StepStatus) -> tuple[str, ...]:
    return (
        step.name,
        f"{step.num_done}/{_UNKNOWN if step.num_shards is None else step.num_shards}",
        str(step.num_rows),
        str(sum(step.num_rejected.values())),
        _UNKNOWN if step.rows_per_second is None else f"{step.rows_per_second:.1f}",
        _UNKNOWN if step.remaining_seconds is None else str(timedelta(seconds=round(step.remaining_seconds))),
        ", ".join(f"{kind} {count}" for kind, count in step.num_rejected.items()),
    )


def _parameters(parameters: dict[str, Any], prefix: str = "") -> str:
    """Nested parameters by their path, those without a value left out."""
    said = []
    for name, value in parameters.items():
        if isinstance(value, dict):
            said.append(_parameters(value, f"{prefix}{name}."))
        elif value not in (None, "", [], ()):
            said.append(f"{prefix}{name}={value}")
    return ", ".join(filter(None, said))
