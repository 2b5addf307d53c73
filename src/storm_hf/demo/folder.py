"""Folder of a demo: finished work is recorded there, so that the same command resumes."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

from storm_hf.atomic import read_json
from storm_hf.demo.recipe import DemoRecipe
from storm_hf.demo.tasks import Usage
from storm_hf.errors import StageError, StaleWorkError
from storm_hf.pipeline.lock import locked
from storm_hf.reporting import write_atomically


_LOCK = ".locks/demo"


@dataclass(frozen=True)
class DemoFolder:
    """The folder of one demo.

        runs/demo/  recipe.json  usage.json  data/ (videos and Parquet)  base/  arms/<variant>/  storm/  logs/  report.*

    Args:
        path (`Path`):
            The folder.
    """

    path: Path

    @property
    def data(self) -> Path:
        """The data set of thoughts, with its videos."""
        return self.path / "data"

    @property
    def cached(self) -> Path:
        """Encoded question clips, one data set per split."""
        return self.path / "cached"

    @property
    def backbone(self) -> Path:
        """The plain checkpoint that the base starts from, where it is pretrained."""
        return self.path / "backbone"

    @property
    def language(self) -> Path:
        """Plain rows with the predictions of a pretrained backbone, and the measure of its language before training."""
        return self.path / "language"

    @property
    def base(self) -> Path:
        """The checkpoint that has learned to see."""
        return self.path / "base"

    @property
    def storm(self) -> Path:
        """The finished checkpoint."""
        return self.path / "storm"

    @property
    def logs(self) -> Path:
        """Log of the workers' output."""
        return self.path / "logs"

    def variant(self, name: str) -> Path:
        """Training checkpoints and results of a variant."""
        return self.path / "arms" / name

    def checkpoint(self, name: str) -> Path:
        """Trained model of a variant."""
        return {"base": self.base, "storm": self.storm}.get(name, self.variant(name))

    def training_record(self, name: str) -> Path:
        """The file that the training of a variant writes last, beside its checkpoints."""
        return (self.base if name == "base" else self.variant(name)) / "trained.json"

    def is_trained(self, name: str) -> bool:
        """Return True if a variant was trained, also if a release did it that wrote no record."""
        return self.training_record(name).exists() or self.is_finished(name)

    def is_finished(self, name: str) -> bool:
        """Return True if a variant was trained and tested: its results are written last."""
        return (self.variant(name) / "results.json").exists()

    @contextmanager
    def claimed(self, recipe: DemoRecipe) -> Iterator[None]:
        """Open the folder and hold it while stages run: two runs would write the same files.

        Args:
            recipe ([`DemoRecipe`]):
                Recipe of the run.

        Raises:
            StageError: If another process runs a demo in the folder.
            StaleWorkError: If it was begun with another recipe.
        """
        with locked(self.path / _LOCK, "demo", wait=False) as is_held:
            if not is_held:
                raise StageError(
                    f"Expected {self.path} for one demo at a time, but another one runs in it. Wait for it, or name another "
                    "folder with --out."
                )
            self.open(recipe)
            yield

    def open(self, recipe: DemoRecipe) -> None:
        """Begin the folder, or make sure that it was begun with the same recipe.

        Raises:
            StaleWorkError: If it was begun with another one.
        """
        wanted = json.loads(json.dumps(recipe.to_dict()))
        file = self.path / "recipe.json"
        if not file.exists():
            write_atomically(file, json.dumps(wanted, indent=2) + "\n")
            return
        found = read_json(file)
        defaults = {each.name: each.default for each in fields(DemoRecipe) if each.default is not MISSING}
        different = [name for name in wanted if wanted[name] != found.get(name, defaults.get(name))]
        if different:
            name = different[0]
            raise StaleWorkError(
                f"{self.path} was begun with {name}={found.get(name)!r}, and this run has {wanted[name]!r}. Remove the "
                "folder, or name another one with --out."
            )

    def once(self, stage: str, work: Callable[[], Usage]) -> None:
        """Do the work of a stage, unless it was finished before; remember what it cost."""
        marker = self.path / "done" / stage
        if marker.exists():
            return
        usage = work()
        write_atomically(marker, json.dumps(asdict(usage)) + "\n")

    def usage(self) -> Usage:
        """Total cost of all finished stages."""
        spent = Usage()
        for marker in sorted((self.path / "done").iterdir()):
            spent += Usage(**read_json(marker))
        return spent
