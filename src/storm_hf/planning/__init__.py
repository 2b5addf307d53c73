"""What a recipe needs before it runs: parameters, memory, arithmetic, worked out from configurations alone."""

from storm_hf.planning.memory import Sharing
from storm_hf.planning.plan import Assumptions, Plan, gpu_peak, plan_recipe


__all__ = ["Assumptions", "Plan", "Sharing", "gpu_peak", "plan_recipe"]
