"""transformers' common tests of processors, on a Qwen2.5-VL processor with our tokens and our template."""

import unittest
from typing import Any

from tests.tiny import tiny_processor
from transformers import Qwen2_5_VLProcessor
from transformers.testing_utils import require_torch, require_vision

from storm_hf.model import add_latent_tokens

from ...test_processing_common import ProcessorTesterMixin


@require_vision
@require_torch
class StormProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    """The backbone's stock class: `AutoProcessor` needs no code of ours."""

    processor_class = Qwen2_5_VLProcessor

    @classmethod
    def _setup_from_components(cls) -> Any:
        return add_latent_tokens(tiny_processor(), num_latents=4)
