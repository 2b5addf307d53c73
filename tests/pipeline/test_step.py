from pathlib import Path

import pytest

from storm_hf.errors import StaleWorkError
from storm_hf.pipeline import Step, Workspace


TASKS = {f"{name}.txt": name for name in "abcd"}


class Writer:
    """Writes its task, remembers it, and is killed by one of them."""

    def __init__(self, killed_by: str | None = None) -> None:
        self.done: list[str] = []
        self.killed_by = killed_by

    def __call__(self, task: str, path: Path) -> None:
        path.write_text(task)
        if task == self.killed_by:
            raise KeyboardInterrupt
        self.done.append(task)


def test_killed_step_resumes_without_repeating_finished_shards(tmp_path):
    workspace, killed, resumed = Workspace(tmp_path), Writer(killed_by="c"), Writer()
    with pytest.raises(KeyboardInterrupt):
        Step("step", killed).run(workspace, TASKS)
    assert [path.name for path in workspace.shards("step")] == ["a.txt", "b.txt"]
    shards = Step("step", resumed).run(workspace, TASKS)
    assert resumed.done == ["c", "d"]
    assert [path.read_text() for path in shards] == list("abcd")


def test_rest_of_a_killed_process_is_removed(tmp_path):
    workspace = Workspace(tmp_path)
    rest = workspace.shard("step", ".a.txt.123.unfinished")
    rest.parent.mkdir()
    rest.write_text("half")
    Step("step", Writer()).run(workspace, TASKS)
    assert not rest.exists()


def test_step_with_other_parameters_is_refused_before_it_writes(tmp_path):
    Step("step", Writer(), {"rank": 8}).run(Workspace(tmp_path), TASKS)
    other = Writer()
    with pytest.raises(StaleWorkError, match="rank was 8 and is now 16"):
        Step("step", other, {"rank": 16}).run(Workspace(tmp_path), {"e.txt": "e"})
    assert other.done == []


def test_every_shard_is_reported_once_in_order(tmp_path):
    finished = []
    Step("step", Writer()).run(Workspace(tmp_path), TASKS, lambda path: finished.append(path.name))
    assert finished == list(TASKS)
