from pathlib import Path

import pytest
from tests.evaluation.harness.standin import write_standins

from storm_hf.model import StormForConditionalGeneration
from storm_hf.model.processing_storm import add_latent_tokens


NUM_LATENTS = 4


@pytest.fixture(scope="session")
def storm_checkpoint(qwen_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a STORM made of the plain tiny checkpoint, shared: read only."""
    from transformers import AutoProcessor, set_seed

    folder = tmp_path_factory.mktemp("harness") / "storm"
    processor = add_latent_tokens(AutoProcessor.from_pretrained(qwen_checkpoint), NUM_LATENTS)
    set_seed(0)
    model = StormForConditionalGeneration.from_backbone(
        str(qwen_checkpoint), NUM_LATENTS, processor=processor, latent_scale=0.5
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stand-ins of the four benchmarks, shared: read only."""
    return write_standins(tmp_path_factory.mktemp("standins"))
