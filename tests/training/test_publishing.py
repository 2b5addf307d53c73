"""A trainer pushes what others can load: the code and the card go with the weights, during training and at its end."""

import json
from pathlib import Path

import pytest
import transformers.utils.hub
from huggingface_hub import ModelCard
from peft import get_peft_model
from tests.hub.conftest import api, store, url  # noqa: F401
from tests.tiny import tiny_storm
from tests.training.tiny_training import tiny_trainer

from storm_hf.hub.model_facts import read_facts
from storm_hf.pipeline.paths import with_origin
from storm_hf.training.adapter import default_lora


pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=:DeprecationWarning",
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",  # PEFT asks for it by its old name
)
KIND = "qwen2_5_vl"
PUSHED = {
    "save_strategy": "steps",
    "save_steps": 1,
    "push_to_hub": True,
    "hub_strategy": "every_save",
    "hub_always_push": True,
    "hub_token": "hf_test",
}


@pytest.fixture(autouse=True)
def hub(api, monkeypatch):  # noqa: F811
    """Let `Trainer` talk to the loopback Hub."""
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", api)


def commits(store, repo):  # noqa: F811
    """The titles of all commits, and the files of each."""
    return {each["message"]: set(each["files"]) for each in store.repositories["model", repo].commits.values()}


@pytest.mark.parametrize("stage", ["align", "answer"])
def test_checkpoint_pushed_during_training_carries_code_and_card(stage, store, tmp_path):  # noqa: F811
    trainer = tiny_trainer(stage, KIND, tmp_path / "run", hub_model_id="me/run", **PUSHED)
    trainer.train()
    trainer._finish_current_push()
    files = commits(store, "me/run")["Training in progress, step 1"]
    assert {"config.json", "model.safetensors", "modeling_storm.py", "rollout_storm.py", "README.md"} <= files
    assert not [name for name in files if name.startswith("checkpoint-")]


@pytest.mark.parametrize("title", ["Training in progress, step 1", "End of training"])
def test_no_pickle_is_pushed(title, store, tmp_path):  # noqa: F811
    trainer = tiny_trainer("align", KIND, tmp_path / "run", hub_model_id="me/run", **PUSHED)
    trainer.train()
    trainer.push_to_hub()
    files = commits(store, "me/run")[title]
    assert "config.json" in files
    assert not [name for name in files if Path(name).suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_end_of_training_is_pushed_with_its_data_set(store, tmp_path):  # noqa: F811
    trainer = tiny_trainer("answer", KIND, tmp_path / "run", hub_token="hf_test")
    trainer.train()
    trainer.push_to_hub(dataset_name="me/thoughts")
    files = commits(store, "me/run")["End of training"]
    assert {"config.json", "model.safetensors", "modeling_storm.py", "assets/stages.png"} <= files
    card = ModelCard(store.read("me/run", "README.md", kind="model").decode())
    assert card.data.datasets == ["me/thoughts"]
    assert 'from_pretrained("me/run", trust_remote_code=True)' in card.content
    assert "for 2 steps" in card.content


def test_adapter_is_pushed_with_what_opens_it(store, tmp_path):  # noqa: F811
    model = tiny_storm(KIND, num_latents=3)
    model.name_or_path = "me/base"
    adapted = get_peft_model(model, default_lora(model, r=2))
    trainer = tiny_trainer("answer", KIND, tmp_path / "run", model=adapted, hub_model_id="me/run", **PUSHED)
    trainer.train()
    trainer.push_to_hub()
    during, end = (commits(store, "me/run")[title] for title in ("Training in progress, step 1", "End of training"))
    assert {"adapter_config.json", "adapter_model.safetensors", "storm_config.json", "README.md"} <= during & end
    card = ModelCard(store.read("me/run", "README.md", kind="model").decode())
    assert card.data.base_model == "me/base"
    assert json.loads(store.read("me/run", "storm_config.json", kind="model"))["num_latents"] == 3


def test_saved_model_lies_beside_its_card(tmp_path):
    trainer = tiny_trainer("answer", KIND, tmp_path / "run", bottleneck_share=0.25)
    trainer.save_model(str(tmp_path / "kept"))
    facts = read_facts(tmp_path / "kept")
    assert (facts.name, facts.stage, facts.num_steps, facts.bottleneck_share) == ("run", "answer", None, 0.25)
    assert (tmp_path / "kept" / "README.md").is_file()


@pytest.mark.parametrize(("place", "named"), [("me/thoughts", ["me/thoughts"]), ("/home/somebody/thoughts", None)])
def test_card_of_a_run_names_the_data_set_that_it_was_trained_on(place, named, tmp_path):
    trainer = tiny_trainer("answer", KIND, tmp_path / "run")
    with_origin(trainer.train_dataset, place)
    trainer.write_card(tmp_path / "card")
    card = ModelCard.load(tmp_path / "card" / "README.md")
    assert card.data.to_dict().get("datasets") == named
    assert "somebody" not in str(card)
