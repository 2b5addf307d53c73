"""The whole of `storm demo` with so few clips and updates that it takes less than a minute: nothing is learned.

python -m tests.end_to_end.mini_demo FOLDER
"""

import dataclasses
import signal
import sys

from storm_hf.demo import DemoRecipe, demo_recipe, run_demo
from storm_hf.demo.recipe import Training


def mini_recipe() -> DemoRecipe:
    """The recipe of the shuffle world, in small."""
    recipe = demo_recipe("shuffle")
    return dataclasses.replace(
        recipe,
        num_train=24,
        num_gallery=4,
        num_per_depth=2,
        test_depths={0: 2, 1: 2, 2: 2, 3: 2, 4: 2, 5: 4, 6: 4},
        batch_size=8,
        trainings={name: Training(4, training.learning_rate) for name, training in recipe.trainings.items()},
    )


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born deaf to it
    try:
        run_demo(sys.argv[1], recipe=mini_recipe())
    except KeyboardInterrupt:
        sys.exit(130)
