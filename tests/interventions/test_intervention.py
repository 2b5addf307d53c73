import numpy as np
import pytest
import torch
from tests.diagnostics.thinker import NUM_LATENTS, latents_of, record_calls, tokens_of

from storm_hf.errors import ConfigurationError, LatentError
from storm_hf.interventions.intervention import Intervention, make_intervention
from storm_hf.interventions.kind import InterventionKind


@pytest.fixture
def latents():
    """Latents (8 questions, 4 steps, 32) around 3 with a spread of 2."""
    return (3 + 2 * np.random.default_rng(7).standard_normal((8, 4, 32))).astype(np.float32)


@pytest.fixture(scope="module")
def own(thinker):
    """What the model answers by itself."""
    return thinker.answer()


def fed(kind, latents, **arguments):
    return make_intervention(kind, latents, **arguments).fed


def test_zeros_are_zeros(latents):
    np.testing.assert_array_equal(fed("zero", latents), np.zeros((8, 4, 32), np.float32))


def test_mean_over_questions_is_that_of_each_step(latents):
    mean = fed("mean_over_questions", latents)
    assert mean.shape == latents.shape
    for step in range(4):
        expected = sum(latents[question, step] for question in range(8)) / 8
        np.testing.assert_allclose(mean[:, step], np.tile(expected, (8, 1)), rtol=1e-5)


def test_mean_over_steps_is_that_of_each_question(latents):
    mean = fed("mean_over_steps", latents)
    assert mean.shape == latents.shape
    for question in range(8):
        expected = sum(latents[question, step] for step in range(4)) / 4
        np.testing.assert_allclose(mean[question], np.tile(expected, (4, 1)), rtol=1e-5)


def test_first_latent_stands_in_every_step(latents):
    np.testing.assert_array_equal(fed("first", latents), np.repeat(latents[:, :1], 4, axis=1))


@pytest.mark.parametrize("kind", ["noise_per_question", "noise_per_dataset"])
def test_noise_has_mean_and_spread_of_the_latents_and_nothing_else_of_them(latents, kind):
    noise = fed(kind, latents)
    assert noise.dtype == latents.dtype
    assert noise.mean() == pytest.approx(latents.mean(), abs=0.2)
    assert noise.std() == pytest.approx(latents.std(), rel=0.05)
    assert abs(np.corrcoef(noise.ravel(), latents.ravel())[0, 1]) < 0.1
    assert not np.array_equal(noise[0, 0], noise[0, 1])
    assert not np.array_equal(noise[0], noise[1])


def test_two_noises_differ_in_the_latents_whose_size_they_have(latents):
    latents[0] *= 10
    own, common = (fed(f"noise_per_{scope}", latents) for scope in ("question", "dataset"))
    for noise, sizes in ((own, latents.std(axis=(1, 2))), (common, np.full(8, latents.std()))):
        np.testing.assert_allclose(noise.std(axis=(1, 2)), sizes, rtol=0.2)


@pytest.mark.parametrize("kind", ["noise_per_question", "noise_per_dataset"])
def test_noise_follows_its_seed(latents, kind):
    np.testing.assert_array_equal(fed(kind, latents, seed=3), fed(kind, latents, seed=3))
    assert not np.array_equal(fed(kind, latents, seed=3), fed(kind, latents, seed=4))


def test_noise_of_a_question_is_the_same_in_any_company(latents):
    among = fed("noise_per_question", latents, seed=range(10, 18))
    np.testing.assert_array_equal(fed("noise_per_question", latents[2:3], seed=12)[0], among[2])


@pytest.mark.parametrize("scale", [0.5, 2.0])
@pytest.mark.parametrize("kind", ["noise_per_question", "noise_per_dataset"])
def test_scale_multiplies_the_spread_and_leaves_the_mean(latents, kind, scale):
    made = make_intervention(kind, latents, scale=scale)
    assert made.fed.std() == pytest.approx(scale * latents.std(), rel=0.1)
    assert made.fed.mean() == pytest.approx(latents.mean(), abs=0.3)
    assert made.label.startswith(f"Noise of {scale:g} times ")


@pytest.mark.parametrize("kind", ["donor", "shuffled"])
def test_donor_gives_its_latents(latents, kind):
    donors = np.array([1, 0, 2, 2, 5, 6, 7, 4])
    made = make_intervention(kind, latents, donors=donors)
    np.testing.assert_array_equal(made.donors, donors)
    for question, donor in enumerate(donors):
        np.testing.assert_array_equal(made.fed[question], latents[donor])


def test_oracle_feeds_the_targets(latents):
    np.testing.assert_array_equal(fed("oracle", latents, targets=latents + 1), latents + 1)


def test_latent_of_one_step_is_fed_at_another(latents):
    made = make_intervention("own", latents, steps=[1], source=3)
    assert made.replaced == (1,)
    np.testing.assert_array_equal(made.fed[:, 1], latents[:, 3])


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("own", {}),
        ("no_latents", {"num_latents": 0}),
        ("latents_only", {"latent_bottleneck": True}),
    ],
)
def test_what_replaces_no_latent_only_changes_how_is_generated(latents, kind, arguments):
    made = make_intervention(kind, latents)
    assert (made.fed, made.replaced, made.generation_arguments()) == (None, (), arguments)


def test_markers_alone_are_no_argument_of_generation(latents):
    with pytest.raises(ConfigurationError, match="another prompt"):
        make_intervention("markers_only", latents).generation_arguments()


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("zeros", {}, "Expected one of own, zero, .* but got 'zeros'"),
        ("donor", {}, "`donors` of which"),
        ("shuffled", {}, "`donors` of which"),
        ("oracle", {}, "as `targets`"),
        ("zero", {"steps": [4]}, "a step from 1 to 4 but got 5"),
        ("own", {"source": -1}, "a step from 1 to 4 but got 0"),
    ],
)
def test_intervention_that_cannot_be_made_is_refused(latents, kind, arguments, message):
    with pytest.raises(ConfigurationError, match=message) as refusal:
        make_intervention(kind, latents, **arguments)
    assert isinstance(refusal.value, ValueError)


def test_latents_of_one_question_are_not_taken_for_a_batch(latents):
    with pytest.raises(LatentError, match=r"got \(4, 32\)"):
        Intervention(InterventionKind.donor, latents[0])


def test_feeding_replaces_only_the_given_steps(latents):
    intervene = Intervention(InterventionKind.donor, latents, steps=[1, 3]).feed(range(2, 5))
    own = torch.full((3, 32), 7.0)
    for step in (0, 2):
        assert intervene(step, own) is own
    for step in (1, 3):
        np.testing.assert_array_equal(intervene(step, own).numpy(), latents[2:5, step])


def test_fed_latents_take_the_type_of_those_they_replace(latents):
    assert given(latents).feed(range(8))(0, torch.zeros(8, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16


def given(latents):
    return Intervention(InterventionKind.donor, latents)


def test_feeding_its_own_latents_changes_no_answer(thinker, own):
    fed = thinker.answer(intervene=given(latents_of(own)))
    assert tokens_of(fed) == tokens_of(own)
    np.testing.assert_allclose(latents_of(fed), latents_of(own), atol=1e-5)


def test_each_row_is_fed_its_own_latents_whatever_the_batch_size(thinker, own):
    spans = []
    reversed_latents = given(latents_of(own)[::-1])
    in_batches = thinker.answer(intervene=record_calls(reversed_latents.feed, spans), batch_size=2)
    assert spans == [range(0, 2), range(2, 4), range(4, 5)]
    assert tokens_of(in_batches) == tokens_of(thinker.answer(intervene=reversed_latents))


def test_answer_follows_exchanged_latents(thinker, own):
    """The same clip and question, twice: only what is fed differs, and the answers change places with it."""
    first, last = latents_of(own)[[0, 4]]
    rows = [thinker.rows[0]] * 2
    one, other = tokens_of(thinker.answer(rows, intervene=given(np.stack([first, last]))))
    exchanged = tokens_of(thinker.answer(rows, intervene=given(np.stack([last, first]))))
    assert one == own[0].token_ids
    assert one != other
    assert exchanged == [other, one]


def test_donor_answers_what_the_donors_latents_say(thinker, own):
    latents, donors = latents_of(own), np.array([3, 0, 4, 1, 2])
    exchanged = thinker.answer(intervene=make_intervention("donor", latents, donors=donors))
    for question, donor in enumerate(donors):
        alone = thinker.answer([thinker.rows[question]], intervene=given(latents[donor][None]))
        assert exchanged[question].token_ids == alone[0].token_ids


def test_edit_in_the_middle_changes_the_steps_after_it_alone(thinker, own):
    step = 1
    edited = thinker.answer(intervene=make_intervention("zero", latents_of(own), steps=[step]))
    before, after = slice(step + 1), slice(step + 1, NUM_LATENTS)  # the model's own latents, before the edit
    np.testing.assert_allclose(latents_of(edited)[:, before], latents_of(own)[:, before], atol=1e-5)
    change = np.abs(latents_of(edited)[:, after] - latents_of(own)[:, after]).max(axis=-1)
    assert (change > 1e-2).all()
