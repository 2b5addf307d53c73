"""Annotations and clips that change after a build was begun: one exact sentence, and a warning by name."""

import json
import os
import re

import pytest
from tests.builder.tiny_build import clips_and_annotations, published, question, tiny_recipe, write_clip

from storm_hf.builder import ThoughtsBuilder, ThoughtsRecipe
from storm_hf.builder.retry import retry_rows
from storm_hf.errors import DatasetError, StaleWorkError


@pytest.fixture
def source(tmp_path):
    """Ten clips of its own, since the tests change them."""
    return clips_and_annotations(tmp_path / "clips", 10)


def rows_of(source):
    return [json.loads(line) for line in source.read_text().splitlines()]


def write_rows(source, rows):
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))


def new_rows(number):
    return [question(each, f"{each % 10}.mp4") for each in range(20, 20 + number)]


CHANGES = {
    "one new row": (lambda rows: rows + new_rows(1), "1 new row"),
    "three new rows": (lambda rows: new_rows(3) + rows, "3 new rows"),
    "a row gone": (lambda rows: rows[1:], "1 removed row"),
    "two answers corrected": (
        lambda rows: [{**row, "answer": "right"} for row in rows[:2]] + rows[2:],
        "2 changed rows",
    ),
    "all of it": (
        lambda rows: [{**rows[0], "question": "What else?"}, *rows[3:], *new_rows(2)],
        "2 new rows, 1 changed row, 2 removed rows",
    ),
    "another order": (lambda rows: rows[::-1], "the same rows in another form or order"),
    "a row that is none": (lambda rows: [*rows, {"id": "broken"}], "the same rows in another form or order"),
}


@pytest.mark.parametrize(("change", "told"), CHANGES.values(), ids=CHANGES)
def test_change_of_the_annotations_is_counted_and_the_command_named(source, qwen_checkpoint, tmp_path, change, told):
    recipe = tiny_recipe(source, qwen_checkpoint, tmp_path / "data")
    ThoughtsBuilder(recipe).read_annotations()
    before = published(tmp_path / "data")
    write_rows(source, change(rows_of(source)))
    with pytest.raises(StaleWorkError) as error:
        ThoughtsBuilder(recipe).build()
    folder = tmp_path / "data"
    assert str(error.value) == (
        f"{source} has changed since {folder} was begun: {told}. A build is not extended: give the same command with "
        f"`--out {folder}-2`, which builds all rows, or put the earlier file back."
    )
    assert published(folder) == before


def test_missing_file_of_a_build_that_was_begun_is_named(source, qwen_checkpoint, tmp_path):
    recipe = tiny_recipe(source, qwen_checkpoint, folder := tmp_path / "data")
    ThoughtsBuilder(recipe).read_annotations()
    before = published(folder)
    source.unlink()
    with pytest.raises(DatasetError) as error:
        ThoughtsBuilder(recipe).build()
    assert str(error.value) == (
        f"There is no file {source} any more, which {folder} was begun with. Put it back, or take it out of the recipe and "
        f"give `--out {folder}-2`."
    )
    assert published(folder) == before


def test_command_that_is_named_builds_all_rows(source, qwen_checkpoint, tmp_path):
    recipe = tiny_recipe(source, qwen_checkpoint, tmp_path / "data")
    ThoughtsBuilder(recipe).build()
    write_rows(source, rows_of(source) + new_rows(2))
    with pytest.raises(StaleWorkError) as error:
        ThoughtsBuilder(recipe).build()
    folder = re.search(r"--out (\S+)`", str(error.value))[1]
    assert ThoughtsBuilder(tiny_recipe(source, qwen_checkpoint, folder)).build().num_rows == {"train": 12}


def test_change_before_anything_is_built_says_that_nothing_is_lost(source, qwen_checkpoint, tmp_path):
    recipe = tiny_recipe(source, qwen_checkpoint, tmp_path / "data")
    ThoughtsBuilder(recipe).read_annotations()
    (tmp_path / "data" / "work" / "10_annotations" / "index.json").unlink()
    write_rows(source, rows_of(source) + new_rows(1))
    with pytest.raises(StaleWorkError, match=r"Nothing is built yet: remove .*data and give the same command\.$"):
        ThoughtsBuilder(recipe).build()


def test_two_changed_files_are_both_named(source, qwen_checkpoint, tmp_path):
    other = clips_and_annotations(tmp_path / "other", 3)
    write_rows(other, [{**row, "id": f"other-{row['id']}"} for row in rows_of(other)])
    sources = {"train": [{"path": str(source)}], "validation": [{"path": str(other)}]}
    recipe = tiny_recipe(source, qwen_checkpoint, tmp_path / "data", sources=sources)
    ThoughtsBuilder(recipe).read_annotations()
    for path, number in ((source, 2), (other, 1)):
        rows = [{**row, "id": f"{path.parent.name}-{row['id']}"} for row in new_rows(number)]
        rows = [{**row, "video": "0.mp4"} for row in rows]
        write_rows(path, rows_of(path) + rows)
    with pytest.raises(StaleWorkError, match=rf"^{source} and {other} have changed since .*: 3 new rows\. "):
        ThoughtsBuilder(recipe).build()


def warnings(caplog):
    found = [record.getMessage() for record in caplog.records if "replaced since" in record.getMessage()]
    caplog.clear()
    return found


@pytest.mark.parametrize("is_finished", [True, False])
def test_clip_that_was_replaced_is_named(source, qwen_checkpoint, tmp_path, caplog, is_finished):
    recipe = tiny_recipe(source, qwen_checkpoint, tmp_path / "data")
    (ThoughtsBuilder(recipe).build if is_finished else ThoughtsBuilder(recipe).read_annotations)()
    before = published(tmp_path / "data")
    ThoughtsBuilder(recipe).read_annotations()
    assert warnings(caplog) == []
    write_clip(source.parent / "4.mp4", seed=99)
    report = ThoughtsBuilder(recipe).build()
    (warning,) = warnings(caplog)
    assert warning == (
        f"1 clip was replaced since {tmp_path / 'data'} was begun: {source.parent / '4.mp4'}. Rows that are made keep the "
        f"earlier file. Put it back, or build all rows with `--out {tmp_path / 'data'}-2`."
    )
    assert report.num_rows == {"train": 10}
    if is_finished:
        assert published(tmp_path / "data") == before


def test_many_replaced_clips_are_counted(source, qwen_checkpoint, tmp_path, caplog):
    recipe = tiny_recipe(source, qwen_checkpoint, tmp_path / "data")
    ThoughtsBuilder(recipe).read_annotations()
    for number in range(8):
        os.utime(source.parent / f"{number}.mp4", (1, 1))
    (source.parent / "9.mp4").unlink()  # which a build stops at
    ThoughtsBuilder(recipe).read_annotations()
    (warning,) = warnings(caplog)
    assert warning.startswith("8 clips were replaced since ")
    assert "4.mp4 and 3 more. Rows" in warning


def test_clip_that_was_mended_and_tried_again_is_not_named(source, qwen_checkpoint, tmp_path, caplog):
    good = (source.parent / "4.mp4").read_bytes()
    (source.parent / "4.mp4").write_bytes(b"no video")
    recipe = tiny_recipe(source, qwen_checkpoint, tmp_path / "data")
    assert ThoughtsBuilder(recipe).build().num_rows == {"train": 9}
    (source.parent / "4.mp4").write_bytes(good)
    retry_rows(tmp_path / "data", "unreadable")
    assert ThoughtsBuilder(recipe).build().num_rows == {"train": 10}
    assert warnings(caplog) == []


def test_build_of_a_world_has_no_clips_to_watch(qwen_checkpoint, tmp_path):
    recipe = ThoughtsRecipe.from_dict(
        {
            "output_dir": str(tmp_path / "data"),
            "world": {"world": "shuffle", "splits": {"train": {"count": 3}}},
            "generator": {"simulator": {}},
            "encoder": {"model": str(qwen_checkpoint)},
            "targets": {"num_latents": 2, "rank": 4},
        }
    )
    ThoughtsBuilder(recipe).read_annotations()
    assert not (tmp_path / "data" / "work" / "15_clips").exists()
