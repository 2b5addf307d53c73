"""The worlds by name. Each is loaded on first use, so that a command can list their names without numpy."""

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any

from storm_hf.errors import ConfigurationError


if TYPE_CHECKING:
    from storm_hf.worlds.world import World

# From the name of a world, which is also that of its module, to its class.
_CLASS_OF = {"shuffle": "Shuffle", "bounce": "Bounce", "order": "Order", "lattice": "Lattice"}
WORLD_NAMES = tuple(_CLASS_OF)


def make_world(name: str, **knobs: int) -> "World[Any]":
    """Make a world.

    Args:
        name (`str`):
            One of `WORLD_NAMES`.
        knobs (`int`):
            The arguments of the world's class, such as `num_steps`.

    Returns:
        [`World`]: The simulator.

    Raises:
        ConfigurationError: If there is no such world or knob, or a knob is out of its range.
    """
    if name not in _CLASS_OF:
        raise ConfigurationError(f"Expected a world of {', '.join(WORLD_NAMES)} but got {name!r}.")
    world: type[Any] = getattr(importlib.import_module(f"storm_hf.worlds.{name}"), _CLASS_OF[name])
    known = [field.name for field in dataclasses.fields(world)]
    if unknown := sorted(set(knobs) - set(known)):
        raise ConfigurationError(f"Expected knobs of {name} ({', '.join(known)}) but got {', '.join(unknown)}.")
    return world(**knobs)
