"""The worlds by name."""

import dataclasses
from typing import Any

from storm_hf.errors import WorldError
from storm_hf.worlds.bounce import Bounce
from storm_hf.worlds.lattice import Lattice
from storm_hf.worlds.order import Order
from storm_hf.worlds.shuffle import Shuffle
from storm_hf.worlds.world import World


_WORLDS = {world.name: world for world in (Shuffle, Bounce, Order, Lattice)}
WORLD_NAMES = tuple(_WORLDS)


def make_world(name: str, **knobs: int) -> World[Any]:
    """Make a world.

    Args:
        name (`str`):
            One of `WORLD_NAMES`.
        knobs (`int`):
            The arguments of the world's class, such as `num_steps`.

    Returns:
        [`World`]: The simulator.

    Raises:
        WorldError: If there is no such world or knob, or a knob is out of its range.
    """
    if name not in _WORLDS:
        raise WorldError(f"Expected a world of {', '.join(WORLD_NAMES)} but got {name!r}.")
    known = [field.name for field in dataclasses.fields(_WORLDS[name])]
    if unknown := sorted(set(knobs) - set(known)):
        raise WorldError(f"Expected knobs of {name} ({', '.join(known)}) but got {', '.join(unknown)}.")
    return _WORLDS[name](**knobs)
