"""Names of a package that are loaded on first use."""

import importlib
from collections.abc import Callable, Mapping


def first_use(package: str, module_of: Mapping[str, str]) -> Callable[[str], object]:
    """Make the `__getattr__` of a package whose names are loaded on first use.

    Args:
        package (`str`):
            Name of the package, its `__name__`.
        module_of (`Mapping[str, str]`):
            From each name to the module that defines it, with its full path.
    """

    def load(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(module_of[name]), name)

    return load
