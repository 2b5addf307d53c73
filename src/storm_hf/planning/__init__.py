"""Requirements of a recipe before it runs: parameters, memory and arithmetic, derived from configurations alone."""

from storm_hf.planning.memory import Sharing
from storm_hf.planning.plan import Assumptions, Plan, gpu_peak, plan_recipe


__all__ = ["Assumptions", "Plan", "Sharing", "gpu_peak", "plan_recipe"]
