"""Code and card that a trainer writes beside the weights, so that they load from the Hub."""

import shutil
from pathlib import Path
from typing import Any, ClassVar

from transformers.trainer_callback import TrainerState
from trl import SFTTrainer

from storm_hf.hub.hub_names import is_hub_name
from storm_hf.hub.model_card import write_card
from storm_hf.hub.model_facts import Stage, facts_of_model
from storm_hf.pipeline.paths import origin_of


_SENT_ALONG = (
    *("*_storm.py", "storm_config.json", "whitening.safetensors"),
    *("README.md", "storm_card.json", "assets/*", ".gitignore"),
)
_NOT_SENT = "training_args.bin\n"  # a pickle that is not needed to load a model; the Hub reads this as git does


class Publishing(SFTTrainer):
    """Writes the card on each save and push, and sends the code with each checkpoint that is pushed during training."""

    _stage: ClassVar[Stage] = "base"
    _tag_names: ClassVar[list[str]] = ["trl", "storm"]
    state: TrainerState

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            self.write_card(folder)  # over the form that PEFT leaves to be filled
            (folder / ".gitignore").write_text(_NOT_SENT)

    def create_model_card(self, *args: Any, dataset_name: str | None = None, **kwargs: Any) -> None:
        """Write the checkpoint's card from the run's own numbers.

        Args:
            args:
                What other trainers name the model by; ours is named by its repository or its folder.
            dataset_name (`str`, *optional*):
                The data set on the Hub, or its folder, that the model was trained on.
            kwargs:
                What else other trainers take.
        """
        if dataset_name is not None:
            self._dataset_name = dataset_name
        if self.is_world_process_zero():
            self.write_card(Path(self.args.output_dir))

    def write_card(self, folder: Path) -> None:
        """Write the card into a folder, with what it was rendered from."""
        dataset = getattr(self, "_dataset_name", None) or origin_of(self.train_dataset)
        facts = facts_of_model(
            self.model,
            name=self._name_of_model(),
            stage=self._stage,
            tags=tuple(self._tag_names),
            num_steps=self.state.global_step or None,
            bottleneck_share=self.args.bottleneck_share or None,
            datasets=(dataset,) if is_hub_name(dataset) else None,
        )
        write_card(facts, folder)

    def _name_of_model(self) -> str:
        name = getattr(self, "hub_model_id", None) or self.args.hub_model_id
        return str(name or Path(self.args.output_dir).resolve().name)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push a checkpoint as `Trainer` does, with the files of ours that it does not know of."""
        if self.is_world_process_zero():
            source, folder = Path(checkpoint_folder), Path(self.args.output_dir)
            for pattern in _SENT_ALONG:
                for file in source.glob(pattern):
                    copy = folder / file.relative_to(source)
                    copy.parent.mkdir(exist_ok=True)
                    shutil.copy(file, copy)
        super()._push_from_checkpoint(checkpoint_folder)
