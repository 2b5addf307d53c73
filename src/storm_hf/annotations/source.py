"""Settings of one source of annotations."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from storm_hf.errors import ConfigurationError
from storm_hf.settings import NonEmptyStr, PositiveInt, check_values, make_settings


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """A collection of annotations, and how much of it to take.

    Args:
        path (`str`):
            A `.json`, `.jsonl`, `.csv`, `.tsv` or `.parquet` file, a folder that `datasets` loads, or the name of a data
            set on the Hub, which is streamed.
        layout (`str`, *optional*, defaults to `"plain"`):
            Layout of the rows: the name of a layout of this package, or the path of a YAML file.
        name (`str`, *optional*, defaults to `""`):
            Name of the collection. Without one the layout's is taken, else the path's.
        video_root (`str`, *optional*):
            The folder that the paths of clips are relative to. No clip may lie outside of it. Without one they are
            relative to the annotations, and may lie anywhere.
        license (`str`, *optional*):
            Licence of the rows that do not state one. Without one the layout's is taken.
        limit (`int`, *optional*):
            Maximum number of annotations to take.
        seed (`int`, *optional*):
            Seed of a random sample of the whole collection. Without one the first are taken.
        split (`str`, *optional*, defaults to `"train"`):
            Of a data set that `datasets` loads.
        config (`str`, *optional*):
            Configuration of a data set that `datasets` loads.
        revision (`str`, *optional*):
            Version of a data set on the Hub.

    Raises:
        ConfigurationError: If a value is of another type or out of its range.
    """

    path: NonEmptyStr
    layout: NonEmptyStr = "plain"
    name: str = ""
    video_root: str | None = None
    license: str | None = None
    limit: PositiveInt | None = None
    seed: int | None = None
    split: NonEmptyStr = "train"
    config: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        check_values(self)
        if self.seed is not None and self.limit is None:
            raise ConfigurationError(
                "A seed draws a subset of a source, but there is no limit. Set the limit as well."
            )

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "SourceConfig":
        """Make a source of what a YAML file holds.

        Raises:
            ConfigurationError: If there is no path, or a key that no source has, or a value out of its range.
        """
        return make_settings(cls, content, "a source")

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, to be kept beside what is made of it."""
        return asdict(self)
