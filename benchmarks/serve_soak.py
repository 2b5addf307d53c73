"""Load a server with good, malformed and cancelled requests at once, and watch its answers, memory and descriptors.

    python benchmarks/serve_soak.py                                              # 100 clients, ten minutes, an untrained model
    python benchmarks/serve_soak.py runs/demo/storm --clients 20 --seconds 60

The server is `storm serve` in a process of its own. Exit code 1 if one request has another outcome than docs/serve.md names, so
also for every 500, if the server's memory or its open descriptors grow, or if a place is not given back.
"""

import argparse
import base64
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
from build_resume import save_base

from storm_hf.video import write_video


KEY = "a key of the benchmark"
MAX_NEW_TOKENS = 32
BODY_SECONDS = 10
SAMPLE_SECONDS = 2
BUSY = 429
CANCELLED = 0  # instead of a status
Fields = dict[str, object]


@dataclass(frozen=True)
class Kind:
    """Requests of one kind.

    Args:
        send (`Callable`):
            Sends one and returns its status; 0 if the client cancelled it.
        status (`int`):
            The documented outcome. A server without a free place answers 429 instead.
    """

    send: Callable[["Client"], int]
    status: int


@dataclass
class Client:
    """One client, with a connection that it keeps.

    Args:
        url (`str`):
            Address of the server.
        clip (`bytes`):
            A video.
        http (`httpx.Client`):
            Its connection.
    """

    url: str
    clip: bytes
    http: httpx.Client

    def post(self, body: Fields | bytes, headers: dict[str, str] | None = None, read: float = 300.0) -> httpx.Response:
        """Send a body and read the whole response."""
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        timeout = httpx.Timeout(300.0, read=read)
        return self.http.post(self.url, **content, headers=headers, timeout=timeout)

    def about(self, content: bytes, kind: str = "video_url", **fields: object) -> Fields:
        """Ask about a file."""
        data = "data:application/octet-stream;base64," + base64.b64encode(content).decode()
        parts = [{"type": kind, kind: {"url": data}}, {"type": "text", "text": "Which cup?"}]
        return text(messages=[{"role": "user", "content": parts}], **fields)


def text(**fields: object) -> Fields:
    """Ask a question without a file."""
    return {"messages": [{"role": "user", "content": "Which cup?"}], "max_tokens": 8, **fields}


def asks(**fields: object) -> Callable[[Client], int]:
    """Send a question with some fields."""
    return lambda client: client.post(text(**fields)).status_code


def stream(client: Client) -> int:
    """Read a stream to its end."""
    response = client.post(client.about(client.clip, stream=True, stream_options={"include_usage": True}))
    if response.status_code == 200 and not (
        response.text.endswith("data: [DONE]\n\n") and "error" not in response.text
    ):
        return -1
    return response.status_code


def damaged(client: Client) -> int:
    """Send a video of which a third is noise."""
    return client.post(client.about(client.clip[:40] + os.urandom(len(client.clip) // 3))).status_code


def leaves_stream(client: Client) -> int:
    """Close a stream after its first bytes."""
    body = client.about(client.clip, stream=True, max_tokens=MAX_NEW_TOKENS)
    with client.http.stream("POST", client.url, json=body, timeout=300.0) as response:
        if response.status_code == 200:
            next(response.iter_raw(), None)
        return response.status_code if response.status_code != 200 else CANCELLED


def leaves_answer(client: Client) -> int:
    """Close the connection before the answer is there."""
    try:
        return client.post(client.about(client.clip, n=8, max_tokens=MAX_NEW_TOKENS), read=0.05).status_code
    except httpx.ReadTimeout:
        return CANCELLED


def leaves_body(client: Client) -> int:
    """Announce a body, send a part and leave, at once or after the server has lost patience."""
    place = urlsplit(client.url)
    head = f"POST {place.path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 1000\r\n\r\n{{"
    with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
        connection.sendall(head.encode())
        if random.random() < 0.5:
            return CANCELLED
        answer = connection.recv(4096)
    return int(answer.split()[1]) if answer else -1


SURROGATE = json.dumps(text(messages=[{"role": "user", "content": "a\ud800"}])).encode()
KINDS = {
    "text": Kind(asks(), 200),
    "video": Kind(lambda client: client.post(client.about(client.clip)).status_code, 200),
    "stream": Kind(stream, 200),
    "choices": Kind(asks(n=2, temperature=1.0, seed=1), 200),
    "stop": Kind(asks(stop=["e", "a"], frequency_penalty=0.5), 200),
    "latents": Kind(
        lambda client: client.post(client.about(client.clip, latents="noise_per_question")).status_code, 200
    ),
    "unknown field": Kind(asks(top_k=3), 422),
    "wrong type": Kind(asks(max_tokens="5"), 422),
    "not done": Kind(asks(generation_config='{"num_return_sequences": 3000}'), 422),
    "no JSON": Kind(lambda client: client.post(b"{").status_code, 422),
    "surrogate": Kind(lambda client: client.post(SURROGATE).status_code, 422),
    "damaged video": Kind(damaged, 400),
    "damaged picture": Kind(lambda client: client.post(client.about(client.clip, "image_url")).status_code, 400),
    "too large": Kind(lambda client: client.post(client.about(bytes(2**20 + 8))).status_code, 413),
    "wrong key": Kind(lambda client: client.post(text(), {"Authorization": "Bearer guessed"}).status_code, 401),
    "leaves a stream": Kind(leaves_stream, CANCELLED),
    "leaves an answer": Kind(leaves_answer, CANCELLED),
    "leaves a body": Kind(leaves_body, CANCELLED),
}
ALSO_RIGHT = {"leaves a body": 408}


@dataclass
class Record:
    """Outcomes and samples of a run."""

    outcomes: Counter[tuple[str, int]] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    resident_mib: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)


def work(url: str, clip: bytes, seed: int, end: float, record: Record) -> None:
    """Send requests of random kinds until the time is over."""
    draws = random.Random(seed)
    with httpx.Client(headers={"Authorization": f"Bearer {KEY}"}) as http:
        client = Client(url, clip, http)
        while time.monotonic() < end:
            name = draws.choice(list(KINDS))
            start = time.monotonic()
            try:
                status = KINDS[name].send(client)
            except Exception as error:
                record.errors[f"{name}: {type(error).__name__}: {error}"] += 1
                continue
            record.outcomes[name, status] += 1
            if status == 200:
                record.seconds.append(time.monotonic() - start)
            elif status == BUSY:
                time.sleep(draws.uniform(0.1, 1.0))


def load(url: str, process: psutil.Process, clip: bytes, args: argparse.Namespace) -> Record:
    """Run all clients for the given time and sample the server meanwhile."""
    record, end = Record(), time.monotonic() + args.seconds
    path = f"{url}v1/chat/completions"
    threads = [
        threading.Thread(target=work, args=(path, clip, args.seed + index, end, record))
        for index in range(args.clients)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(SAMPLE_SECONDS)
        record.resident_mib.append(process.memory_info().rss / 2**20)
        record.descriptors.append(process.num_fds())
    return record


def find_faults(record: Record, health: dict[str, int], before: int, after: int) -> list[str]:
    """List what should not have happened."""
    faults = [f"{count} x {error}" for error, count in record.errors.items()]
    for (name, status), count in record.outcomes.items():
        if status not in (KINDS[name].status, ALSO_RIGHT.get(name, BUSY), BUSY):
            faults.append(f"{name}: {count} x status {status} instead of {KINDS[name].status}")
    if health["failed"] or health["in_flight"]:
        faults.append(f"{health['failed']} failures and {health['in_flight']} places held after the end")
    early, late = middle(record.resident_mib, 1), middle(record.resident_mib, 3)
    if late > 1.1 * early + 16:
        faults.append(f"memory grew from {early:.0f} to {late:.0f} MiB")
    if after > before + 4:
        faults.append(f"descriptors grew from {before} to {after}")
    return faults


def middle(samples: Sequence[float], quarter: int) -> float:
    """Median of one quarter of the samples."""
    length = len(samples) // 4
    return statistics.median(samples[quarter * length : (quarter + 1) * length])


def idle_descriptors(url: str, process: psutil.Process) -> tuple[int, dict[str, int]]:
    """Wait until no request runs; return the open descriptors and the counts."""
    for _ in range(60):
        health = httpx.get(f"{url}health").json()
        time.sleep(1)
        if not health["in_flight"]:
            break
    time.sleep(6)  # longer than connections are kept
    return process.num_fds(), health


@contextmanager
def served(model: str, folder: Path, max_in_flight: int) -> Iterator[tuple[str, psutil.Process]]:
    """Run `storm serve` for as long as the block runs."""
    command = [sys.executable, "-c", "from storm_hf.cli import main; main()", "serve", "--model", model, "--port", "0"]
    command += ["--max-new-tokens", str(MAX_NEW_TOKENS), "--max-file-mib", "1", "--max-in-flight", str(max_in_flight)]
    command += ["--body-seconds", str(BODY_SECONDS)]
    log = folder / "log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stderr=stderr, env={**os.environ, "STORM_API_KEY": KEY}) as process,
    ):
        try:
            while not (found := re.search(r"(http://\S+)", log.read_text())):
                if process.poll() is not None:
                    raise SystemExit(log.read_text())
                time.sleep(0.2)
            yield found[1], psutil.Process(process.pid)
        finally:
            process.terminate()


def write_clip(path: Path) -> bytes:
    """Write two seconds of a moving gradient."""
    ramp = np.add.outer(np.arange(56), np.arange(56))
    frames = np.stack([np.stack([ramp + 4 * step, ramp, ramp[::-1]], axis=-1) for step in range(8)])
    return write_video(path, frames.astype(np.uint8), fps=4).read_bytes()


def print_table(record: Record, faults: Sequence[str], before: int, after: int) -> None:
    """Print the outcomes and the gauges."""
    for (name, status), count in sorted(record.outcomes.items()):
        print(f"{name:18} {'cancelled' if status == CANCELLED else status:>9} {count:7}")
    answers = sorted(record.seconds)
    print(f"{sum(record.outcomes.values())} requests, {len(answers)} answered", end="")
    print(f"; median {statistics.median(answers):.2f} s, longest {answers[-1]:.2f} s" if answers else "")
    memory = record.resident_mib
    print(
        f"memory, MiB: {memory[0]:.0f} at first, {middle(memory, 1):.0f}, {middle(memory, 3):.0f} late, {max(memory):.0f} most"
    )
    print(f"descriptors: {before} before, {max(record.descriptors)} most, {after} after")
    print("\n".join(f"FAULT {fault}" for fault in faults) or "no fault")


def main() -> None:
    """Serve, load, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="checkpoint; by default the untrained model of `storm demo`")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--max_in_flight", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = args.model or str(save_base(folder / "storm"))
        clip = write_clip(folder / "clip.mp4")
        with served(model, folder, args.max_in_flight) as (url, process):
            work(f"{url}v1/chat/completions", clip, args.seed, time.monotonic() + 5, Record())  # first calls allocate
            before, _ = idle_descriptors(url, process)
            record = load(url, process, clip, args)
            after, health = idle_descriptors(url, process)
            faults = find_faults(record, health, before, after)
            print_table(record, faults, before, after)
            if faults:
                print((folder / "log").read_text()[-4000:], file=sys.stderr)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
