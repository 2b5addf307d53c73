"""Stand-in for a judge that answers at once that it did not judge.

Tasks of TempCompass and MMVU ask an OpenAI model about answers that their rules cannot read, and try for 10 to 20 seconds a
question where there is none. Samples are scored again afterwards, with a judge or without one, so here none needs to be
asked. lmms-eval's own numbers count such answers as wrong.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


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
def nobody_judges() -> Iterator[dict[str, str]]:
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
