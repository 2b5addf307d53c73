import pytest

from storm_hf.diagnostics.intervention_effects import Effect
from storm_hf.diagnostics.verdict import judge
from storm_hf.evaluation.bootstrap import Interval


NOTHING = Interval(0.0, 0.0, 0.0)


def share(mean, half=0.04):
    return Interval(mean, max(mean - half, 0.0), min(mean + half, 1.0))


def effects(own=0.95, without=0.26, steered=0.9, half=0.04, *, has_donors=True):
    """The effects of a model; chance is .25."""
    lost = Interval(own - without, own - without - half, own - without + half)
    steer = Interval(steered, steered - half, steered + half) if has_donors else None
    return {
        "own": Effect("Its own latents", share(own), NOTHING, NOTHING, NOTHING),
        "zero": Effect("Zeros", share(without), lost, share(0.7), share(2.0)),
        "mean_over_questions": Effect("The mean latent", share(0.2), share(0.7), share(0.7), share(2.0)),
        "donor": Effect(
            "Another's",
            share(0.05),
            share(0.9),
            share(0.9),
            share(5.0),
            0.0,
            share(steered) if has_donors else None,
            steer,
        ),
    }


def outcome(num_clips=512, **model):
    return judge(effects(**model), 0.25, num_clips).outcome


def test_latents_are_used_if_they_steer_and_their_content_is_needed():
    assert outcome() == "used"


@pytest.mark.parametrize("model", [{"steered": 0.52, "half": 0.04}, {"without": 0.55, "half": 0.04}])
def test_point_value_above_a_threshold_is_not_enough(model):
    assert outcome(**model) == "partly"
    assert outcome(**{**model, "half": 0.001}) == "used"


def test_right_answers_that_need_no_latents_are_not_use():
    assert outcome(without=0.95, steered=0.0) == "not_used"


def test_steering_without_need_is_partial_use_and_so_is_need_without_steering():
    assert outcome(without=0.95, steered=0.9) == "partly"
    assert outcome(without=0.26, steered=0.0) == "partly"


def test_model_that_guesses_never_uses_its_latents_but_may_be_steered():
    assert outcome(own=0.25, without=0.25, steered=0.0) == "not_used"
    assert outcome(own=0.25, without=0.25, steered=0.9) == "partly"


def test_wide_intervals_show_neither_use_nor_its_absence():
    assert outcome(own=0.25, without=0.25, steered=0.03, half=0.1) == "unclear"


def test_few_clips_show_nothing_however_clear_they_look():
    verdict = judge(effects(), 0.25, 29)
    assert verdict.outcome == "unclear"
    assert verdict.sentence.startswith("29 clips are too few, at least 30 are needed.")
    assert outcome(num_clips=30) == "used"


def test_without_donors_use_cannot_be_shown():
    verdict = judge(effects(has_donors=False), 0.25, 512)
    assert verdict.outcome == "partly"
    assert "whether they steer cannot be seen" in verdict.sentence


def test_the_replacement_that_flatters_least_counts():
    verdict = judge(effects(without=0.9), 0.25, 512)
    assert verdict.outcome == "partly"
    assert "with zeros, the best of all replacements without content, 90%" in verdict.sentence


def test_sentence_says_numbers_with_their_intervals():
    sentence = judge(effects(), 0.25, 512).sentence
    assert "becomes that clip's in 90% (95% interval 86% to 94%) of the cases" in sentence
    assert "where guessing gets 25%" in sentence


def test_stake_is_taken_at_its_worse_end():
    lost = judge(effects(own=0.75, without=0.5, half=0.0), 0.25, 512).lost_share
    assert lost.mean == pytest.approx(0.25 / 0.5)
    assert lost.low == pytest.approx(0.25 / 0.54)
    assert lost.high == pytest.approx(0.25 / 0.46)
