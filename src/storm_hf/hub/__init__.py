"""Publication on the Hub: checkpoints, data sets and Spaces, with their cards."""

from typing import TYPE_CHECKING

from storm_hf.optional import first_use


if TYPE_CHECKING:
    from storm_hf.hub.checkpoint_push import CheckpointPush
    from storm_hf.hub.push import DatasetPush
    from storm_hf.hub.space_push import SpacePush

_MODULE_OF = {
    "CheckpointPush": "storm_hf.hub.checkpoint_push",
    "DatasetPush": "storm_hf.hub.push",
    "SpacePush": "storm_hf.hub.space_push",
}

__all__ = [
    "CheckpointPush",
    "DatasetPush",
    "SpacePush",
]


__getattr__ = first_use(__name__, _MODULE_OF)
