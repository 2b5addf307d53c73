import pytest
import torch
from tests.tiny import tiny_config, tiny_storm

from storm_hf.model import StormConfig
from storm_hf.model.latent_projector_storm import LatentProjector


@pytest.fixture
def projector():
    def build(kind):
        torch.manual_seed(0)
        return LatentProjector(StormConfig(vlm_config=tiny_config("qwen3_vl", hidden_size=256), latent_projector=kind))

    return build


def test_identity_returns_the_hidden_state_itself(projector):
    states = torch.randn(2, 256)
    assert torch.equal(projector("identity")(states), states)


def test_linear_projector_gives_unit_latents_whatever_the_scale_of_the_states(projector):
    latents = projector("linear")(1000 * torch.randn(64, 256))
    assert latents.square().mean().sqrt().item() == pytest.approx(1.0, abs=0.1)


def test_mlp_projector_keeps_the_width(projector):
    assert projector("mlp")(torch.randn(2, 3, 256)).shape == (2, 3, 256)


@pytest.mark.parametrize("kind", ["linear", "mlp", "identity"])
def test_no_parameter_has_zero_dimensions(projector, kind):
    assert all(parameter.ndim >= 1 for parameter in projector(kind).parameters())


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_new_model_starts_with_latents_of_unit_gain(kind):
    last = tiny_storm("qwen3_vl", latent_projector=kind).model.latent_projector.layers[-1]
    assert last.weight.std().item() == pytest.approx(last.in_features**-0.5, rel=0.1)
    assert last.bias.count_nonzero() == 0
