"""The status of a build as a table for a terminal."""

from datetime import timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from storm_hf.builder.status import BuildStatus, StepStatus


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
