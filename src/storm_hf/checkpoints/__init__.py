"""Checkpoints: whole models and adapters, opened for inference."""

from typing import TYPE_CHECKING

from storm_hf.optional import first_use


if TYPE_CHECKING:
    from storm_hf.checkpoints.adapter import AdapterFolder, find_adapter, load_adapted
    from storm_hf.checkpoints.loading import load_checkpoint

_MODULE_OF = {
    "AdapterFolder": "storm_hf.checkpoints.adapter",
    "find_adapter": "storm_hf.checkpoints.adapter",
    "load_adapted": "storm_hf.checkpoints.adapter",
    "load_checkpoint": "storm_hf.checkpoints.loading",
}

__all__ = [
    "AdapterFolder",
    "find_adapter",
    "load_adapted",
    "load_checkpoint",
]


__getattr__ = first_use(__name__, _MODULE_OF)
