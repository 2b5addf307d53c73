"""A trainer pushes what others can load: the code and the card go with the weights, during training and at its end."""

import json
import logging
import time
from pathlib import Path

import pytest
import transformers.utils.hub
from huggingface_hub import ModelCard
from peft import get_peft_model
from tests.hub.conftest import api, store, url  # noqa: F401
from tests.hub.seeds import SEEDS, TOKEN, sow
from tests.processors import stock_processor
from tests.tiny import tiny_storm
from tests.training.tiny_training import STAGES, tiny_trainer

from storm_hf.errors import CheckpointError, ConfigurationError, PublicationError
from storm_hf.hub.known_files import is_of_a_model
from storm_hf.hub.model_card import read_facts
from storm_hf.pipeline.paths import with_origin
from storm_hf.training import publishing
from storm_hf.training import trainer as trainer_module
from storm_hf.training.peft import default_lora


pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=:DeprecationWarning",
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",  # PEFT asks for it by its old name
)
KIND = "qwen2_5_vl"
BESIDE = ("README.md", "storm_card.json", "assets/stages.png", ".gitattributes")
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
    """Let `Trainer` talk to the loopback Hub, and take a processor whose vocabulary is not that of the tiny model."""
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", api)
    monkeypatch.setattr(trainer_module, "find_misfit", lambda processor, config: None)


def publishing_trainer(stage, folder, **changes):
    """A trainer with a processor, without which no reader could ask what it pushes."""
    return tiny_trainer(stage, KIND, folder, processing_class=stock_processor(KIND), **changes)


def commits(store, repo):  # noqa: F811
    """The titles of all commits, and the files of each."""
    return {each["message"]: set(each["files"]) for each in store.repositories["model", repo].commits.values()}


@pytest.mark.parametrize("stage", ["align", "answer"])
def test_checkpoint_pushed_during_training_carries_code_and_card(stage, store, tmp_path):  # noqa: F811
    trainer = publishing_trainer(stage, tmp_path / "run", hub_model_id="me/run", **PUSHED)
    trainer.train()
    trainer._finish_current_push()
    files = commits(store, "me/run")["Training in progress, step 1"]
    assert {"config.json", "model.safetensors", "modeling_storm.py", "rollout_storm.py", "README.md"} <= files
    assert not [name for name in files if name.startswith("checkpoint-")]


@pytest.mark.parametrize("title", ["Training in progress, step 1", "End of training"])
def test_no_pickle_is_pushed(title, store, tmp_path):  # noqa: F811
    trainer = publishing_trainer("align", tmp_path / "run", hub_model_id="me/run", **PUSHED)
    trainer.train()
    trainer.push_to_hub()
    files = commits(store, "me/run")[title]
    assert "config.json" in files
    assert not [name for name in files if Path(name).suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_end_of_training_is_pushed_with_its_data_set(store, tmp_path):  # noqa: F811
    trainer = publishing_trainer("answer", tmp_path / "run", hub_token="hf_test")
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
    trainer = publishing_trainer("answer", tmp_path / "run", model=adapted, hub_model_id="me/run", **PUSHED)
    trainer.train()
    trainer.push_to_hub()
    during, end = (commits(store, "me/run")[title] for title in ("Training in progress, step 1", "End of training"))
    assert {"adapter_config.json", "adapter_model.safetensors", "storm_config.json", "README.md"} <= during & end
    card = ModelCard(store.read("me/run", "README.md", kind="model").decode())
    assert card.data.base_model == "me/base"
    assert json.loads(store.read("me/run", "storm_config.json", kind="model"))["num_latents"] == 3


def test_saved_model_lies_beside_its_card(tmp_path):
    trainer = publishing_trainer("answer", tmp_path / "run", bottleneck_share=0.25)
    trainer.save_model(str(tmp_path / "kept"))
    facts = read_facts(tmp_path / "kept")
    assert (facts.name, facts.stage, facts.num_steps, facts.bottleneck_share) == ("run", "answer", None, 0.25)
    assert (tmp_path / "kept" / "README.md").is_file()


@pytest.mark.parametrize(("place", "named"), [("me/thoughts", ["me/thoughts"]), ("/home/somebody/thoughts", None)])
def test_card_of_a_run_names_the_data_set_that_it_was_trained_on(place, named, tmp_path):
    trainer = publishing_trainer("answer", tmp_path / "run")
    with_origin(trainer.train_dataset, place)
    trainer.write_card(tmp_path / "card")
    card = ModelCard.load(tmp_path / "card" / "README.md")
    assert card.data.to_dict().get("datasets") == named
    assert "somebody" not in str(card)


def sow_into_checkpoints(trainer, names):
    """Have each checkpoint hold further files when it is pushed."""
    save = trainer._save_rng_state

    def save_and_sow(folder):
        save(folder)
        sow(Path(folder), names)

    trainer._save_rng_state = save_and_sow


def contents(store, repo):  # noqa: F811
    """The bytes of every file of every commit."""
    versions = store.repositories["model", repo].commits
    return {
        (version, name): store.read(repo, name, kind="model", revision=version)
        for version, each in versions.items()
        for name in each["files"]
    }


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_is_pushed_but_what_a_push_of_the_folder_publishes(stage, store, tmp_path):  # noqa: F811
    harmless = [name for name in SEEDS if not name.endswith(".safetensors")]
    trainer = publishing_trainer(stage, tmp_path / "run", hub_model_id="me/run", **PUSHED)
    sow_into_checkpoints(trainer, harmless)
    sow(tmp_path / "run", harmless)
    trainer.train()
    trainer.push_to_hub()
    titles = commits(store, "me/run")
    assert {"Training in progress, step 1", "Training in progress, step 2", "End of training"} <= titles.keys()
    pushed = contents(store, "me/run")
    assert {name for _, name in pushed if not (is_of_a_model(name) or name in BESIDE)} == set()
    private = [TOKEN.encode(), str(tmp_path).encode(), b"/home/somebody"]
    assert [name for (_, name), content in pushed.items() for each in private if each in content] == []
    assert [*(tmp_path / "run").glob(".push-*")] == []


def test_what_is_left_out_is_named_once_in_a_run(store, tmp_path, caplog):  # noqa: F811
    trainer = publishing_trainer("answer", tmp_path / "run", hub_model_id="me/run", **PUSHED)
    trainer.train()
    trainer.push_to_hub()
    checkpoints, folder = (record.getMessage() for record in caplog.records if "left out" in record.getMessage())
    assert checkpoints == (
        "Push to the Hub: left out: 6 files: .gitignore, optimizer.pt, rng_state.pth, scheduler.pt, trainer_state.json, "
        "training_args.bin. `storm push --include PATTERN` publishes further files."
    )
    assert "checkpoint-1/ (" in folder
    assert "training_args.bin" not in folder


@pytest.mark.parametrize("name", ["old.safetensors", "further.safetensors"])
def test_secret_in_what_would_be_pushed_stops_the_push_and_not_the_training(name, store, tmp_path, caplog):  # noqa: F811
    trainer = publishing_trainer("answer", tmp_path / "run", hub_model_id="me/run", **PUSHED)
    sow_into_checkpoints(trainer, [name])
    trainer.train()
    trainer._finish_current_push()
    assert trainer.state.global_step == 2
    assert not [title for title in commits(store, "me/run") if title.startswith("Training")]
    failures = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failures) == 2
    assert all(name in each and "training goes on" in each for each in failures)
    sow(tmp_path / "run", [name])
    with pytest.raises(PublicationError, match=name):
        trainer.push_to_hub()
    assert "End of training" not in commits(store, "me/run")


def test_adapter_of_a_folder_is_not_pushed_with_its_path(store, tmp_path):  # noqa: F811
    model = tiny_storm(KIND, num_latents=3)
    model.name_or_path = "/home/somebody/base"
    trainer = publishing_trainer(
        "answer",
        tmp_path / "run",
        model=get_peft_model(model, default_lora(model, r=2)),
        hub_model_id="me/run",
        **PUSHED,
    )
    trainer.train()
    with pytest.raises(PublicationError, match="base of the adapter"):
        trainer.push_to_hub()
    assert [name for (_, name) in contents(store, "me/run") if name.startswith("adapter")] == []


def test_checkpoint_that_is_deleted_while_it_is_pushed_arrives_whole(store, tmp_path, monkeypatch):  # noqa: F811
    first, push = tmp_path / "run" / "checkpoint-1", publishing._push_staged

    def push_late(*words):
        end = time.monotonic() + 60
        while first.exists() and time.monotonic() < end:
            time.sleep(0.01)
        return push(*words)

    monkeypatch.setattr(publishing, "_push_staged", push_late)
    trainer = publishing_trainer("answer", tmp_path / "run", hub_model_id="me/run", save_total_limit=1, **PUSHED)
    trainer.train()
    assert not first.exists()
    trainer._finish_current_push()
    assert {"Training in progress, step 1", "Training in progress, step 2"} <= commits(store, "me/run").keys()
    versions = store.repositories["model", "me/run"].commits
    by_title = {each["message"]: version for version, each in versions.items()}
    weights = [
        store.read(
            "me/run", "model.safetensors", kind="model", revision=by_title[f"Training in progress, step {step}"]
        )
        for step in (1, 2)
    ]
    assert weights[1] == (tmp_path / "run" / "checkpoint-2" / "model.safetensors").read_bytes() != weights[0]


@pytest.mark.parametrize("is_private", [True, False])
def test_repository_keeps_the_visibility_that_the_run_gave_it(is_private, store, tmp_path):  # noqa: F811
    settings = {**PUSHED, "hub_private_repo": is_private}
    publishing_trainer("answer", tmp_path / "run", hub_model_id="me/run", **settings).push_to_hub()
    assert store.repositories["model", "me/run"].is_private is is_private


def test_push_that_is_not_waited_for_gives_its_commit_later(store, tmp_path):  # noqa: F811
    trainer = publishing_trainer("answer", tmp_path / "run", hub_token="hf_test")
    later = trainer.push_to_hub("Another title", blocking=False)
    assert later.result().commit_message == "Another title"
    assert later.result().oid in store.repositories["model", "me/run"].commits
    assert trainer.push_to_hub(revision="further").oid != later.result().oid
    assert store.read("me/run", "config.json", kind="model", revision="further")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_strategy_that_would_publish_the_optimizer_is_refused(stage, strategy, tmp_path):
    with pytest.raises(ConfigurationError, match=f"`hub_strategy: {strategy}` would publish states of the optimizer"):
        tiny_trainer(stage, KIND, tmp_path, push_to_hub=True, hub_strategy=strategy)
    tiny_trainer(stage, KIND, tmp_path, hub_strategy=strategy)  # without pushes it says nothing


def test_model_without_a_processor_is_not_pushed(tmp_path):
    trainer = tiny_trainer("answer", KIND, tmp_path / "run", hub_model_id="me/run", hub_token="hf_test")
    with pytest.raises(CheckpointError, match="Expected the processor"):
        trainer.push_to_hub()
