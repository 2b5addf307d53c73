"""One step of a pipeline: a task per shard, and a shard that exists is never made again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from storm_hf.pipeline.fingerprint import claim
from storm_hf.pipeline.workspace import Workspace
from storm_hf.writing import written_whole


TaskT = TypeVar("TaskT")


@dataclass(frozen=True)
class Step(Generic[TaskT]):
    """Turns tasks into shards. A stopped run goes on with the first shard that is missing.

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
                Where the shards go.
            tasks (`Mapping[str, TaskT]`):
                From the name of a shard to what it is made of.
            on_finished (`Callable[[Path], None]`, *optional*):
                Called once per shard, in order, when it is complete. Progress bars use it.

        Returns:
            `list[Path]`: All shards, in the order of the tasks.

        Raises:
            StaleWorkError: If the step was begun here with other parameters.
        """
        claim(workspace.root, self.name, self.parameters)
        workspace.remove_unfinished(self.name)
        shards = []
        for name, task in tasks.items():
            shard = workspace.shard(self.name, name)
            if not shard.exists():
                with written_whole(shard) as unfinished:
                    self.write(task, unfinished)
            shards.append(shard)
            if on_finished is not None:
                on_finished(shard)
        return shards
