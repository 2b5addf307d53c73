"""Scripts and recipes that come with the package: beside it in a wheel, or in the clone that it is installed from."""

from pathlib import Path

import storm_hf
from storm_hf.errors import ConfigurationError


TRAIN_RECIPES = "trainers/recipes"
BUILD_RECIPES = "datasets_builders/recipes"
ACCELERATE_CONFIGS = "trainers/accelerate"


def shipped(name: str) -> Path:
    """Find a file or folder of `trainers` or `datasets_builders`.

    Args:
        name (`str`):
            Its path as in a clone, such as `"trainers/align.py"`.
    """
    package = Path(storm_hf.__file__).parent
    found = package / name
    return found if found.exists() else package.parents[1] / name


def names_in(folder: str) -> list[str]:
    """List the names of the YAML files that come with the package.

    Args:
        folder (`str`):
            One of the folders above.
    """
    return sorted(file.stem for file in shipped(folder).glob("*.yaml"))


def named_file(given: str | Path, folder: str) -> Path:
    """Find the YAML file that a user means: a file, or one that comes with the package.

    Args:
        given (`str` or `Path`):
            Path of a file, or a name such as `"lora_24gb_align"`.
        folder (`str`):
            One of the folders above.

    Raises:
        ConfigurationError: If it is neither.
    """
    if Path(given).is_file():
        return Path(given)
    own = shipped(folder) / f"{given}.yaml"
    if own.parent == shipped(folder) and own.is_file():
        return own
    what = f"{given} is a folder, not a YAML file" if Path(given).is_dir() else f"There is no file {given}"
    raise ConfigurationError(f"{what}. These come with storm-hf: {', '.join(names_in(folder))}.")
