import json
import shutil

import numpy as np
import pytest
from tests.demo.demo_story import made_up_report

from storm_hf.demo import demo_recipe, report_data
from storm_hf.demo.folder import DemoFolder
from storm_hf.demo.report_data import INTERVENTIONS, read_interventions, read_story
from storm_hf.demo.variants import TITLES
from storm_hf.diagnostics import ThoughtGallery
from storm_hf.errors import DatasetError
from storm_hf.interventions.kind import InterventionKind
from storm_hf.video import read_video, write_video
from storm_hf.worlds import make_world


NUM_LATENTS = 6
DEPTHS = (0, 6, 5, 6, 6, 6)
HIDDEN_SIZE = 8


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Test clips of the shuffle world, whose answers are not all different."""
    folder, world = tmp_path_factory.mktemp("clips"), make_world("shuffle")
    rows = []
    for seed, depth in enumerate(DEPTHS):
        episode = world.episode(seed, depth=depth)
        clip = write_video(folder / f"clip{seed}.mp4", episode.clip, fps=episode.fps)
        thought = write_video(folder / f"thought{seed}.mp4", episode.thought, fps=episode.fps)
        rows.append(
            {
                "video": str(clip),
                "thought_video": str(thought),
                "question": episode.question,
                "options": list(episode.options),
                "answer": episode.answer,
                "states": list(episode.states),
                "depth": depth,
            }
        )
    return rows


@pytest.fixture
def folder(rows, tmp_path, monkeypatch):
    """Files of the workers. The latents of each clip are the gallery's entries of its true states."""
    folder = DemoFolder(tmp_path)
    for number, name in enumerate(TITLES):
        folder.variant(name).mkdir(parents=True)
        openly = {"open": {"accuracy": 0.75}} if name == "terse_chain" else {}
        (folder.variant(name) / "results.json").write_text(json.dumps({**results(number, rows), **openly}))
    states = ["red", "blue", "green", "yellow"]
    frames = np.stack([np.full((16, 64, 3), 60 * entry, np.uint8) for entry in range(4)])
    ThoughtGallery(np.eye(4, HIDDEN_SIZE, dtype=np.float32), states, frames).save(folder.storm)
    deep = [index for index, row in enumerate(rows) if row["depth"] >= 5]
    entries = np.array([[states.index(state) for state in rows[index]["states"]] for index in deep])
    np.savez_compressed(folder.path / "latents.npz", latents=np.eye(4, HIDDEN_SIZE)[entries], indices=np.array(deep))
    monkeypatch.setattr(report_data, "load_thoughts", lambda data: {"test": rows})
    return folder


def results(number, rows):
    """Numbers of a variant that differ from those of the others."""
    return {
        "accuracy": number / 10,
        "by_depth": {"0": 1.0, "6": number / 10},
        "forward_passes": 1.0 + number,
        "seconds_per_answer": 0.1,
        "train_seconds": 5.0,
        "choices": [None if number == 0 else row["answer"] for row in rows],
        "num_updates": 100 + number,
        "num_parameters": 1000 + number,
        "cosine_raw": 0.99,
        "cosine_used": 0.01,
        "cosine_reached": 0.8,
    }


@pytest.fixture
def story(folder):
    return read_story(folder, demo_recipe("shuffle"), "storm demo", "2 CPU cores", {"torch": "2"})


def test_examples_are_the_deepest_clips_of_different_answers(story, rows):
    answers = [example.answer for example in story.examples]
    assert len(set(answers)) == len(answers) == min(3, len({row["answer"] for row in rows[1:]}))
    depth_of = {row["video"]: row["depth"] for row in rows}
    shown = [depth_of[example.clip] for example in story.examples]
    assert shown == sorted(shown, reverse=True)
    assert min(shown) >= 5


def test_example_shows_its_own_clip_thought_and_answers(story, rows):
    for example in story.examples:
        row = next(row for row in rows if row["video"] == example.clip)
        assert (example.thought, example.question, example.answer) == (
            row["thought_video"],
            row["question"],
            row["answer"],
        )
        assert example.options == tuple(row["options"])
        assert example.given == {"storm": row["answer"], "direct": "nothing readable"}


def test_each_step_shows_what_the_latent_resembles_beside_the_truth(story, rows):
    for example in story.examples:
        row = next(row for row in rows if row["video"] == example.clip)
        assert len(example.steps) == NUM_LATENTS
        thought = read_video(row["thought_video"]).frames
        for number, step in enumerate(example.steps):
            assert step.neighbours[0].state == step.true_state == row["states"][number]
            assert step.neighbours[0].similarity == pytest.approx(1)
            assert len(step.neighbours) == 3
            assert step.share > 0.99
            np.testing.assert_array_equal(step.true_frame, thought[2 * number + 1])


def test_story_gives_each_variant_its_own_numbers(story):
    assert {name: training.num_updates for name, training in story.training.items()} == {
        name: 100 + number for number, name in enumerate(TITLES)
    }
    assert story.extra_variants["terse_chain"].forward_passes == 3
    assert story.extra_open == {"terse_chain": 0.75}
    assert story.extra_by_depth == {"chain_of_thought": {"0": 1.0, "6": 0.1}}
    assert (story.cosines.raw, story.cosines.used, story.cosines.reached) == (0.99, 0.01, 0.8)


def test_story_names_the_deep_clips_in_the_words_of_the_world(story):
    assert story.recipe.deep_clips == "clips with 5 or 6 swaps"


def test_story_of_an_unfinished_run_cannot_be_read(folder):
    shutil.rmtree(folder.variant("align"))
    with pytest.raises(FileNotFoundError, match="align"):
        read_story(folder, demo_recipe("shuffle"), "storm demo", "2 CPU cores", {})


def test_interventions_have_the_names_of_all_commands():
    assert set(INTERVENTIONS) - {"follows_donor"} <= set(InterventionKind)


def test_results_of_earlier_versions_are_read_with_todays_names():
    earlier = {"none": 1.0, "zero": 0.2, "noise": 0.3, "mean": 0.4, "swap_follows_donor": 0.9, "oracle": 0.8}
    now = {
        "own": 1.0,
        "zero": 0.2,
        "noise_per_dataset": 0.3,
        "mean_over_questions": 0.4,
        "follows_donor": 0.9,
        "oracle": 0.8,
    }
    assert read_interventions(earlier) == read_interventions(now) == now
    assert read_interventions({"without_clip": 0.5}) == {"latents_only": 0.5}


@pytest.mark.parametrize("wrong", [{"zero": 0.2}, {**made_up_report().interventions, "mean": 0.4}])
def test_report_without_all_interventions_or_with_others_is_refused(wrong):
    with pytest.raises(DatasetError, match="Expected interventions to name own, zero, noise_per_dataset"):
        made_up_report(interventions=wrong)
