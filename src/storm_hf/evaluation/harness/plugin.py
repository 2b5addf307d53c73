"""The entry point by which lmms-eval finds the model: group `lmms_eval.models`, name `storm`."""

from typing import Any


def manifest() -> Any:
    """Say to lmms-eval which class answers for `--model storm`.

    Returns:
        `ModelManifest`: Of a chat model. lmms-eval calls this while its own package is being imported, so nothing of it is
        imported before.
    """
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id="storm",
        chat_class_path="storm_hf.evaluation.harness.chat_model.StormChat",
        aliases=("storm_hf",),
    )
