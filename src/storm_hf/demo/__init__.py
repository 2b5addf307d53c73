"""Demo: all of STORM on one small machine, from rendered clips to a report."""

from storm_hf.demo.recipe import DemoRecipe, demo_recipe
from storm_hf.demo.record import DemoReport
from storm_hf.demo.stages import run_demo


__all__ = ["DemoRecipe", "DemoReport", "demo_recipe", "run_demo"]
