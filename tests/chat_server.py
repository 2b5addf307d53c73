"""A real HTTP server on loopback that answers as OpenAI's chat completions do, or as a test wants it to."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ChatServer:
    """Gives the answers it was told, one for each request; the last one again and again.

    An answer is a text, or `(status, headers, body)`.
    """

    def __init__(self, url: str, answers: list) -> None:
        self.url = url
        self.answers = answers
        self.requests: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []

    def next_answer(self) -> tuple[int, dict[str, str], str]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer if isinstance(answer, tuple) else (200, {}, completion(answer))


def completion(text: str | None, finish_reason: str = "stop") -> str:
    message = {"role": "assistant", "content": text}
    return json.dumps({"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]})


@contextmanager
def serving(*answers) -> Iterator[ChatServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            chat.requests.append(json.loads(body))
            chat.headers.append({name.title(): value for name, value in self.headers.items()})
            chat.paths.append(self.path)
            status, headers, answer = chat.next_answer()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(answer.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *args) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    chat = ChatServer(f"http://127.0.0.1:{server.server_port}/v1", list(answers))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield chat
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
