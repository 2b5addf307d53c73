import math

import numpy as np
import pytest
from tests.thought_video.questions import question

from storm_hf.errors import ConfigurationError
from storm_hf.thought_video import (
    AnswerFreeGate,
    GainReport,
    Rejected,
    TemplatePrompt,
    ThoughtVideo,
    VisualGainGate,
    judge,
    visual_gain,
)


KNOWN = {"fps": 1.0, "source": "s", "generator": "g", "generator_revision": "1", "license": "x"}
ASKED = question("nowhere.mp4")


class Brightness:
    """A frozen model that believes the answer as much as its thought video is bright; without one, -1."""

    def score(self, annotation, thought):
        return -1.0 if thought is None else float(thought.read().mean()) - 3.0


class LatentRenderer:
    """A generator whose video is as bright as its prompt is long."""

    source = name = license = "renderer"
    revision = "1"

    def __init__(self):
        self.seeds = []

    def generate(self, annotation, *, prompt, seed):
        self.seeds.append(seed)
        return Rejected("too short: nothing left") if not prompt.strip("x") else bright(len(prompt), seed)


def bright(level, seed=0):
    return ThoughtVideo(**KNOWN, seed=seed, frames=np.full((2, 8, 8, 3), level, dtype=np.uint8))


def test_gain_is_the_score_with_minus_the_score_without():
    assert visual_gain(Brightness(), ASKED, bright(7)) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("level", "min_gain", "is_kept"), [(7, 0.0, True), (2, 0.0, False), (7, 5.0, False), (1, -2.0, True)]
)
def test_thought_video_is_kept_where_it_helps_enough(level, min_gain, is_kept):
    reason = VisualGainGate(Brightness(), min_gain).check(ASKED, bright(level))
    assert (reason is None) is is_kept
    assert is_kept or reason.startswith("visual gain: the answer scores ")


def test_control_is_made_from_the_same_seed_without_the_answer():
    renderer = LatentRenderer()
    gate = AnswerFreeGate(Brightness(), TemplatePrompt("{question}"), renderer)
    assert gate.check(ASKED, bright(len(ASKED.question) + 1, seed=11)) is None
    assert judge([gate], ASKED, bright(len(ASKED.question), seed=11)).kind == "answer-free control"
    assert renderer.seeds == [11, 11]


def test_control_that_cannot_be_made_is_a_reason():
    gate = AnswerFreeGate(Brightness(), TemplatePrompt("{question}"), LatentRenderer())
    assert judge([gate], question("v.mp4", question="xxx"), bright(9)).kind == "no control"
    assert judge([gate], question("v.mp4", question=" "), bright(9)).kind == "no control"


def test_control_that_says_the_answer_is_refused():
    with pytest.raises(ConfigurationError, match=r"Leave \{answer\} out"):
        AnswerFreeGate(Brightness(), TemplatePrompt("{question} {answer}"), LatentRenderer())


def test_gains_are_summarized():
    report = GainReport.of([1.0, -1.0, 2.0, 2.0])
    assert (report.num_scored, report.mean, report.share_helped) == (4, 1.0, 0.75)
    assert report.standard_error == pytest.approx(math.sqrt(2.0) / 2)
    assert math.isnan(GainReport.of([1.0]).standard_error)
    with pytest.raises(ConfigurationError):
        GainReport.of([])
