"""The writing package's own promises, where the scripts' tests cannot see them: pauses that end, a log that one process mends, a budget."""

import time

import pytest
from fake_endpoint import completion, serving

from writing.asking import ask_all
from writing.endpoint import Endpoint, EndpointError
from writing.replies import Question, locked_log, read_log

REPLY = b'{"question": "a", "model": "m", "answer": "yes", "rejected": null, "tokens_in": 1, "tokens_out": 2}\n'


def question(text):
    return Question(({"role": "user", "content": text},))


def kept(question, answer):
    return None


def test_an_error_ends_the_pauses_of_other_questions_and_sends_none_again(tmp_path):
    def reply(text, times):
        while not fake.asked["busy"]:
            time.sleep(0.01)
        return {"status": 429, "headers": {"Retry-After": "60"}} if text == "busy" else {"status": 401}

    started = time.monotonic()
    with serving(reply) as fake, pytest.raises(EndpointError, match="HTTP 401"):
        ask_all([question("refused"), question("busy")], Endpoint("m", url=fake.url, concurrency=2), tmp_path / "log", kept)
    assert time.monotonic() - started < 55, "it has waited for the pause"
    assert fake.asked == {"busy": 1, "refused": 1}


def test_a_retry_after_that_is_no_number_of_seconds_leaves_the_usual_pause(tmp_path):
    odd = ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "nan", "soon", ""]
    trouble = [{"status": 503, "headers": {"Retry-After": value}} for value in odd]
    with serving(lambda text, times: trouble[times - 1] if times <= len(odd) else "yes") as fake:
        ask_all([question("a")], Endpoint("m", url=fake.url, backoff=0.001), tmp_path / "log", kept)
    assert fake.asked == {"a": len(odd) + 1}


def test_the_budget_also_stops_a_question_from_being_asked_again(tmp_path):
    endpoint = {"price_in": 10_000, "price_out": 0, "budget": 2}  # a dollar each
    with serving(lambda text, times: "wrong") as fake, pytest.raises(EndpointError, match=r"budget of \$2 is spent"):
        ask_all([question("a")], Endpoint("m", url=fake.url, **endpoint), tmp_path / "log", lambda question, answer: "is wrong", attempts=5)
    assert fake.asked == {"a": 2}


@pytest.mark.parametrize("usage", ["null", "[]", '{"prompt_tokens": -1, "completion_tokens": "2"}'])
@pytest.mark.parametrize("content", ["null", "[]", '"yes"'])
def test_tokens_are_counted_where_they_are_stated_and_answers_where_they_are_text(tmp_path, content, usage):
    body = f'{{"choices": [{{"message": {{"content": {content}}}}}], "usage": {usage}}}'
    with serving(lambda text, times: {"body": body} if times == 1 else {"body": completion("yes")}) as fake:
        replies = ask_all([question("a")], Endpoint("m", url=fake.url), tmp_path / "log", kept)
    asked = 1 if content == '"yes"' else 2
    assert fake.asked == {"a": asked}
    assert (replies.tokens_in, replies.tokens_out, replies.unpriced) == ((asked - 1) * 100, (asked - 1) * 20, 1)


def test_a_line_that_another_process_may_be_writing_is_mended_only_under_the_lock(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(REPLY + REPLY[:20])
    assert len(read_log(log)) == 1
    assert log.read_bytes() == REPLY + REPLY[:20]
    with locked_log(log) as replies:
        assert replies.asked == {"a": 1}
    assert log.read_bytes() == REPLY


@pytest.mark.parametrize("line", [b"half a line", b"\xff", b'{"question": "a"}', b"[]", b"1", b'{"note": "mine"}'])
def test_a_line_of_the_log_that_is_no_reply_is_named(tmp_path, line):
    (tmp_path / "log").write_bytes(REPLY + line + b"\n")
    with pytest.raises(ValueError, match=r"log:2: no reply \(.*Mend or delete that line"):
        read_log(tmp_path / "log")
