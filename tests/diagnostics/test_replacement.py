import numpy as np
import pytest
import torch
from tests.diagnostics.thinker import NUM_LATENTS, latents_of, record_calls, tokens_of

from storm_hf.diagnostics import feed, replacement
from storm_hf.diagnostics.replacement import choose_donors
from storm_hf.errors import LatentShapeError, StormError


@pytest.fixture
def latents():
    """Latents (8 questions, 4 steps, 32) around 3 with a spread of 2."""
    return (3 + 2 * np.random.default_rng(7).standard_normal((8, 4, 32))).astype(np.float32)


@pytest.fixture(scope="module")
def own(thinker):
    """What the model answers by itself."""
    return thinker.answer()


def test_zeros_are_zeros(latents):
    np.testing.assert_array_equal(replacement("zero", latents), np.zeros((8, 4, 32), np.float32))


def test_mean_is_that_of_each_step_over_the_questions(latents):
    fed = replacement("mean", latents)
    assert fed.shape == latents.shape
    for step in range(4):
        expected = sum(latents[question, step] for question in range(8)) / 8
        np.testing.assert_allclose(fed[:, step], np.tile(expected, (8, 1)), rtol=1e-5)


def test_noise_has_mean_and_spread_of_the_latents_and_nothing_else_of_them(latents):
    fed = replacement("noise", latents)
    assert fed.dtype == latents.dtype
    assert fed.mean() == pytest.approx(latents.mean(), abs=0.2)
    assert fed.std() == pytest.approx(latents.std(), rel=0.05)
    assert abs(np.corrcoef(fed.ravel(), latents.ravel())[0, 1]) < 0.1


def test_noise_follows_its_seed(latents):
    np.testing.assert_array_equal(replacement("noise", latents, seed=3), replacement("noise", latents, seed=3))
    assert not np.array_equal(replacement("noise", latents, seed=3), replacement("noise", latents, seed=4))


def test_swap_gives_each_question_the_latents_of_its_donor(latents):
    donors = np.array([1, 0, 2, 2, 5, 6, 7, 4])
    fed = replacement("swap", latents, donors=donors)
    for question, donor in enumerate(donors):
        np.testing.assert_array_equal(fed[question], latents[donor])


@pytest.mark.parametrize("kind", ["swap", "zeros", ""])
def test_unknown_replacement_or_swap_without_donors_is_refused(latents, kind):
    with pytest.raises(StormError, match=r"zero, noise, mean, first, swap \(swap with donors\)") as refusal:
        replacement(kind, latents)
    assert isinstance(refusal.value, ValueError)


def test_latents_of_one_question_are_not_taken_for_a_batch(latents):
    with pytest.raises(LatentShapeError, match=r"got \(4, 32\)"):
        feed(latents[0])


def test_feed_replaces_only_the_given_steps(latents):
    intervene = feed(latents, steps=[1, 3])(range(2, 5))
    own = torch.full((3, 32), 7.0)
    for step in (0, 2):
        assert intervene(step, own) is own
    for step in (1, 3):
        np.testing.assert_array_equal(intervene(step, own).numpy(), latents[2:5, step])


def test_fed_latents_take_the_type_of_those_they_replace(latents):
    assert feed(latents)(range(8))(0, torch.zeros(8, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_feeding_its_own_latents_changes_no_answer(thinker, own):
    fed = thinker.answer(intervene=feed(latents_of(own)))
    assert tokens_of(fed) == tokens_of(own)
    np.testing.assert_allclose(latents_of(fed), latents_of(own), atol=1e-5)


def test_each_row_is_fed_its_own_latents_whatever_the_batch_size(thinker, own):
    spans = []
    given = feed(latents_of(own)[::-1].copy())
    in_batches = thinker.answer(intervene=record_calls(given, spans), batch_size=2)
    assert spans == [range(0, 2), range(2, 4), range(4, 5)]
    assert tokens_of(in_batches) == tokens_of(thinker.answer(intervene=given))


def test_answer_follows_swapped_latents(thinker, own):
    """The same clip and question, twice: only what is fed differs, and the answers change places with it."""
    first, last = latents_of(own)[[0, 4]]
    rows = [thinker.rows[0]] * 2
    one, other = tokens_of(thinker.answer(rows, intervene=feed(np.stack([first, last]))))
    swapped = tokens_of(thinker.answer(rows, intervene=feed(np.stack([last, first]))))
    assert one == own[0].token_ids
    assert one != other
    assert swapped == [other, one]


def test_swap_with_donors_answers_what_the_donors_latents_say(thinker, own):
    latents, donors = latents_of(own), np.array([3, 0, 4, 1, 2])
    swapped = thinker.answer(intervene=feed(replacement("swap", latents, donors=donors)))
    for question, donor in enumerate(donors):
        alone = thinker.answer([thinker.rows[question]], intervene=feed(latents[donor][None]))
        assert swapped[question].token_ids == alone[0].token_ids


def test_edit_in_the_middle_changes_the_steps_after_it_alone(thinker, own):
    step = 1
    edited = thinker.answer(intervene=feed(np.zeros_like(latents_of(own)), steps=[step]))
    before, after = slice(step + 1), slice(step + 1, NUM_LATENTS)  # the model's own latents, before the edit
    np.testing.assert_allclose(latents_of(edited)[:, before], latents_of(own)[:, before], atol=1e-5)
    change = np.abs(latents_of(edited)[:, after] - latents_of(own)[:, after]).max(axis=-1)
    assert (change > 1e-2).all()


QUESTIONS = ["where?"] * 4 + ["which?"] * 3 + ["when?"]
ANSWERS = ["red", "red", "blue", "green", "red", "blue", "blue", "red"]


def test_donor_has_the_same_wording_and_another_answer():
    for seed in range(20):
        donors = choose_donors(QUESTIONS, ANSWERS, seed)
        for question, donor in enumerate(donors[:7]):
            assert QUESTIONS[donor] == QUESTIONS[question]
            assert ANSWERS[donor] != ANSWERS[question]


def test_question_without_a_donor_keeps_its_own_position():
    assert choose_donors(QUESTIONS, ANSWERS)[7] == 7


def test_donors_follow_their_seed():
    choices = [choose_donors(QUESTIONS, ANSWERS, seed).tolist() for seed in range(10)]
    assert choices == [choose_donors(QUESTIONS, ANSWERS, seed).tolist() for seed in range(10)]
    assert len({tuple(choice) for choice in choices}) > 1
