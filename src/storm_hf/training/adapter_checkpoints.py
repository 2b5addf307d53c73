"""Saving of an adapter by a trainer, and resumption from it; without one, everything is as `Trainer` does it."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from torch import nn
from trl import SFTTrainer

from storm_hf.checkpoints.adapter import save_storm_config, write_full_names
from storm_hf.training.peft import check_adapter_fits, exact_weights, train_in_float32


class AdapterCheckpoints(SFTTrainer):
    """Saves an adapter alone, with what it takes to open it, and resumes from one only if it is whole."""

    def __init__(self, model: nn.Module, **kwargs: Any) -> None:
        exact = exact_weights(model)
        super().__init__(model=model, **kwargs)
        if is_peft_model(self.model):
            # PEFT would read the configuration of a plain base as that of a STORM, and save the embeddings as resized.
            self.model.save_pretrained = partial(self.model.save_pretrained, save_embedding_layers=False)
            if self._can_train_in_float32():
                train_in_float32(self.model, exact)

    def _can_train_in_float32(self) -> bool:
        """Not under ZeRO-3, which gathers weights of one precision only, and which needs no copy of them in another."""
        plugin = self.args.deepspeed_plugin
        return plugin is None or plugin.zero_stage != 3

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if is_peft_model(self.model) and self.args.should_save:
            folder = output_dir or self.args.output_dir
            save_storm_config(self.model.config, folder)
            write_full_names(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._check_adapter(resume_from_checkpoint)
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        self._check_adapter(self.state.best_model_checkpoint)
        super()._load_best_model()

    def _check_adapter(self, checkpoint: str) -> None:
        if is_peft_model(self.model) and Path(checkpoint, SAFETENSORS_WEIGHTS_NAME).is_file():
            check_adapter_fits(self.model, checkpoint)
