import pytest
from tests.demo.demo_story import made_up_report

from storm_hf.demo.record import INTERVENTIONS, read_interventions
from storm_hf.errors import ReportError
from storm_hf.interventions.kind import InterventionKind


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
    with pytest.raises(ReportError, match="Expected interventions to name own, zero, noise_per_dataset"):
        made_up_report(interventions=wrong)
