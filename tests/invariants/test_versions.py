"""The same numbers under every supported version: latents, logits, gradients and losses as recorded with an earlier one.

A renamed argument that a newer transformers still takes can drop a cache without an error: the first latent is right then and
every later one is not. Comparing with figures of the version before is what shows it.

    python -m tests.invariants.test_versions     records the figures anew, beside this file

Axes: B batch, S sequence, K latent steps, D hidden size.
"""

import json
import zlib
from pathlib import Path

import pytest
import torch
import transformers
from tests.tiny import KINDS, VOCAB_SIZE, tiny_inputs, tiny_storm
from tests.training.tiny_training import STAGES, logged, tiny_trainer

from storm_hf.model import StormForConditionalGeneration


FIGURES = Path(__file__).with_name("reference_figures.json")
NUM_LATENTS = 4
PARTS = {  # of the model, by what its parameters' names hold
    "projector": "latent_projector",
    "embedding": "embed_tokens",
    "attention": "_proj",
}
# Single precision through a rollout and three updates: instruction sets alone (`ATEN_CPU_CAPABILITY=default` against the
# processor's own) move these figures by up to 4e-4 of their size. A field that a version ignores moves them by tenths.
TOLERANCE = {"rtol": 2e-3, "atol": 2e-4}

Figures = dict[str, list]


@torch.no_grad()
def same_weights(model: StormForConditionalGeneration) -> StormForConditionalGeneration:
    """Give a model weights that depend on their names alone, whatever order a version initialises modules in."""
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        noise = torch.randn(parameter.shape, generator=generator)
        gain = 0.7 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.05
        parameter.copy_(gain * noise + (parameter.ndim == 1 and name.endswith("weight")))
    return model


def figures_of_model(kind: str) -> Figures:
    """Latents, logits and gradients of a rollout and of teacher forcing, and what generation answers."""
    model = same_weights(tiny_storm(kind, NUM_LATENTS)).eval()
    inputs = tiny_inputs(kind, num_latents=NUM_LATENTS)
    with torch.no_grad():
        rolled_out = model(**inputs)
        targets = torch.randn(rolled_out.latents.shape, generator=torch.Generator().manual_seed(1))
        forced = model(**inputs, forced_latents=targets)
        direct = model(**tiny_inputs(kind, num_latents=0))
        answer = model.generate(**inputs, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    figures = {
        "latents": rolled_out.latents[..., :6],
        "logits": rolled_out.logits[:, -1, :12],
        "forced_latents": forced.latents[..., :6],
        "forced_logits": forced.logits[:, -1, :12],
        "direct_logits": direct.logits[:, -1, :12],
        "answer": answer[:, inputs["input_ids"].shape[1] :],
    }
    return {name: value.tolist() for name, value in figures.items()} | gradients_of(model, inputs)


def gradients_of(model: StormForConditionalGeneration, inputs: dict[str, torch.Tensor]) -> Figures:
    """Loss and gradient norms of answer tokens through the rollout."""
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -1] = torch.arange(len(labels)) + 7
    loss = model(**inputs, labels=labels).loss
    loss.backward()
    norms = {
        f"gradient_of_{part}": torch.stack(
            [one.grad.norm() for name, one in model.named_parameters() if key in name and one.grad is not None]
        )
        .norm()
        .item()
        for part, key in PARTS.items()
    }
    return {"loss": loss.item(), **norms}


def figures_of_stage(stage: str, kind: str, folder: Path) -> Figures:
    """Losses and gradient norms of three steps of a trainer."""
    trainer = tiny_trainer(stage, kind, folder, max_steps=3)
    same_weights(trainer.model)
    trainer.train()
    return {name: logged(trainer, name) for name in ("loss", "grad_norm")}


def recorded(key: str) -> Figures:
    """The figures of an earlier version."""
    return json.loads(FIGURES.read_text())["figures"][key]


def assert_recorded(figures: Figures, key: str) -> None:
    """Compare with the record; tokens exactly, numbers to single precision."""
    expected = recorded(key)
    assert figures.keys() == expected.keys()
    for name, value in figures.items():
        torch.testing.assert_close(
            torch.tensor(value),
            torch.tensor(expected[name]),
            **TOLERANCE,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("kind", KINDS)
def test_latents_logits_and_gradients_are_those_of_the_version_before(kind):
    assert_recorded(figures_of_model(kind), kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", STAGES)
def test_losses_of_training_are_those_of_the_version_before(stage, kind, tmp_path):
    assert_recorded(figures_of_stage(stage, kind, tmp_path), f"{stage} {kind}")


def record(folder: Path) -> None:
    """Write the figures of the installed version."""
    figures = {kind: figures_of_model(kind) for kind in KINDS}
    for stage in STAGES:
        for kind in KINDS:
            figures[f"{stage} {kind}"] = figures_of_stage(stage, kind, folder / f"{stage}-{kind}")
    versions = {"transformers": transformers.__version__, "torch": torch.__version__, "vocab_size": VOCAB_SIZE}
    FIGURES.write_text(json.dumps({"versions": versions, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder))
