"""A chat-completions server on this machine whose every reply a test decides."""

import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeEndpoint(ThreadingHTTPServer):
    """`reply(text, times)` is given the user's message and how often it was asked, this time included.

    It returns the answer's text, or a dict with any of: status, body (text), headers, wait (seconds), hang_up.
    """

    daemon_threads = True

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.asked, self.bodies, self.keys, self.times = reply, Counter(), [], set(), []
        self.lock, self.busy, self.busiest = threading.Lock(), 0, 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        """A client that was killed is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        fake = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        with fake.lock:
            fake.asked[text] += 1
            fake.times.append(time.monotonic())
            fake.bodies.append(body)
            fake.keys.add(self.headers.get("Authorization"))
            fake.busy += 1
            fake.busiest = max(fake.busiest, fake.busy)
            times = fake.asked[text]
        assert self.path == "/v1/chat/completions"
        reply = fake.reply(text, times)
        reply = {"body": completion(reply)} if isinstance(reply, str) else reply
        time.sleep(reply.get("wait", 0))
        with fake.lock:
            fake.busy -= 1
        if reply.get("hang_up"):
            self.close_connection = True
            return
        content = reply.get("body", "").encode()
        self.send_response(reply.get("status", 200))
        for name, value in {"Content-Length": str(len(content)), **reply.get("headers", {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Silent."""


def completion(text, tokens=(100, 20)):
    """A chat completion as OpenAI's API gives it."""
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    return json.dumps({"object": "chat.completion", "choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage})


@contextmanager
def serving(reply):
    fake = FakeEndpoint(reply)
    thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.shutdown()
        fake.server_close()
