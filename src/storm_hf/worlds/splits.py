"""Seeds of the training and test splits.

Each base seed owns ten million seeds, each split a million of them, one after the other:

    base seed 0   train 0 ...   validation 1,000,000 ...   test 2,000,000 ...   longer 3,000,000 ...
    base seed 1   train 10,000,000 ...

so that no two splits, and no two runs with different base seeds, ever share one. Different seeds can still draw the
same episode where a world has few: `shuffle` without any swap has four.
"""

from storm_hf.errors import WorldError


SPLITS = ("train", "validation", "test", "longer")
SEEDS_PER_SPLIT = 1_000_000
SEEDS_PER_BASE = 10 * SEEDS_PER_SPLIT


def split_seeds(split: str, count: int, seed: int = 0) -> range:
    """Take seeds for the episodes of a split.

    Args:
        split (`str`):
            `train`, `validation`, `test`, or `longer`: episodes with more steps than trained on.
        count (`int`):
            Number of seeds. The first n are the same whatever the count.
        seed (`int`, *optional*, defaults to 0):
            Base seed of the run.

    Returns:
        `range`: The seeds, ascending.

    Raises:
        WorldError: If there is no such split, or it has fewer seeds than asked for.
    """
    if split not in SPLITS:
        raise WorldError(f"Expected a split of {', '.join(SPLITS)} but got {split!r}.")
    if not 0 <= count <= SEEDS_PER_SPLIT:
        raise WorldError(f"Expected a count from 0 to {SEEDS_PER_SPLIT} seeds in a split but got {count}.")
    if seed < 0:
        raise WorldError(f"Expected a base seed of 0 or more but got {seed}.")
    first = seed * SEEDS_PER_BASE + SPLITS.index(split) * SEEDS_PER_SPLIT
    return range(first, first + count)
