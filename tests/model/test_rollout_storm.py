import pytest
import torch

from storm_hf.errors import LatentError
from storm_hf.model.rollout_storm import bounded_rollout


def plus_one(state):
    return state + 1


def doubled(latent):
    return 2 * latent


def test_each_latent_is_the_projection_of_the_state_that_the_one_before_left():
    latents = bounded_rollout(plus_one, doubled, torch.ones(2, 1), num_latents=3)
    assert latents.tolist() == [[[2.0], [5.0], [11.0]]] * 2


def test_last_latent_is_fed_too():
    fed = []
    bounded_rollout(plus_one, lambda latent: fed.append(latent.item()) or latent, torch.zeros(1, 1), num_latents=3)
    assert fed == [1.0, 2.0, 3.0]


def test_intervention_changes_what_is_fed_and_not_what_is_returned():
    steps = []

    def replace(step, latent):
        steps.append(step)
        return torch.zeros_like(latent)

    latents = bounded_rollout(plus_one, doubled, torch.ones(1, 1), num_latents=3, intervene=replace)
    assert latents.flatten().tolist() == [2.0, 1.0, 1.0]
    assert steps == [0, 1, 2]


def test_steps_count_on_in_a_later_piece_of_the_prompt():
    steps = []
    bounded_rollout(
        plus_one,
        doubled,
        torch.ones(1, 1),
        num_latents=2,
        intervene=lambda step, latent: steps.append(step) or latent,
        first_step=3,
    )
    assert steps == [3, 4]


@pytest.mark.parametrize(
    "fed", [torch.zeros(1, 3), torch.zeros(3), None, [0.0, 0.0, 0.0]], ids=["row", "vector", "none", "list"]
)
def test_intervention_that_returns_another_shape_is_refused(fed):
    with pytest.raises(LatentError, match=r"return a tensor of shape \(2, 3\).* in step 0"):
        bounded_rollout(lambda state: state, lambda latent: latent, torch.ones(2, 3), 2, intervene=lambda *_: fed)


def test_intervention_that_writes_in_place_leaves_the_latents_that_are_returned():
    state = torch.ones(2, 3)
    latents = bounded_rollout(
        lambda state: state + 1, lambda latent: latent, state, 2, intervene=lambda _, latent: latent.zero_()
    )
    assert latents.tolist() == [[[2.0] * 3, [1.0] * 3]] * 2
