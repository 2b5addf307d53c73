"""How long a model thinks, against how long it should."""

import numpy as np
import pytest
import torch
from tests.diagnostics.thinker import NUM_LATENTS, make_thinker
from torch.testing import assert_close

from storm_hf.diagnostics.diagnosis import diagnose
from storm_hf.diagnostics.halting import describe_halting, rank_correlation
from storm_hf.diagnostics.page import write_diagnosis
from storm_hf.diagnostics.questions import Questions
from storm_hf.errors import ConfigurationError
from storm_hf.evaluation import Answer, ClipQuestion, ask, ask_with_replaced_latents, read_clip


REASONS = {"targets": "The data has no thoughts.", "states": "The data has no states.", "simulator": "No world."}


@pytest.fixture(scope="module")
def halting(tmp_path_factory):
    """A model that stops after the second latent, whatever it sees."""
    thinker = make_thinker(tmp_path_factory.mktemp("clips"), num_rows=4)
    thinker.model.add_halting_head()
    torch.nn.init.constant_(thinker.model.model.halting_head.bias, -0.5)  # .38, then .61 of having ended
    return thinker


def answers_of(*lengths):
    return [Answer("red", "red", None, [1], length) for length in lengths]


def rows_of(*depths):
    return [{"answer": "red", "options": ["red", "blue"], "depth": depth} for depth in depths]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3], [10, 20, 30], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 1, 2, 2], [1, 2, 1, 2], 0.0),
        ([1, 2, 2, 3], [1, 2, 3, 4], 0.9486833),  # with mean ranks of ties
        ([1, 2, 3], [5, 5, 5], None),
    ],
)
def test_rank_correlation_is_spearmans(first, second, expected):
    found = rank_correlation(np.array(first), np.array(second))
    assert found == (None if expected is None else pytest.approx(expected))


def test_lengths_are_described_and_compared_with_the_steps_of_the_rows():
    found = describe_halting(answers_of(1, 2, 2, 4), rows_of(0, 1, 2, 6))
    assert (found.accuracy, found.mean_latents, found.counts) == (1.0, 2.25, [1, 2, 0, 1])
    assert found.depth_correlation == pytest.approx(0.9486833)


def test_rows_without_depths_have_no_correlation():
    rows = [{"answer": "red", "options": ["red", "blue"]}] * 2
    assert describe_halting(answers_of(1, 2), rows).depth_correlation is None


def test_answers_of_fixed_thoughts_are_refused():
    with pytest.raises(ConfigurationError, match="Ask with `halting=True`"):
        describe_halting(answers_of(1, None), rows_of(1, 2))


def test_answers_know_their_latents_only_where_the_model_halts(halting):
    fixed, free = halting.answer(), halting.answer(halting=True)
    assert {answer.num_latents for answer in fixed} == {None}
    assert {answer.num_latents for answer in free} == {2}
    for one, other in zip(fixed, free, strict=True):
        assert one.latents.shape[0] == NUM_LATENTS
        assert_close(other.latents, one.latents[:2], rtol=1e-4, atol=1e-5)


def test_question_that_is_asked_halts_and_is_asked_again_with_as_many_latents(halting):
    row = halting.rows[0]
    question = ClipQuestion(read_clip(row["video"], halting.processor), row["question"], row["options"])
    free = ask(halting.model, halting.processor, question)
    assert free.num_latents == 2
    assert free.token_ids == ask(halting.model, halting.processor, question, num_latents=2).token_ids
    assert ask(halting.model, halting.processor, question, halting=False).latents.shape[0] == NUM_LATENTS
    replaced = ask_with_replaced_latents(halting.model, halting.processor, question, free, "zero")
    assert replaced.latents.shape[0] == 2


def test_diagnosis_tells_how_long_the_model_thinks(halting, tmp_path):
    found = diagnose(halting.model, halting.processor, Questions(halting.rows, None, None, None, REASONS))
    assert found.halting.mean_latents == 2.0
    assert found.num_latents == NUM_LATENTS
    assert "after 2.00 of 4 latents on average" in write_diagnosis(tmp_path, found).read_text()
