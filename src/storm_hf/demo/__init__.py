"""Demo: all of STORM on one small machine, from rendered clips to a report."""

from typing import TYPE_CHECKING

from storm_hf.optional import first_use


if TYPE_CHECKING:
    from storm_hf.demo.folder import DemoFolder
    from storm_hf.demo.recipe import DemoRecipe, Training, demo_recipe
    from storm_hf.demo.report_data import DemoReport
    from storm_hf.demo.stages import run_demo
    from storm_hf.demo.training import run_variant
    from storm_hf.demo.variants import Variant, demo_variants

_MODULE_OF = {
    "DemoFolder": "storm_hf.demo.folder",
    "DemoRecipe": "storm_hf.demo.recipe",
    "DemoReport": "storm_hf.demo.report_data",
    "Training": "storm_hf.demo.recipe",
    "Variant": "storm_hf.demo.variants",
    "demo_recipe": "storm_hf.demo.recipe",
    "demo_variants": "storm_hf.demo.variants",
    "run_demo": "storm_hf.demo.stages",
    "run_variant": "storm_hf.demo.training",
}

__all__ = [
    "DemoFolder",
    "DemoRecipe",
    "DemoReport",
    "Training",
    "Variant",
    "demo_recipe",
    "demo_variants",
    "run_demo",
    "run_variant",
]

__getattr__ = first_use(__name__, _MODULE_OF)
