"""A frozen model scores answers, and a recipe's gates keep what it says."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from tests.builder.tiny_build import question as question_row
from tests.builder.tiny_build import tiny_recipe, write_annotations, write_clip
from tests.thought_video.questions import numbered_clip, question
from tests.thought_video.test_visual_gain import KNOWN, bright

from storm_hf.builder import ThoughtsBuilder
from storm_hf.builder.components import FrozenScorer, ScorerSettings
from storm_hf.builder.row_steps import Row, read_records
from storm_hf.errors import ConfigurationError, PromptError, VideoReadError
from storm_hf.thought_video import ThoughtVideo


@pytest.fixture(scope="module")
def scorer(qwen_checkpoint):
    return FrozenScorer(ScorerSettings(model=str(qwen_checkpoint), num_frames=4))


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return question(numbered_clip(tmp_path_factory.mktemp("clip")), time_seconds=2.0)


def probabilities(scorer, asked, thought):
    """Of each option, as each of them is called the right one."""
    return [math.exp(scorer.score(replace(asked, answer=option), thought)) for option in asked.options]


NOISE = ThoughtVideo(**KNOWN, seed=0, frames=np.random.default_rng(0).integers(0, 256, (6, 56, 56, 3), dtype=np.uint8))


@pytest.mark.parametrize("thought", [None, NOISE], ids=["clip", "clip and thought"])
@pytest.mark.parametrize("style", ["letters", "words"])
def test_options_share_all_probability(qwen_checkpoint, asked, thought, style):
    scorer = FrozenScorer(ScorerSettings(model=str(qwen_checkpoint), num_frames=4, question_style=style))
    assert sum(probabilities(scorer, asked, thought)) == pytest.approx(1, abs=1e-5)


def test_options_that_begin_alike_are_told_apart_by_the_whole_reply(qwen_checkpoint, asked):
    scorer = FrozenScorer(ScorerSettings(model=str(qwen_checkpoint), num_frames=4, question_style="words"))
    alike = replace(asked, options=("left", "left left"), answer="left")
    shares = probabilities(scorer, alike, None)
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert shares[0] != pytest.approx(shares[1])


def test_thought_video_is_seen(scorer, asked):
    scores = {scorer.score(asked, thought) for thought in (None, NOISE, bright(200))}
    assert len(scores) == 3


def test_score_alone_sees_neither_clip_nor_question(scorer, asked):
    other = replace(asked, video=asked.video.with_name("missing.mp4"), question="Something else?")
    assert scorer.score_alone(asked, NOISE) == scorer.score_alone(other, NOISE)
    assert scorer.score_alone(asked, NOISE) != scorer.score_alone(asked, bright(200))


def test_nothing_after_the_moment_is_seen(scorer, tmp_path):
    scores = set()
    for count in (20, 40):  # the first two seconds of both are the same pictures
        (tmp_path / str(count)).mkdir()
        scores.add(
            round(scorer.score(question(numbered_clip(tmp_path / str(count), count), time_seconds=2.0), None), 4)
        )
    assert len(scores) == 1


def test_open_answer_has_the_likelihood_of_its_tokens(scorer, asked):
    short, long = (replace(asked, options=(), answer=text) for text in ("left", "left and left and left"))
    assert scorer.score(long, None) < scorer.score(short, None) < 0


def test_what_cannot_be_looked_at_is_told(scorer, asked, tmp_path):
    with pytest.raises(VideoReadError):
        scorer.score(replace(asked, video=tmp_path / "missing.mp4"), None)
    strip = ThoughtVideo(**KNOWN, seed=0, frames=np.zeros((4, 8, 8 * 300, 3), dtype=np.uint8))
    with pytest.raises(PromptError, match="cannot look at this video"):
        scorer.score(asked, strip)


@pytest.mark.parametrize("wrong", [{"dtype": "int8"}, {"question_style": "song"}, {"num_frames": 0}])
def test_setting_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigurationError):
        ScorerSettings(model="m", **wrong)


class Oracle:
    """Knows the answer of even questions once it sees a thought video, and needs no question for number four."""

    loaded = 0

    def __init__(self, settings):
        type(self).loaded += 1
        self.settings = settings

    def score(self, annotation, thought):
        if thought is None:
            assert annotation.time_seconds == 1.0  # never the continuation that the thought video shows
            return math.log(0.5)
        return math.log(0.9 if int(annotation.id[1:]) % 2 == 0 else 0.3)

    def score_alone(self, annotation, thought):
        return math.log(0.99 if annotation.id == "q04" else 0.5)


def test_gates_keep_what_helps_and_record_the_scores(annotations, qwen_checkpoint, tmp_path):
    Oracle.loaded = 0
    asking = {"model": "a-frozen-model"}
    recipe = tiny_recipe(
        annotations,
        qwen_checkpoint,
        tmp_path,
        gates={"static": {}, "visual_gain": {**asking, "min_gain": 0.1}, "giveaway": asking},
    )
    report = ThoughtsBuilder(recipe, scorer_of=Oracle).build()
    assert report.num_rejected == {"30_thought_videos": {"giveaway": 1, "visual gain": 5}}
    assert Oracle.loaded == 1  # for both gates
    rows = [
        record
        for path in sorted((tmp_path / "work" / "30_thought_videos").glob("*.jsonl"))
        for record in read_records(path, tmp_path)
        if isinstance(record, Row)
    ]
    assert [row.annotation.id for row in rows] == ["q00", "q02", "q06", "q08"]
    expected = {"without_thought": math.log(0.5), "with_thought": math.log(0.9), "thought_alone": math.log(0.5)}
    assert rows[0].scores == pytest.approx(expected, abs=1e-4)
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert "visual gain: the answer scores -0.511 with the thought video; more than +0.1 is needed" in reasons


def test_question_without_a_time_is_scored_as_its_clip_is_cut(qwen_checkpoint, tmp_path):
    write_clip(tmp_path / "0.mp4", 0)
    row = {name: value for name, value in question_row(0, "0.mp4").items() if name != "time_seconds"}
    recipe = tiny_recipe(
        write_annotations(tmp_path, [row, row | {"id": "q02"}]),
        qwen_checkpoint,
        tmp_path / "data",
        gates={"visual_gain": {"model": "m"}},
        targets={"num_latents": 2, "rank": 1},
    )
    assert ThoughtsBuilder(recipe, scorer_of=Oracle).build().num_rows == {"train": 2}


class LatentRenderer:
    """A generator whose video is brighter where its prompt says the answer."""

    source = name = license = "renderer"
    revision = "1"

    def generate(self, annotation, *, prompt, seed):
        frames = np.random.default_rng(seed).integers(0, 100, (4, 56, 56, 3), dtype=np.uint8)
        known = {**KNOWN, "generator": self.name}
        return ThoughtVideo(**known, seed=seed, frames=frames + (100 if annotation.answer in prompt else 0))


class Brightness:
    def __init__(self, settings):
        pass

    def score(self, annotation, thought):
        return -1.0 if thought is None else float(thought.read().mean()) / 100


@pytest.mark.parametrize(("template", "kind"), [("{answer}", None), ("{question}", "answer-free control")])
def test_thought_video_is_compared_with_one_that_was_not_told_the_answer(
    annotations, qwen_checkpoint, tmp_path, template, kind
):
    recipe = tiny_recipe(
        annotations,
        qwen_checkpoint,
        tmp_path,
        prompts={"template": {"template": "Show {answer}." if kind is None else "Show {question}"}},
        gates={"answer_free": {"model": "m", "template": "Show {question}", "min_advantage": 0.5}},
    )
    builder = ThoughtsBuilder(recipe, generator=LatentRenderer(), scorer_of=Brightness)
    for phase in ("annotations", "prompts", "thought_videos"):
        builder.phases[phase]()
    records = list(read_records(tmp_path / "work" / "30_thought_videos" / "train-00000.jsonl", tmp_path))
    assert {getattr(record, "kind", None) for record in records} == {kind}


def test_real_model_scores_in_a_build(annotations, qwen_checkpoint, tmp_path):
    gates = {"visual_gain": {"model": str(qwen_checkpoint), "num_frames": 4, "min_gain": -100.0}}
    recipe = tiny_recipe(annotations, qwen_checkpoint, tmp_path, gates=gates)
    assert ThoughtsBuilder(recipe).build().num_rows == {"train": 10}
    record = json.loads((tmp_path / "work" / "30_thought_videos" / "train-00000.jsonl").read_text().splitlines()[0])
    assert set(record["scores"]) == {"without_thought", "with_thought"}


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({"visual_gain": {}}, "Expected the gate visual_gain with model, which is missing"),
        ({"visual_gain": {"model": "m", "threshold": 1}}, "do not fit"),
        ({"answer_free": {"model": "m", "template": "{answer}"}}, "without the answer"),
        ({"giveaway": {"model": "m", "max_probability": 2}}, "max_probability"),
    ],
)
def test_gate_with_wrong_settings_is_named_before_anything_is_done(
    annotations, qwen_checkpoint, tmp_path, gate, message
):
    with pytest.raises(ConfigurationError, match=message):
        ThoughtsBuilder(tiny_recipe(annotations, qwen_checkpoint, tmp_path, gates=gate)).build()
    assert not (tmp_path / "work").exists()
