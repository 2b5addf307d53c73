"""Several processes of this machine that build one data set together."""

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from transformers.utils.logging import disable_progress_bar

from storm_hf.builder.build import Share, ThoughtsBuilder
from storm_hf.builder.finish import ThoughtsReport
from storm_hf.builder.recipe import ThoughtsRecipe
from storm_hf.errors import StageError
from storm_hf.processes import end_with_parent


_LOOK_EVERY_SECONDS = 1.0


def build_with_workers(
    recipe: ThoughtsRecipe, workers: int, on_look: Callable[[], None] | None = None
) -> ThoughtsReport:
    """Build a data set with several processes. The bytes are those that one process would write.

    Args:
        recipe ([`ThoughtsRecipe`]):
            Everything that determines the data set.
        workers (`int`):
            Processes. Each loads the models that it needs.
        on_look (`Callable[[], None]`, *optional*):
            Called every second while they work. Progress bars use it.

    Returns:
        [`ThoughtsReport`]: What the data set holds.

    Raises:
        StageError: If a process was killed. What is complete stays: the same call goes on.
        StormError: What a process raised.
    """
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        running = {pool.submit(_work, recipe, Share(rank, workers)) for rank in range(workers)}
        parts = set(running)
        while parts:
            done, parts = wait(parts, timeout=_LOOK_EVERY_SECONDS, return_when=FIRST_EXCEPTION)
            if on_look is not None:
                on_look()
            if any(part.exception() for part in done):
                break
        try:
            reports = [part.result() for part in running if part.done()]
        except BrokenProcessPool as error:
            raise StageError(
                "A worker was killed (out of memory?). Finished shards are kept; rerun the same command to resume."
            ) from error
    return reports[0]


def _work(recipe: ThoughtsRecipe, share: Share) -> ThoughtsReport:
    disable_progress_bar()  # one for each worker
    return ThoughtsBuilder(recipe, share=share).build()
