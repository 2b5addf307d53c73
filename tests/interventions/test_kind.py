import pytest

from storm_hf.errors import ConfigurationError
from storm_hf.interventions.kind import CONTENT_FREE, OF_ONE_QUESTION, InterventionKind, read_kind


def test_every_intervention_has_a_label_of_its_own():
    assert len({kind.label for kind in InterventionKind}) == len(InterventionKind)


@pytest.mark.parametrize("kind", InterventionKind)
def test_name_and_member_are_both_read(kind):
    assert read_kind(kind.value) is read_kind(kind) is kind


@pytest.mark.parametrize(
    ("earlier", "now"),
    [
        ("mean", "`mean_over_steps` (the mean latent over its steps) and `mean_over_questions` ("),
        ("noise", "`noise_per_question` (noise of its latents' size) and `noise_per_dataset` ("),
        ("none", "has become `no_latents`"),
        ("skipped", "has become `no_latents`"),
        ("alone", "has become `latents_only`"),
        ("without_clip", "has become `latents_only`"),
        ("swap", "has become `donor`"),
        ("other", "has become `donor`"),
        ("first_repeated", "has become `first`"),
    ],
)
@pytest.mark.parametrize("known", [tuple(InterventionKind), OF_ONE_QUESTION], ids=["all", "one question"])
def test_earlier_name_is_refused_with_what_it_has_become(earlier, now, known):
    with pytest.raises(ConfigurationError, match="Expected one of ") as refusal:
        read_kind(earlier, known)
    assert now in str(refusal.value)


@pytest.mark.parametrize("name", ["", "zeros", "Zero", 0, None, ["zero"]])
def test_unknown_name_is_refused_with_those_that_are_known(name):
    with pytest.raises(ConfigurationError) as refusal:
        read_kind(name, OF_ONE_QUESTION)
    expected = "zero, noise_per_question, mean_over_steps, no_latents, latents_only"
    assert str(refusal.value) == f"Expected one of {expected} but got {name!r}."


def test_statistics_of_a_data_set_are_none_of_a_single_question():
    assert not {"noise_per_dataset", "mean_over_questions"} & set(OF_ONE_QUESTION)
    assert not {"noise_per_question", "mean_over_steps"} & set(CONTENT_FREE)
