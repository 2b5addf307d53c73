import os

import pytest
from rich.console import Console
from tests.builder.tiny_build import published, tiny_recipe

from storm_hf.builder import ThoughtsBuilder
from storm_hf.builder.status import build_status, parameters_page, status_table
from storm_hf.errors import DatasetError


def text_of(status):
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(status_table(status), parameters_page(status))
    return " ".join(console.export_text().split())  # a long path breaks the line


def test_finished_build_has_nothing_left(built):
    status = build_status(built)
    assert status.is_complete
    assert {step.name: (step.num_done, step.num_shards, step.num_rows) for step in status.steps} == {
        "10_annotations": (4, 4, 10),
        "20_prompts": (4, 4, 10),
        "30_thought_videos": (4, 4, 10),
        "35_selection": (1, 1, 10),
        "data": (4, 4, 10),
    }
    assert {step.remaining_seconds for step in status.steps} == {0.0}


def test_rate_and_time_left_come_from_the_shards_that_are_there(annotations, qwen_checkpoint, tmp_path):
    builder = ThoughtsBuilder(tiny_recipe(annotations, qwen_checkpoint, tmp_path))
    builder.read_annotations()
    builder.write_prompts()
    shards = sorted((tmp_path / "work" / "20_prompts").iterdir())
    shards.pop().unlink()
    for number, shard in enumerate(shards):
        os.utime(shard, (1000 + 2 * number, 1000 + 2 * number))
    before = published(tmp_path)
    prompts = build_status(tmp_path).steps[1]
    assert (prompts.num_done, prompts.num_shards, prompts.num_rows) == (3, 4, 9)
    assert prompts.rows_per_second == pytest.approx(1.5)  # six rows came in the four seconds after the first shard
    assert prompts.remaining_seconds == pytest.approx(1 / 1.5)
    assert published(tmp_path) == before, "looking changes nothing"


def test_page_tells_reasons_and_parameters(annotations, qwen_checkpoint, tmp_path):
    recipe = tiny_recipe(annotations, qwen_checkpoint, tmp_path, generator={"future": {"horizon_seconds": 9.0}})
    with pytest.raises(DatasetError):
        ThoughtsBuilder(recipe).build()
    page = text_of(build_status(tmp_path))
    assert "not complete" in page
    assert "too short 10" in page
    assert "generator.future.horizon_seconds=9.0" in page


def test_folder_that_is_no_build_says_so(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(DatasetError, match="Expected the folder of a build"):
        build_status(tmp_path)
