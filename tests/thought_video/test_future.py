import pytest
from tests.thought_video.questions import numbered_clip, question
from tests.video.clips import numbers

from storm_hf.errors import ConfigurationError, DatasetError
from storm_hf.thought_video import FutureGenerator, Rejected, ThoughtExample, question_clip
from storm_hf.video import read_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Forty frames in four seconds."""
    return numbered_clip(tmp_path_factory.mktemp("clips"))


def future(annotation, horizon_seconds=1.0, fps=5.0, **settings):
    generator = FutureGenerator(horizon_seconds=horizon_seconds, fps=fps, **settings)
    return generator.generate(annotation, prompt="not looked at", seed=7)


@pytest.mark.parametrize(
    ("part", "first"),
    [
        ({"time_seconds": 2.0}, 20),
        ({"time_seconds": 2.05}, 21),
        ({}, 20),
        ({"start_seconds": 1.0, "end_seconds": 2.0}, 15),
        ({"end_seconds": 900.0}, 20),
    ],
)
def test_thought_video_goes_on_where_the_question_stops_seeing(clip, part, first):
    thought = future(question(clip, **part))
    shown = numbers(thought.frames)
    assert shown[0] == first
    assert shown[1:] == [first + 2 * step - (first == 21) for step in range(1, 5)]


def test_question_that_sees_nothing_of_its_part_is_rejected(clip):
    assert future(question(clip, start_seconds=2.0, time_seconds=1.5)).kind == "too short"


def test_fraction_says_where_a_question_without_a_time_is_asked(clip):
    assert future(question(clip), fraction=0.25).seen_until_seconds == pytest.approx(1.0)


def test_record_has_the_clips_own_licence(clip):
    thought = future(question(clip, license="CC-BY-3.0"))
    assert (thought.source, thought.license, thought.seed, thought.fps) == ("future", "CC-BY-3.0", 7, 5.0)


@pytest.mark.parametrize(("moment", "enough"), [(3.0, True), (3.05, False), (9.0, False), (0.0, False)])
def test_too_little_before_or_after_the_question_is_rejected(clip, moment, enough):
    thought = future(question(clip, time_seconds=moment))
    assert isinstance(thought, Rejected) is not enough
    if not enough:
        assert thought.kind == "too short"


def test_broken_and_missing_clips_are_rejected(clip, tmp_path):
    cut_off = tmp_path / "cut.mp4"
    cut_off.write_bytes(clip.read_bytes()[:-200])
    for path in (cut_off, tmp_path / "nowhere.mp4"):
        assert future(question(path, time_seconds=2.0)).kind == "unreadable"


def test_question_and_thought_video_share_no_frame(clip, tmp_path):
    asked = question(clip, time_seconds=2.0)
    thought = future(asked)
    seen = numbers(read_video(question_clip(asked, thought, tmp_path)).frames)
    assert seen == list(range(20))
    assert set(seen).isdisjoint(numbers(thought.frames))


def test_forgetting_to_cut_the_clip_is_an_error(clip, tmp_path):
    asked = question(clip, time_seconds=2.0)
    words = {"id": asked.id, "question": asked.question, "options": asked.options, "answer": asked.answer}
    thought = future(asked)
    with pytest.raises(DatasetError, match="ends before 2"):
        ThoughtExample(**words, video=clip, thought=thought)
    assert ThoughtExample(**words, video=question_clip(asked, thought, tmp_path), thought=thought).thought is thought


@pytest.mark.parametrize("settings", [{"horizon_seconds": 0.1, "fps": 2}, {"fraction": 1.0}, {"fps": 0.0}])
def test_settings_that_show_nothing_are_refused(clip, settings):
    with pytest.raises(ConfigurationError):
        future(question(clip), **settings)
