import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import storm_hf


FOLDERS = [f"storm_hf.{info.name}" for info in pkgutil.iter_modules(storm_hf.__path__) if info.ispkg]


def isort_key(name: str) -> tuple[int, str]:
    """Order names as ruff sorts `__all__`: constants, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)


def test_package_offers_the_names_that_users_rely_on():
    assert {
        "StormAlignConfig",
        "StormAlignTrainer",
        "StormAnswerConfig",
        "StormAnswerTrainer",
        "StormConfig",
        "StormForConditionalGeneration",
    } <= set(storm_hf.__all__)


@pytest.mark.parametrize("module_name", ["storm_hf", "storm_hf.errors", *FOLDERS])
def test_public_names_are_sorted_importable_and_documented(module_name):
    module = importlib.import_module(module_name)
    names = list(getattr(module, "__all__", []))
    assert names == sorted(set(names), key=isort_key)
    values = {name: getattr(module, name) for name in names}
    assert [name for name, value in values.items() if inspect.isclass(value) and not value.__doc__] == []
    assert [name for name, value in values.items() if inspect.isroutine(value) and not value.__doc__] == []


def test_dir_shows_the_names_that_load_on_first_use():
    assert set(storm_hf.__all__) <= set(dir(storm_hf))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        storm_hf.no_such_name  # noqa: B018


def test_package_tells_type_checkers_that_it_is_typed():
    assert (Path(storm_hf.__file__).parent / "py.typed").exists()
