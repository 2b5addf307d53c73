import pytest
from tests.tiny import tiny_storm

from storm_hf.checkpoints.loading import is_storm, load_plain
from storm_hf.errors import CheckpointError


def test_plain_checkpoint_is_told_from_a_storm(qwen_checkpoint, tmp_path):
    tiny_storm("qwen2_5_vl").save_pretrained(tmp_path)
    assert is_storm(str(tmp_path))
    assert not is_storm(str(qwen_checkpoint))


def test_plain_checkpoint_is_loaded_for_inference_with_its_processor(qwen_checkpoint):
    model, processor = load_plain(str(qwen_checkpoint))
    assert model.config.model_type == "qwen2_5_vl"
    assert not model.training
    assert len(processor.tokenizer) <= model.config.text_config.vocab_size


def test_folder_that_is_no_checkpoint_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot be loaded: .*\.$"):
        load_plain(str(tmp_path))
