"""transformers' common tests of models, on a tiny STORM that thinks before each answer."""

import unittest
from typing import Any

import torch
from tests import tiny
from transformers.testing_utils import require_torch

from storm_hf.model import StormConfig, StormForConditionalGeneration
from storm_hf.model.modeling_storm import StormModel

from ...generation.test_utils import GenerationTesterMixin
from ...test_configuration_common import ConfigTester
from ...test_modeling_common import ModelTesterMixin


KIND = "llava_onevision"  # its pixels have a row per prompt, as the common tests expect
NUM_LATENTS = 3
BATCH_SIZE = 7  # the tests of attention kernels ask for seven rows and would fill up fewer with random tokens
LATENT_IDS = {tiny.LATENT_START: 97, tiny.LATENT: 98, tiny.LATENT_END: 99}  # low: a test cuts the vocabulary's end off
STORM = {
    "num_latents": NUM_LATENTS,
    "latent_start_token_id": LATENT_IDS[tiny.LATENT_START],
    "latent_token_id": LATENT_IDS[tiny.LATENT],
    "latent_end_token_id": LATENT_IDS[tiny.LATENT_END],
}


class StormModelTester:
    """Makes the configuration and the inputs that the common tests ask for."""

    def __init__(self, parent: unittest.TestCase) -> None:
        self.parent = parent
        self.batch_size = BATCH_SIZE
        self.is_training = True
        text = tiny.tiny_config(KIND).get_text_config()
        self.hidden_size = text.hidden_size
        self.num_hidden_layers = text.num_hidden_layers
        self.num_attention_heads = text.num_attention_heads
        self.vocab_size = text.vocab_size
        self.seq_length = self.prepare_config_and_inputs_for_common()[1]["input_ids"].shape[1]

    def get_config(self) -> StormConfig:
        """A STORM around a backbone of two layers."""
        return StormConfig(vlm_config=tiny.tiny_config(KIND), **STORM)

    def prepare_config_and_inputs_for_common(
        self, batch_size: int = BATCH_SIZE
    ) -> tuple[StormConfig, dict[str, torch.Tensor]]:
        """Prompts of one length with a video, a latent block and three tokens of an answer."""
        suffix = (tiny.LATENT_END, 7, 8, 9)
        inputs = tiny.tiny_inputs(KIND, (5,) * batch_size, num_latents=NUM_LATENTS, suffix=suffix)
        for old, new in LATENT_IDS.items():
            inputs["input_ids"][inputs["input_ids"] == old] = new
        return self.get_config(), inputs


class StormCommonTest(ModelTesterMixin):
    """Shared parts of the tests of the body and of the model with its head."""

    additional_model_inputs = ["pixel_values_videos"]
    skip_test_image_features_output_shape = True  # a row per picture or frame, as the backbone's own tests have it
    skip_test_video_features_output_shape = True
    test_all_params_have_gradient = False  # SigLIP's pooling head is no part of what the backbone reads
    _is_composite = True

    def _image_features_prepare_config_and_inputs(self) -> tuple[StormConfig, dict[str, torch.Tensor]]:
        pixels = torch.randn(BATCH_SIZE, 2, 3, 28, 28)
        return self.model_tester.get_config(), {
            "pixel_values": pixels,
            "image_sizes": torch.tensor([[28, 28]] * BATCH_SIZE),
        }


@require_torch
class StormForConditionalGenerationTest(StormCommonTest, GenerationTesterMixin, unittest.TestCase):
    """The model with its head."""

    all_model_classes = (StormForConditionalGeneration,)

    def setUp(self) -> None:
        self.model_tester = StormModelTester(self)
        self.config_tester = ConfigTester(self, config_class=StormConfig, has_text_modality=True, **STORM)

    def _prepare_for_class(self, inputs: Any, model_class: Any, return_labels: bool = False) -> Any:
        prepared = super()._prepare_for_class(inputs, model_class, return_labels=return_labels)
        if return_labels:
            prepared["labels"] = prepared["input_ids"].clone()
            prepared["labels"][:, :-3] = -100
        return prepared

    def test_config(self) -> None:
        """The common tests of configurations, which are one test."""
        self.config_tester.run_common_tests()


@require_torch
class StormModelTest(StormCommonTest, unittest.TestCase):
    """The body, which has no loss."""

    all_model_classes = (StormModel,)

    def setUp(self) -> None:
        self.model_tester = StormModelTester(self)
        self.model_tester.is_training = False
