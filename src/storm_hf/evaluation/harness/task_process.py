"""Process in which lmms-eval runs: one variant, task after task, each written once it is complete. Several share the questions.

    python -m storm_hf.evaluation.harness.task_process '{"variant": "storm", "tasks": ["videomme"], …}'

A process of its own, since tasks end theirs with `sys.exit` where a video is missing, and read the environment when they are
imported. It ends with code 2 and one sentence, in a line that begins with `storm: `, where something cannot be done.

Tasks of TempCompass and MMVU ask an OpenAI model about answers that their rules cannot read, and try for 10 to 20 seconds a
question where there is none. Samples are scored again afterwards, with a judge or without one, so here none needs to be
asked. lmms-eval's own numbers count such answers as wrong.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any

from storm_hf.atomic import write_json, written_atomically
from storm_hf.errors import DatasetError, StormError, one_line
from storm_hf.evaluation.harness.benchmarks import benchmark_of
from storm_hf.evaluation.harness.sharing import AnsweringProcesses, joined_processes


FAILED = 2
SENTENCE = "storm: "


@dataclass(frozen=True)
class VariantTasks:
    """Work of one process.

    Args:
        variant (`str`):
            Name of the variant.
        tasks (`tuple[str, ...]`):
            Tasks of lmms-eval that are still to do.
        model_arguments (`dict[str, Any]`):
            See [`~storm_hf.evaluation.harness.settings.ChatSettings`].
        out (`str`):
            Folder of the variant, absolute.
        data_root (`str`):
            Folder with questions and videos, absolute.
        limit (`int`, *optional*):
            Questions per task.
        asks_judges (`bool`, *optional*, defaults to `False`):
            Whether tasks may ask the judge of the environment, while lmms-eval scores.
    """

    variant: str
    tasks: tuple[str, ...]
    model_arguments: dict[str, Any]
    out: str
    data_root: str
    limit: int | None = None
    asks_judges: bool = False

    def to_json(self) -> str:
        """The argument of the process."""
        return json.dumps(asdict(self))


def samples_file(folder: Path, variant: str, task: str) -> Path:
    """Path of the samples of a task; the file exists if and only if the task is finished."""
    return folder / f"{variant}_samples_{task}.jsonl"


def results_file(folder: Path, variant: str, task: str) -> Path:
    """Path of lmms-eval's own numbers for a task."""
    return folder / f"{variant}_results_{task}.json"


def run_tasks(work: VariantTasks) -> None:
    """Answer and score the tasks of a variant with lmms-eval, together with the other processes that the environment names.

    Raises:
        DatasetError: If questions or videos are missing.
        StormError: If the model cannot be loaded, or cannot take a question.
    """
    judge: AbstractContextManager[dict[str, str]] = nullcontext({}) if work.asks_judges else without_judge()
    with judge as environment:
        os.environ.update(environment)  # before lmms-eval imports a task
        with joined_processes(work.model_arguments.get("device")) as processes:
            _run_tasks(work, processes)


def _run_tasks(work: VariantTasks, processes: AnsweringProcesses) -> None:
    from lmms_eval.__main__ import parse_eval_args
    from lmms_eval.tasks import TaskManager

    from storm_hf.evaluation.harness.chat_model import StormChat

    model = StormChat(**work.model_arguments, stays_loaded=True, processes=processes)
    os.chdir(work.data_root)  # `load_dataset` prefers a folder of this name here to the Hub
    known = TaskManager("WARNING", model_name="storm")
    _, defaults = parse_eval_args()  # reads sys.argv, which `main` has emptied
    for task in work.tasks:
        try:
            results = _evaluate(model, task, work.limit, known, defaults)
        except StormError:
            raise
        except (OSError, SystemExit) as error:  # what tasks raise where data are missing
            raise _missing_data(task, error, Path(work.data_root)) from error
        if processes.is_main:
            _write(work, task, results)


def _evaluate(model: object, task: str, limit: int | None, known: object, defaults: object) -> dict[str, Any]:
    """Run one task as lmms-eval's command line does, with its defaults."""
    from lmms_eval.evaluator import simple_evaluate

    return simple_evaluate(
        model=model,
        tasks=[task],
        task_manager=known,
        limit=limit,
        log_samples=True,
        bootstrap_iters=0,  # errors are estimated when samples are scored again
        cli_args=defaults,
    )


def _write(work: VariantTasks, task: str, results: dict[str, Any]) -> None:
    """Write lmms-eval's numbers, then the samples: their file marks the task as finished."""
    from lmms_eval.utils import handle_non_serializable

    folder = Path(work.out)
    numbers = {"lmms_eval_version": version("lmms-eval"), "results": results["results"]}
    write_json(
        results_file(folder, work.variant, task), json.loads(json.dumps(numbers, default=handle_non_serializable))
    )
    with written_atomically(samples_file(folder, work.variant, task)) as unfinished:
        lines = (
            json.dumps(_sample(sample), ensure_ascii=False, default=handle_non_serializable)
            for sample in results["samples"][task]
        )
        unfinished.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _sample(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample as lmms-eval logs it, but with its document, without which no rule can be applied again."""
    kept = {name: value for name, value in sample.items() if name != "arguments"}
    return {**kept, "input": sample["arguments"][0]}


def _missing_data(task: str, error: BaseException, root: Path) -> DatasetError:
    benchmark = benchmark_of(task)
    return DatasetError(
        f"Data of the task {task} are missing: {one_line(error).rstrip('.')}. Get them with: {benchmark.command(root)} and "
        f"unpack its archives into {root / benchmark.videos}."
    )


VERDICT = "Incorrect. No judge was asked."


class _Refusal(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": VERDICT}}
        counts = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        completion = {"id": "none", "object": "chat.completion", "created": 0, "model": "none"}
        body = json.dumps({**completion, "choices": [choice], "usage": counts}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def without_judge() -> Iterator[dict[str, str]]:
    """Serve refusals on this machine, and yield the environment in which tasks of lmms-eval find them."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusal) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield {
                "API_TYPE": "openai",
                "OPENAI_API_URL": f"http://127.0.0.1:{server.server_address[1]}",
                "OPENAI_API_KEY": "none",
                "NO_PROXY": "127.0.0.1",
                "no_proxy": "127.0.0.1",
            }
        finally:
            server.shutdown()


def main() -> None:
    """Run the job of the one argument."""
    work = VariantTasks(**json.loads(sys.argv.pop()))
    try:
        run_tasks(work)
    except StormError as error:
        sys.stdout.flush()
        sys.stderr.write(f"\n{SENTENCE}{one_line(error)}\n")
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
