"""Requirements of a recipe before it runs: parameters, memory and arithmetic, of configurations alone."""

from storm_hf.planning.gpu import Gpu, find_gpu, verdict
from storm_hf.planning.memory import Sharing
from storm_hf.planning.plan import Assumptions, Plan, plan_recipe


__all__ = ["Assumptions", "Gpu", "Plan", "Sharing", "find_gpu", "plan_recipe", "verdict"]
