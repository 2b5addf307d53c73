"""A build by tasks of Ray Data writes what one process writes, also where a task's process is killed."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.builder.tiny_build import published, tiny_recipe

from storm_hf.builder import engines
from storm_hf.builder.engines import RayTask, build_with_ray
from storm_hf.errors import StageError


pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),  # of its own settings, as it reads them
]


@pytest.fixture(scope="module", autouse=True)
def _two_processors():
    import ray  # not there where other tests are collected

    folders = os.pathsep.join(map(str, (Path(__file__).parents[2], Path(__file__).parents[2] / "src")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else it writes a token into the home folder
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=200 * 2**20,
            runtime_env={"env_vars": {"PYTHONPATH": folders}},
        )
        yield
        ray.shutdown()


@dataclass(frozen=True)
class DyingTask(RayTask):
    """Is killed in the middle of its second task, once."""

    def __call__(self, row):
        mark = Path(self.recipe.output_dir).with_suffix(".killed")
        if self.phase == "thought_videos" and row["item"] == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(row)


@pytest.mark.parametrize("task", [RayTask, DyingTask])
def test_tasks_of_ray_write_the_same_bytes(built, annotations, qwen_checkpoint, tmp_path, monkeypatch, task):
    monkeypatch.setattr(engines, "RayTask", task)
    report = build_with_ray(tiny_recipe(annotations, qwen_checkpoint, tmp_path / "data"), 3)
    assert report.num_rows == {"train": 10}
    assert published(tmp_path / "data") == published(built)
    assert (tmp_path / "data.killed").exists() is (task is DyingTask)


def test_failure_of_a_task_is_told(annotations, qwen_checkpoint, tmp_path):
    recipe = tiny_recipe(annotations, tmp_path / "no-model", tmp_path / "data")
    with pytest.raises(StageError, match="A task of the phase features failed"):
        build_with_ray(recipe, 2)
