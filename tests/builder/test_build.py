import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from tests.builder.tiny_build import published, question, tiny_recipe, write_annotations, write_clip

from storm_hf.builder import Share, ThoughtsBuilder
from storm_hf.errors import ConfigurationError, DatasetError, StaleWorkError
from storm_hf.target_trajectory import TargetTrajectory, encode_frames, iterate_features, load_thoughts
from storm_hf.thought_video import Rejected, ThoughtVideo
from storm_hf.thought_video.clip_part import frame_times
from storm_hf.video import read_video


class FakeGenerator:
    """Shows noise drawn from the seed, and refuses one question."""

    source, name, revision, license = "fake", "noise", "1", "CC0-1.0"

    def __init__(self, refused: str = "", side: int = 56) -> None:
        self.refused, self.side = refused, side

    def generate(self, annotation, *, prompt, seed):
        if annotation.id == self.refused:
            return Rejected("too hard: nobody can show this")
        frames = np.random.default_rng(seed).integers(0, 256, (4, self.side, self.side, 3), dtype=np.uint8)
        return ThoughtVideo(
            fps=2.0,
            source=self.source,
            generator=self.name,
            generator_revision=self.revision,
            license=self.license,
            seed=seed,
            prompt=prompt,
            frames=frames,
        )


def rejected(folder):
    return [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]


def test_load_dataset_opens_what_was_built(built):
    train = load_dataset(str(built), split="train")
    assert train["id"][:] == [f"q{number:02d}" for number in range(10)]
    assert set(train["thought_source"]) == {"future"}
    assert TargetTrajectory.load(built).statistics.rank == 4
    assert len(list((built / "data").glob("*.parquet"))) == 4


def test_question_never_sees_what_its_thought_video_shows(built):
    row = load_thoughts(built)["train"][3]
    assert frame_times(Path(row["video"]))[-1] < 1.0
    assert len(read_video(row["thought_video"]).frames) == 4


def test_features_are_those_of_the_thought_file(built, qwen_checkpoint):
    builder = ThoughtsBuilder(tiny_recipe("unused.jsonl", qwen_checkpoint, built))
    train = load_thoughts(built)["train"]
    stored = [clip for batch in iterate_features(train) for clip in batch]
    frames = read_video(train[7]["thought_video"]).frames
    expected = encode_frames(builder.encoder.model, builder.encoder.processor, [frames], fps=4.0)[0]
    np.testing.assert_allclose(stored[7], expected, atol=2e-3)


def test_every_bad_row_is_named_and_every_good_row_kept(qwen_checkpoint, tmp_path):
    for number in (0, 1, 2, 3):
        write_clip(tmp_path / "clips" / f"{number}.mp4", number)
    (tmp_path / "clips" / "4.mp4").write_text("<html>404</html>")
    whole = (tmp_path / "clips" / "0.mp4").read_bytes()
    (tmp_path / "clips" / "5.mp4").write_bytes(whole[: len(whole) // 2])
    rows = [question(number, f"{number}.mp4") for number in range(7)] + [question(0, "1.mp4")]
    rows[3]["time_seconds"] = 1.9
    folder = tmp_path / "data"
    report = ThoughtsBuilder(tiny_recipe(write_annotations(tmp_path / "clips", rows), qwen_checkpoint, folder)).build()
    assert load_dataset(str(folder), split="train")["id"][:] == ["q00", "q01", "q02"]
    assert sorted(row["id"] for row in rejected(folder)) == ["q00", "q03", "q04", "q05", "q06"]
    assert report.num_rejected == {
        "10_annotations": {"annotation": 2},
        "30_thought_videos": {"too short": 1, "unreadable": 2},
    }


def test_same_thought_twice_keeps_the_smaller_id(annotations, qwen_checkpoint, tmp_path):
    rows = [json.loads(line) for line in annotations.read_text().splitlines()][:3]
    rows = [row | {"video": str(annotations.parent / row["video"])} for row in rows]
    repeated = rows[1] | {"id": "q99"}
    recipe = tiny_recipe(
        write_annotations(tmp_path, [repeated, *rows]), qwen_checkpoint, tmp_path / "data", gates={"duplicate": {}}
    )
    ThoughtsBuilder(recipe).build()
    assert sorted(load_dataset(str(tmp_path / "data"), split="train")["id"]) == ["q00", "q01", "q02"]
    assert rejected(tmp_path / "data")[0]["reason"].startswith(
        "duplicate: it shows the same as the thought video of 'q01'"
    )
    assert len(list((tmp_path / "data" / "videos" / "thoughts").rglob("*.mp4"))) == 3


def test_another_generator_is_taken_and_its_refusals_are_counted(annotations, qwen_checkpoint, tmp_path):
    recipe = tiny_recipe(annotations, qwen_checkpoint, tmp_path, keep_thoughts=False, embed="copy")
    report = ThoughtsBuilder(recipe, generator=FakeGenerator(refused="q04")).build()
    row = load_dataset(str(tmp_path), split="train")[0]
    assert (row["generator"], row["thought_video"], row["video"]) == (
        "noise",
        None,
        "videos/clips/train-00000/q00.mp4",
    )
    assert row["thought_prompt"].startswith("What happens next, number 0?")
    assert report.num_rejected == {"30_thought_videos": {"too hard": 1}}
    assert not (tmp_path / "videos" / "thoughts").exists()


def test_thought_videos_are_brought_to_one_size(annotations, qwen_checkpoint, tmp_path):
    recipe = tiny_recipe(annotations, qwen_checkpoint, tmp_path, frame_size=[28, 56])
    ThoughtsBuilder(recipe, generator=FakeGenerator(side=84)).build()
    assert read_video(load_thoughts(tmp_path)["train"][0]["thought_video"]).frames.shape[1:3] == (28, 56)


def test_tasks_that_do_not_help_one_another_build_the_same(built, annotations, qwen_checkpoint, tmp_path):
    recipe = tiny_recipe(annotations, qwen_checkpoint, tmp_path)
    for phase in ThoughtsBuilder(recipe).phases:
        for rank in range(2):
            ThoughtsBuilder(recipe, share=Share(rank, 2, helps=False)).phases[phase]()
    assert published(tmp_path) == published(built)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"rows_per_shard": 4}, r"rows_per_shard was 3 and is now 4"),
        ({"generator": {"future": {"horizon_seconds": 0.5, "fps": 4.0}}}, r"horizon_seconds was 1\.0 and is now 0\.5"),
        ({"prompts": {"template": {"template": "{answer}"}}}, r"template was nothing and is now \{answer\}"),
        ({"encoder": {"dtype": "bfloat16"}}, "dtype was float32 and is now bfloat16"),
    ],
)
def test_changed_parameter_is_refused_and_named(built, annotations, qwen_checkpoint, tmp_path, changes, difference):
    folder = shutil.copytree(built, tmp_path / "copy")
    if "encoder" in changes:
        changes = {"encoder": {"model": str(qwen_checkpoint), **changes["encoder"]}}
    with pytest.raises(StaleWorkError, match=difference):
        ThoughtsBuilder(tiny_recipe(annotations, qwen_checkpoint, folder, **changes)).build()
    assert published(folder) == published(built)


def test_other_targets_need_no_encoding(built, annotations, qwen_checkpoint, tmp_path):
    folder = shutil.copytree(built, tmp_path / "copy")
    ThoughtsBuilder(tiny_recipe(annotations, qwen_checkpoint, folder, targets={"num_latents": 1, "rank": 3})).build()
    before, after = published(built), published(folder)
    assert TargetTrajectory.load(folder).statistics.rank == 3
    assert {name for name in before if before[name] != after[name]} == {"manifest.json", "whitening.safetensors"}


def test_nothing_left_to_train_on_is_an_error(annotations, qwen_checkpoint, tmp_path):
    recipe = tiny_recipe(annotations, qwen_checkpoint, tmp_path, generator={"future": {"horizon_seconds": 9.0}})
    with pytest.raises(DatasetError, match="all of them were rejected"):
        ThoughtsBuilder(recipe).build()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generator": {"magic": {}}}, "simulator"),
        ({"generator": {"future": {"speed": 1}}}, "future do not fit"),
        ({"generator": {"simulator": {}}}, "needs a world"),
        ({"gates": {"beauty": {}}}, "gates among"),
        ({"gates": {"duplicate": 3}}, "settings of the gate duplicate as a mapping but got 3"),
        ({"prompts": {"template": "{question}"}}, "settings of prompts template as a mapping"),
    ],
)
def test_choice_that_does_not_exist_is_named(annotations, qwen_checkpoint, tmp_path, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        ThoughtsBuilder(tiny_recipe(annotations, qwen_checkpoint, tmp_path, **changes)).build()


def test_clip_over_the_limits_of_the_recipe_is_rejected_with_its_reason(annotations, qwen_checkpoint, tmp_path):
    rows = [json.loads(line) for line in annotations.read_text().splitlines()][:3]
    rows = [row | {"video": str(annotations.parent / row["video"])} for row in rows]
    rows[1]["video"] = str(write_clip(tmp_path / "large.mp4", 1, 84, 84))
    recipe = tiny_recipe(
        write_annotations(tmp_path / "rows", rows),
        qwen_checkpoint,
        tmp_path / "data",
        reading={"limits": {"max_frame_pixels": 64 * 64}},
    )
    ThoughtsBuilder(recipe).build()
    (refused,) = rejected(tmp_path / "data")
    assert (refused["id"], refused["reason"].partition(":")[0]) == ("q01", "unreadable")
    assert "84 x 84, 7,056 pixels; the limit is max_frame_pixels=4,096" in refused["reason"]


def test_clip_that_takes_too_long_is_rejected_with_its_reason(annotations, qwen_checkpoint, tmp_path):
    recipe = tiny_recipe(annotations, qwen_checkpoint, tmp_path, reading={"timeout_seconds": 1e-6})
    with pytest.raises(DatasetError, match="all of them were rejected"):
        ThoughtsBuilder(recipe).build()
    record = json.loads((tmp_path / "work" / "30_thought_videos" / "train-00000.jsonl").read_text().splitlines()[0])
    assert "was not read within timeout_seconds=1e-06" in record["reason"]


def test_local_model_writes_prompts(annotations, qwen_checkpoint, tmp_path):
    chat = {"name": str(qwen_checkpoint), "num_key_frames": 1, "max_tokens": 3, "request": "Show {question}"}
    recipe = tiny_recipe(annotations, qwen_checkpoint, tmp_path, prompts={"pipeline": chat})
    builder = ThoughtsBuilder(recipe)
    builder.read_annotations()
    builder.write_prompts()
    kept = [json.loads(path.read_text()) for path in (tmp_path / "work" / "chat").iterdir()]
    assert {answer["model"] for answer in kept} <= {str(qwen_checkpoint)}
    assert all(len(answer["revision"]) == 12 for answer in kept)
    records = [
        json.loads(line)
        for path in (tmp_path / "work" / "20_prompts").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert len(records) == 10
    prompts = {record["prompt"] for record in records if "prompt" in record}
    assert prompts
    assert prompts == {answer["prompt"] for answer in kept}
