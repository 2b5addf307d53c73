"""`storm serve` under faults: a request fails with an answer that says so, and the next one is answered as before."""

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults import linux
from tests.faults.child import Child
from tests.faults.commands import storm
from tests.faults.place import Place
from tests.faults.rows import SECONDS, Outcome, clean_folders


_QUESTION = {"type": "text", "text": "where is the ball ?"}
_CLIP = {"type": "video_url", "video_url": {"url": "file:///clip.mp4"}}
_SPARE_FILES = 1024
_SECONDS_UNDER_LIMIT = 5.0


@dataclass
class Server:
    """A running server and a client of it."""

    place: Place
    notes: list[str] = field(default_factory=list)
    num_started: int = 0

    def start(self) -> Child:
        """Start the server."""
        place = self.place
        given = ("--port", place.port, "--media-folder", place.read("asked"), "--device", "cpu")
        self.num_started += 1
        printed = place.root / f"server {self.num_started}.txt"
        return Child(lambda: storm("serve", "--model", place.read("storm"), *given), place.root, printed_to=printed)

    def ask(self, seconds: float = 60.0) -> tuple[int, str]:
        """Ask about the clip; return the status and the answer. Status 0 means that nothing answers."""
        content = json.dumps({"messages": [{"role": "user", "content": [_CLIP, _QUESTION]}], "max_tokens": 4}).encode()
        url = f"http://127.0.0.1:{self.place.port}/v1/chat/completions"
        request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=seconds) as response:
                return response.status, json.load(response)["choices"][0]["message"]["content"]
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)["error"]["message"]
        except OSError as error:
            return 0, str(error)

    def ask_until_answered(self) -> tuple[int, str]:
        """Ask until the server has started."""
        deadline = time.monotonic() + SECONDS
        while (answer := self.ask())[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.1)
        return answer


Strike = Callable[[Server, Child], Child]


def _clip_away(server: Server, child: Child) -> Child:
    linux.take_away(server.place.read("asked"))
    server.notes.append("{}: {}".format(*server.ask()))
    linux.bring_back(server.place.read("asked"))
    return child


def _too_many_files(server: Server, child: Child) -> Child:
    linux.limit_files(child.pid, 0)
    server.notes.append("{}: {}".format(*server.ask(_SECONDS_UNDER_LIMIT)))
    linux.limit_files(child.pid, _SPARE_FILES)
    return child


def _end_and_restart(number: int) -> Strike:
    def strike(server: Server, child: Child) -> Child:
        child.kill(number)
        server.notes.append(child.wait(60).manner)
        return server.start()

    return strike


def _second_server(server: Server, child: Child) -> Child:
    second = server.start().wait(SECONDS)
    server.notes.append(f"the second: {second.manner}: {second.last_line}")
    return child


STRIKES: dict[str, Strike] = {
    "kill": _end_and_restart(signal.SIGKILL),
    "SIGTERM": _end_and_restart(signal.SIGTERM),
    "mount away": _clip_away,
    "too many files": _too_many_files,
    "two runs": _second_server,
}


def play_server(place: Place, fault: str) -> Outcome:
    """Ask, let the fault strike, and ask again."""
    clean_folders(place)
    server = Server(place)
    child = server.start()
    before = server.ask_until_answered()
    child = STRIKES[fault](server, child)
    after = server.ask_until_answered()
    child.kill()
    child.wait(60)
    faults = () if before == after and before[0] == 200 else (f"answered {before} and then {after}",)
    is_traceback = any(note.startswith("500") for note in server.notes)
    return Outcome("-", "; ".join(server.notes), "-", 0, (*faults, *(["answered 500"] if is_traceback else [])))
