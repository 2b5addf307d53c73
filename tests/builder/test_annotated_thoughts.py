"""From files in the form of public collections to data sets whose thought videos need no video generator."""

import json
import os
import signal
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from tests.builder.test_stage_one import train_a_step
from tests.builder.tiny_build import published, tiny_recipe, write_annotations, write_clip
from typer.testing import CliRunner

from storm_hf.annotations import Box, KeyFrame
from storm_hf.builder import ThoughtsBuilder, ThoughtsRecipe
from storm_hf.builder.components import check_components
from storm_hf.builder.row_steps import Row, read_records, write_records
from storm_hf.cli import app
from storm_hf.errors import ConfigurationError
from storm_hf.pipeline.workspace import read_fingerprint
from storm_hf.target_trajectory import load_thoughts
from storm_hf.thought_video import WorldSplit
from storm_hf.video import read_video


RECIPES = Path(__file__).parents[2] / "datasets_builders" / "recipes"
FORK = get_context("fork")
NUM_CLIPS = 4


def write_video_r1(folder):
    """Rows with a chain each, one without, one whose chain says the answer early, and one about an image."""
    chains = [
        f"A ball rolls to the left.\nIt hits thing {number}.\nSo the answer is A." for number in range(NUM_CLIPS)
    ]
    chains += ["", "The answer is A, I think.\nThe ball rolls.\nYes, A."]
    rows = [
        {
            "path": f"clips/{number % NUM_CLIPS}.mp4",
            "problem": f"Where does the ball go, number {number}?",
            "options": ["A. left", "B. right"],
            "data_type": "video",
            "process": f"<think>{chain}</think>",
            "solution": "<answer>A</answer>",
        }
        for number, chain in enumerate(chains)
    ]
    (folder / "Video-R1-data").mkdir()
    (folder / "clips").rename(folder / "Video-R1-data" / "clips")
    rows.append(rows[0] | {"data_type": "image"})
    (folder / "Video-R1-data" / "Video-R1-COT-165k.json").write_text(json.dumps(rows))


def write_nextgqa(folder):
    """Questions with one or two intervals, one whose interval lies outside of its clip, and one without."""
    spans = [[[0.2, 0.9]], [[0.2, 0.6], [1.0, 1.8]], [[0.5, 1.5]], [[0.0, 2.0]], [[7.0, 9.0]]]
    lines = ["video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4"]
    lines += [
        f"{number % NUM_CLIPS},8,56,56,why {number},left,{number},CW,left,right,up,down,no" for number in range(6)
    ]
    located = {str(number): {"duration": 2, "location": {}, "fps": 4} for number in range(NUM_CLIPS)}
    for number, intervals in enumerate(spans):
        located[str(number % NUM_CLIPS)]["location"][str(number)] = intervals
    (folder / "nextgqa").mkdir()
    (folder / "nextgqa" / "val.csv").write_text("\n".join(lines) + "\n")
    (folder / "nextgqa" / "gsub_val.json").write_text(json.dumps(located))
    (folder / "clips").rename(folder / "videos")


def write_video_espresso(folder):
    """Questions with key frames and boxes, one whose box is reversed, and one without key frames."""
    rows = [
        {
            "video_path": f"clips/{number % NUM_CLIPS}.mp4",
            "question": f"Why, number {number}?",
            "answer": "It rolls.",
            "evidence": "A ball rolls.",
            "key_frames": [{"time": 0.3 * number, "boxes": {"ball": [0.1, 0.2, 0.5, 0.9]}}, 1.5],
        }
        for number in range(NUM_CLIPS)
    ]
    rows.append(rows[0] | {"question": "Bad?", "key_frames": [{"time": 1, "boxes": [[0.5, 0.2, 0.1, 0.9]]}]})
    rows.append(rows[0] | {"question": "None?", "key_frames": []})
    (folder / "video_espresso").mkdir()
    (folder / "clips").rename(folder / "video_espresso" / "clips")
    (folder / "video_espresso" / "train.json").write_text(json.dumps(rows))


COLLECTIONS = {
    "video_r1_chains": (write_video_r1, "rendered_chain", {"annotation", "no chain", "stated answer"}),
    "nextgqa_evidence": (write_nextgqa, "evidence", {"outside the clip", "no evidence"}),
    "video_espresso_evidence": (write_video_espresso, "evidence", {"annotation", "no evidence"}),
}


def collection(name, folder):
    """Write the files of a collection, with real clips."""
    for number in range(NUM_CLIPS):
        write_clip(folder / "clips" / f"{number}.mp4", number)
    COLLECTIONS[name][0](folder)


def small(name, checkpoint, output):
    """The recipe of the package, with small pictures and few latents."""
    recipe = ThoughtsRecipe.read(RECIPES / f"{name}.yaml", output_dir=str(output), encoder_model=str(checkpoint))
    generator = {
        kind: {**settings, "smallest_font_px": 8} if kind == "rendered_chain" else settings
        for kind, settings in recipe.generator.items()
    }
    return replace(
        recipe,
        generator=generator,
        encoder=replace(recipe.encoder, dtype="float32"),
        targets=replace(recipe.targets, num_latents=2, rank=4),
        frame_size=(56, 112),
        rows_per_shard=2,
    )


def killed_builds(recipe, seed):
    """Begin a build twice and kill it at a drawn moment."""
    for moment in np.random.default_rng(seed).uniform(0.3, 3, size=2):
        process = FORK.Process(target=ThoughtsBuilder(recipe).build)
        process.start()
        process.join(float(moment))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()


@pytest.mark.parametrize("name", COLLECTIONS)
def test_collection_becomes_a_data_set_interrupted_or_not(name, qwen_checkpoint, tmp_path, monkeypatch):
    collection(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    report = ThoughtsBuilder(small(name, qwen_checkpoint, tmp_path / "data")).build()
    _, source, reasons = COLLECTIONS[name]
    assert report.num_rows == {"train": NUM_CLIPS}
    assert report.thoughts["source"] == {source: NUM_CLIPS}
    assert {kind for counts in report.num_rejected.values() for kind in counts} == reasons
    for row in load_thoughts(tmp_path / "data")["train"]:
        assert read_video(tmp_path / "data" / row["thought_video"]).frames.shape[1:] == (56, 112, 3)
        assert ("answer" in row["thought_prompt"]) is False
    again = small(name, qwen_checkpoint, tmp_path / "again")
    killed_builds(again, seed=1)
    ThoughtsBuilder(again).build()
    assert published(tmp_path / "again") == published(tmp_path / "data")


@pytest.mark.slow
@pytest.mark.parametrize("name", COLLECTIONS)
def test_one_command_builds_what_stage_one_trains_on(name, qwen_checkpoint, tmp_path, monkeypatch):
    collection(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    content = (RECIPES / f"{name}.yaml").read_text().replace("[224, 392]", "[56, 112]")
    content = (
        content.replace("rank: auto", "rank: 4").replace("bfloat16", "float32").replace("latents: 8", "latents: 2")
    )
    (tmp_path / "mine.yaml").write_text(content.replace("max_steps", "smallest_font_px: 8\n    max_steps"))
    result = CliRunner().invoke(app, ["build", "mine.yaml", "--model", str(qwen_checkpoint), "--out", "data"])
    assert result.exit_code == 0, result.stderr
    assert train_a_step(qwen_checkpoint, tmp_path / "data", tmp_path / "run")[0]["loss"] > 0


def test_chain_of_a_world_is_drawn_instead_of_its_states(qwen_checkpoint, tmp_path):
    recipe = ThoughtsRecipe.read(
        RECIPES / "shuffle_tiny.yaml",
        output_dir=str(tmp_path),
        encoder_model=str(qwen_checkpoint),
        generator={"rendered_chain": {"frame_size": [64, 256]}},
    )
    few = replace(recipe.world, splits={"train": WorldSplit(count=3)})
    ThoughtsBuilder(replace(recipe, world=few, targets=replace(recipe.targets, rank=4))).build()
    for row in load_thoughts(tmp_path)["train"]:
        assert len(row["thought_prompt"].splitlines()) == len(row["states"]) == 6
        assert row["thought_prompt"].splitlines()[-1].count(row["answer"])
        assert read_video(row["thought_video"]).frames.shape == (12, 64, 256, 3)
        assert np.shape(row["thought_features"])[0] == 6


def recipe_with(folder, checkpoint, **changes):
    write_clip(folder / "a.mp4", 0)
    rows = [{"id": "a", "video": "a.mp4", "question": "Where?", "answer": "left", "intervals": [[0, 1]]}]
    return tiny_recipe(write_annotations(folder, rows), checkpoint, folder / "data", **changes)


@pytest.mark.parametrize(
    ("generator", "gate", "reason"),
    [
        ({"rendered_chain": {}}, "static", "static, since pictures of text always differ"),
        ({"rendered_chain": {}}, "scene_break", "every picture shows another text"),
        ({"rendered_chain": {}}, "first_frame", "text does not begin where the clip ends"),
        ({"rendered_chain": {}}, "answer_free", "whatever the prompt says"),
        ({"rendered_chain": {}}, "duplicate", "look the same to it"),
        ({"rendered_chain": {}}, "stated_answer", "use `keeps_last_step: false`"),
        ({"rendered_chain": {}}, "giveaway", "use `keeps_last_step: false`"),
        ({"evidence": {}}, "scene_break", "moments that lie apart are cut together"),
        ({"evidence": {}}, "first_frame", "begins at the first moment"),
        ({"evidence": {}}, "answer_free", "whatever the prompt says"),
        ({"evidence": {}}, "stated_answer", "reads the text of rendered_chain, and evidence draws none"),
        ({"future": {}}, "stated_answer", "reads the text of rendered_chain, and future draws none"),
    ],
)
def test_gate_that_makes_no_sense_is_refused_with_the_reason(qwen_checkpoint, tmp_path, generator, gate, reason):
    recipe = recipe_with(tmp_path, qwen_checkpoint, generator=generator, gates={gate: {}})
    with pytest.raises(ConfigurationError) as raised:
        check_components(recipe)
    assert reason in str(raised.value)


@pytest.mark.parametrize(
    ("generator", "gates"),
    [
        ({"rendered_chain": {"keeps_last_step": False}}, {"stated_answer": {}, "giveaway": {"model": "m"}}),
        ({"rendered_chain": {}}, {"visual_gain": {"model": "m"}}),
        ({"evidence": {}}, {"static": {}, "duplicate": {}, "giveaway": {"model": "m"}, "visual_gain": {"model": "m"}}),
    ],
)
def test_gates_that_make_sense_are_taken(qwen_checkpoint, tmp_path, generator, gates):
    check_components(recipe_with(tmp_path, qwen_checkpoint, generator=generator, gates=gates))


def test_text_is_drawn_at_the_size_of_the_data_set_alone(qwen_checkpoint, tmp_path):
    chain = {"rendered_chain": {"frame_size": [112, 112]}}
    recipe = recipe_with(tmp_path, qwen_checkpoint, generator=chain, frame_size=[56, 112])
    with pytest.raises(ConfigurationError, match="Expected one frame_size but the recipe has"):
        check_components(recipe)


def test_evidence_without_annotations_is_refused(qwen_checkpoint, tmp_path):
    recipe = ThoughtsRecipe.read(RECIPES / "shuffle_tiny.yaml", generator={"evidence": {}})
    with pytest.raises(ConfigurationError, match="needs sources whose rows have intervals or key frames"):
        check_components(recipe)
    films = {"splits": {"train": {"folder": str(tmp_path), "count": 1}}}
    recipe = ThoughtsRecipe.read(RECIPES / "film_segments.yaml", generator={"rendered_chain": {}}, films=films)
    with pytest.raises(ConfigurationError, match="needs sources whose rows have a chain of thought, or a world"):
        check_components(recipe)


def test_malformed_evidence_costs_no_row_where_it_is_not_shown(qwen_checkpoint, tmp_path):
    write_clip(tmp_path / "a.mp4", 0)
    rows = [
        {"id": "a", "video": "a.mp4", "question": "Where?", "answer": "left", "intervals": "soon", "reasoning": [1]}
    ]
    annotations = write_annotations(tmp_path, rows)
    for kind, count in (("future", 1), ("evidence", 0)):
        recipe = tiny_recipe(annotations, qwen_checkpoint, tmp_path / kind, generator={kind: {}})
        ThoughtsBuilder(recipe).read_annotations()
        assert len(list((tmp_path / kind / "work" / "10_annotations").glob("train-*.jsonl"))) == count


def test_evidence_survives_the_records_of_a_build(qwen_checkpoint, tmp_path):
    recipe = recipe_with(tmp_path, qwen_checkpoint, generator={"evidence": {}})
    ThoughtsBuilder(recipe).read_annotations()
    (record,) = read_records(tmp_path / "data" / "work" / "10_annotations" / "train-00000.jsonl", tmp_path / "data")
    box = Box(left=0.1, top=0.2, right=0.5, bottom=0.6, label="cup")
    frames = (KeyFrame(seconds=1.0, boxes=(box,)), KeyFrame(seconds=2.0))
    full = Row(annotation=replace(record.annotation, chain_of_thought="Look.", key_frames=frames), seed=1)
    assert full.annotation.intervals == ((0.0, 1.0),)
    write_records(tmp_path / "records.jsonl", [full], tmp_path)
    assert list(read_records(tmp_path / "records.jsonl", tmp_path)) == [full]


def test_folder_begun_before_there_was_evidence_is_known_again(qwen_checkpoint, tmp_path):
    recipe = recipe_with(tmp_path, qwen_checkpoint)
    ThoughtsBuilder(recipe).read_annotations()
    (source,) = read_fingerprint(tmp_path / "data")["work/10_annotations"]["parameters"]["sources"]["train"]
    assert source["layout"]["join"] is None
    assert not {"chain_tag", "key_frame_fps", "box_size"} & set(source["layout"])
    assert not {"chain_of_thought", "intervals", "key_frames"} & set(source["layout"]["fields"])
    shows = replace(recipe, generator={"evidence": {}}, output_dir=str(tmp_path / "shows"))
    ThoughtsBuilder(shows).read_annotations()
    (source,) = read_fingerprint(tmp_path / "shows")["work/10_annotations"]["parameters"]["sources"]["train"]
    assert source["layout"]["fields"]["intervals"] == ["intervals"]
