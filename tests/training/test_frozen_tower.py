"""A frozen vision tower runs forward only: nothing of it is kept for a backward pass that it does not have."""

import gc
import weakref

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.tiny import tiny_storm
from tests.training.test_trainer import TOWER_AND_MERGER
from tests.training.tiny_training import NUM_LATENTS, STAGES, TinyCollator, tiny_trainer
from torch import nn

from storm_hf.training.trained_weights import freeze_vision


IN_THE_DECODER = r".*(language_model|text_model)\.layers\.\d+\..*_proj"
ADAPTER = LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=IN_THE_DECODER, modules_to_save=["latent_projector"])
# PEFT reads an attribute that transformers has renamed (https://github.com/huggingface/peft).
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


class Kept:
    """A tensor in autograd's keeping; it dies when nothing can go back to it."""

    def __init__(self, tensor):
        self.tensor = tensor


class Watch:
    """Watches what autograd still holds of the tower's forward pass when the whole model has run."""

    def __init__(self, model, kind):
        self.inside, self.packed, self.held, self.num_runs = [], [], [], 0
        storm = model.get_base_model() if hasattr(model, "get_base_model") else model
        modules = dict(storm.named_modules())
        for prefix in TOWER_AND_MERGER[kind]:
            if isinstance(part := modules.get(f"model.backbone.{prefix.removesuffix('.')}"), nn.Module):
                part.register_forward_pre_hook(self.enter)
                part.register_forward_hook(self.leave)
        storm.register_forward_hook(self.look)

    def keeping(self):
        return torch.autograd.graph.saved_tensors_hooks(self.pack, lambda kept: kept.tensor)

    def pack(self, tensor):
        kept = Kept(tensor)
        if self.inside:
            self.packed.append(weakref.ref(kept))
        return kept

    def enter(self, module, inputs):
        self.inside.append(module)
        self.num_runs += 1

    def leave(self, module, inputs, output):
        self.inside.pop()

    def look(self, module, inputs, output):
        gc.collect()
        self.held += [tuple(kept().tensor.shape) for kept in self.packed if kept() is not None]


def held_after_forward(kind, is_frozen=True, is_checkpointed=False, has_adapter=False):
    model = tiny_storm(kind, num_latents=NUM_LATENTS).train()
    freeze_vision(model, is_frozen)
    if is_checkpointed:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model = get_peft_model(model, ADAPTER) if has_adapter else model
    watch = Watch(model, kind)
    with watch.keeping():
        loss = model(**TinyCollator(kind)([{"number": 1}, {"number": 2}]), use_cache=False).loss
    assert watch.num_runs, "the tower ran"
    assert loss.requires_grad
    return watch.held


@pytest.mark.parametrize("has_adapter", [False, True])
@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_frozen_tower_keeps_no_activations(is_checkpointed, has_adapter, kind):
    assert held_after_forward(kind, is_checkpointed=is_checkpointed, has_adapter=has_adapter) == []


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_tower_that_trains_keeps_what_it_needs(is_checkpointed, kind):
    assert held_after_forward(kind, is_frozen=False, is_checkpointed=is_checkpointed) != []


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("has_adapter", [False, True])
def test_frozen_tower_keeps_no_activations_in_a_trainer(stage, has_adapter, tmp_path):
    model = tiny_storm("qwen2_5_vl", num_latents=NUM_LATENTS)
    model = get_peft_model(model, ADAPTER) if has_adapter else model
    trainer = tiny_trainer(
        stage, "qwen2_5_vl", tmp_path, model=model, max_steps=1, num_rows=2, gradient_checkpointing=True
    )
    watch = Watch(trainer.model, "qwen2_5_vl")
    with watch.keeping():
        trainer.train()
    assert watch.num_runs
    assert watch.held == []


def test_gradients_reach_the_embedded_tokens_when_they_are_asked_for(kind):
    storm = tiny_storm(kind)
    embeddings = storm.get_input_embeddings()
    embeddings.weight.requires_grad_(False)
    storm.enable_input_require_grads()
    storm.enable_input_require_grads()  # as TRL and transformers both do
    assert embeddings(torch.tensor([[1]])).requires_grad
    storm.disable_input_require_grads()
    assert not embeddings(torch.tensor([[1]])).requires_grad
