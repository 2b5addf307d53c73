import dataclasses

import pytest
from tests.demo.demo_story import interventions, made_up_report, made_up_story, with_naive_targets

from storm_hf.demo.report_data import OpenQuestions, Retrieval
from storm_hf.demo.verdict import judge
from storm_hf.evaluation.bootstrap import wilson_interval


NAIVE_COSINES = (0.987, 0.987, 0.994)
INERT = interventions(0.256, 0.256, 0.256, 0.256, 0.0, 0.256)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    return made_up_story(tmp_path_factory.mktemp("clips"))


def intervened(**replaced: float) -> dict[str, float]:
    return {**made_up_report().interventions, **replaced}


def open_questions(**replaced: float) -> OpenQuestions:
    asked = made_up_report().open
    return dataclasses.replace(asked, arms={**asked.arms, **replaced})


def test_good_run_works_and_says_by_how_much(story):
    verdict = judge(made_up_report(), story)
    assert verdict.outcome == "works"
    for number in ("512", "99.6%", "28.3%", "25%", "25.8%", "99.4%"):
        assert number in verdict.sentence


@pytest.mark.parametrize(
    ("replaced", "named"),
    [
        ({"storm": 0.90}, "stays below 95%"),
        ({"direct": 0.99}, "direct answering is as good"),
        ({"open": open_questions(storm=0.4)}, "asked without options, STORM answers 40% correctly"),
        (
            {"interventions": intervened(noise_per_dataset=0.5)},
            "fed noise of all latents' size, it still answers 50% correctly",
        ),
        ({"interventions": intervened(follows_donor=0.8)}, "another clip's latents steer 80%"),
        ({"retrieval": Retrieval(0.6, 256, 0.25)}, "60% of the latents lie nearest"),
        ({"by_depth": {"0": {"direct": 1.0, "storm": 1.0}, "6": {"direct": 0.2, "storm": 0.7}}}, "at 6 swaps"),
    ],
)
def test_each_shortfall_is_named(story, replaced, named):
    verdict = judge(made_up_report(**replaced), story)
    assert verdict.outcome == "partly"
    assert named in verdict.sentence


def test_right_answers_without_the_latents_are_no_success(story):
    verdict = judge(made_up_report(interventions=intervened(zero=0.98, follows_donor=0.01)), story)
    assert verdict.outcome == "unused"
    assert verdict.headline == "The answers do not come from the latents."
    assert "with zeros in their place 98% are still correct" in verdict.sentence


@pytest.mark.parametrize("kind", ["zero", "noise_per_dataset", "mean_over_questions"])
def test_answers_that_survive_any_replacement_do_not_come_from_the_latents(story, kind):
    assert judge(made_up_report(interventions=intervened(**{kind: 0.9})), story).outcome == "unused"


def test_latents_that_matter_but_do_not_steer_are_not_used(story):
    assert judge(made_up_report(interventions=intervened(follows_donor=0.1)), story).outcome == "unused"


def test_accuracy_within_the_error_of_chance_is_a_failure(story):
    verdict = judge(made_up_report(storm=0.28), story)
    assert verdict.outcome == "fails"
    assert verdict.headline == "It does not work."
    assert "it is the imagining that fails" in verdict.sentence


def test_model_that_cannot_read_the_true_targets_is_told_apart(story):
    verdict = judge(made_up_report(storm=0.256, interventions=INERT), story)
    assert verdict.outcome == "fails"
    assert "nothing is read from the latents" in verdict.sentence


def test_naive_targets_are_named_as_the_reason(story):
    naive = with_naive_targets(story, *NAIVE_COSINES)
    verdict = judge(made_up_report(storm=0.256, interventions=INERT), naive)
    assert verdict.outcome == "fails"
    assert "The latents are not used" in verdict.sentence
    assert "nearly identical (random-pair cosine 0.987)" in verdict.sentence
    assert "nothing to carry" in verdict.sentence


def test_naive_targets_that_hold_the_answer_are_not_called_empty(story):
    naive = with_naive_targets(story, *NAIVE_COSINES)
    inert = INERT | {"oracle": 1.0}
    verdict = judge(made_up_report(storm=0.256, interventions=inert), naive)
    assert "fed those, it answers 100% correctly" in verdict.sentence
    assert "nothing to carry" not in verdict.sentence


def test_naive_targets_that_differ_are_not_called_identical(story):
    naive = with_naive_targets(story, 0.4, 0.4, 0.9)
    verdict = judge(made_up_report(storm=0.256, interventions=INERT), naive)
    assert "nearly identical" not in verdict.sentence


def test_naive_targets_that_work_are_not_called_a_failure(story):
    naive = with_naive_targets(story, *NAIVE_COSINES)
    assert judge(made_up_report(), naive).outcome == "works"


def test_interval_holds_the_share_and_narrows_with_more_trials():
    low, high = wilson_interval(0.5, 100)
    assert (low, high) == pytest.approx((0.404, 0.596), abs=1e-3)
    assert wilson_interval(0.5, 10_000)[0] > low
    assert wilson_interval(1.0, 64)[1] == pytest.approx(1.0)
    assert 0.9 < wilson_interval(1.0, 64)[0] < 1
