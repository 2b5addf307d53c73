"""One step of a pipeline: a task per shard, and a shard that exists is never made again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from storm_hf.atomic import written_atomically
from storm_hf.pipeline.workspace import Workspace, claim


TaskT = TypeVar("TaskT")


@dataclass(frozen=True)
class Step(Generic[TaskT]):
    """Turns tasks into shards. A stopped run goes on with the first shard that is missing.

    Several processes may run one step at once: each shard is written by one of them, and each run ends when all shards are
    there.

    Args:
        name (`str`):
            The step's folder in the workspace.
        write (`Callable[[TaskT, Path], None]`):
            Does one task and writes its result to a path. The result depends on the task and the parameters alone.
        parameters (`Mapping[str, Any]`, *optional*):
            Everything besides the tasks that changes what is written. They are recorded, and others are refused later.
    """

    name: str
    write: Callable[[TaskT, Path], None]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def run(
        self,
        workspace: Workspace,
        tasks: Mapping[str, TaskT],
        on_finished: Callable[[Path], None] | None = None,
    ) -> list[Path]:
        """Write the shards that are missing.

        Args:
            workspace ([`Workspace`]):
                Folder of the shards.
            tasks (`Mapping[str, TaskT]`):
                From the name of a shard to what it is made of.
            on_finished (`Callable[[Path], None]`, *optional*):
                Called once per shard when it is complete, in order, except for shards written by another process. Progress bars use it.

        Returns:
            `list[Path]`: All shards, in the order of the tasks.

        Raises:
            StaleWorkError: If the step was begun here with other parameters.
        """
        claim(workspace.root, self.name, self.parameters)
        missing = dict(tasks)
        for is_patient in (
            False,
            True,
        ):  # first the shards without a writer, then those that others have not completed
            for name, task in list(missing.items()):
                if self._complete(workspace, name, task, is_patient):
                    del missing[name]
                    if on_finished is not None:
                        on_finished(workspace.shard(self.name, name))
        return [workspace.shard(self.name, name) for name in tasks]

    def _complete(self, workspace: Workspace, name: str, task: TaskT, is_patient: bool) -> bool:
        """Write a shard unless it is there or, for the impatient, being written; return whether it is there now."""
        with workspace.claimed(self.name, name, wait=is_patient) as shard:
            if shard is not None:
                with written_atomically(shard) as unfinished:
                    self.write(task, unfinished)
        return workspace.shard(self.name, name).exists()
