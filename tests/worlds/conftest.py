"""Every world, in its standard form and with other knobs."""

import pytest

from storm_hf.worlds import make_world


KNOBS = {
    "shuffle": {},
    "shuffle-mixed": {"min_swaps": 0},
    "shuffle-longer": {"num_cups": 5, "num_steps": 16, "max_swaps": 16},
    "bounce": {},
    "bounce-longer": {"num_deflectors": 4, "num_steps": 8, "max_steps": 8},
    "order": {},
    "order-longer": {"num_shapes": 6, "num_steps": 10},
    "lattice": {},
    "lattice-small": {
        "num_rows": 2,
        "num_columns": 4,
        "tile_px": 8,
        "num_steps": 8,
        "min_operations": 0,
        "max_operations": 8,
    },
}


@pytest.fixture(params=KNOBS)
def world(request):
    return make_world(request.param.partition("-")[0], **KNOBS[request.param])


@pytest.fixture(params=["shuffle", "bounce", "order", "lattice"])
def standard_world(request):
    return make_world(request.param)
