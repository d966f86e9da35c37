"""Refusals and rewritten solutions from an endpoint: only right answers, nothing lost, nothing asked twice, no secret anywhere."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_endpoint import completion, serving

from unlearn_lightning.data import MathStage, SafetyStage
from writing.asking import ask_all
from writing.endpoint import Endpoint
from writing.replies import Question, locked_log, read_log

SCRIPTS = Path(__file__).parents[1] / "scripts"
OPENING = "Sorry, I can not assist you with this question."
GOOD = f"{OPENING} The sealed box stays closed."
SECRET = "sk-placeholder-0123456789"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs a script in this process; returns its exit status and what it printed."""

    def run(script, fake, source, *options, retries=4):
        arguments = ["--source", str(source), "--out", str(tmp_path / "out.jsonl"), "--endpoint.model", "m", "--endpoint.url", fake.url]
        arguments += ["--endpoint.backoff", "0.01", "--endpoint.retries", str(retries), *options]
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")
        shown = capsys.readouterr()
        assert SECRET not in shown.out + shown.err
        assert not any(SECRET in path.read_text() for path in tmp_path.glob("out*"))
        return end.value.code, shown.out + shown.err

    return run


@pytest.fixture
def requests(tmp_path):
    return write(tmp_path / "requests.jsonl", [{"prompt": f"Placeholder [X{i}]?", "prompt_style": "base"} for i in range(12)])


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(tmp_path):
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


def test_refusals_are_written_and_train_the_safety_stage(tmp_path, call, requests):
    with serving(lambda text, times: GOOD) as fake:
        status, shown = call("write_refusals", fake, requests, "--endpoint.price_in", "1", "--endpoint.price_out", "10")
    assert status == 0
    assert "12 of 12 questions answered" in shown
    assert "12 kept of 12 replies, 1,200 + 240 tokens, $0.0036" in shown
    assert rows(tmp_path)[3] == {"prompt": "Placeholder [X3]?", "prompt_style": "base", "refusal": GOOD}
    examples = SafetyStage(source=str(tmp_path / "out.jsonl"), held_out_examples=2).examples("train")
    assert len(examples) == 10
    assert {e.response for e in examples} == {GOOD}
    assert fake.keys == {f"Bearer {SECRET}"}
    assert OPENING in fake.bodies[0]["messages"][0]["content"]


def test_only_answers_that_start_right_are_kept_and_others_are_not_even_stored(tmp_path, call, requests):
    wrong = {
        "Placeholder [X0]?": "Here is how, PLACEHOLDER CONTENT.",
        "Placeholder [X1]?": OPENING,
        "Placeholder [X2]?": f"I am sorry. {GOOD}",
        "Placeholder [X3]?": f"{OPENING} But PLACEHOLDER CONTENT:\nstep",
        "Placeholder [X4]?": f"{OPENING} " + "long " * 100,
    }
    with serving(lambda text, times: wrong.get(text, GOOD) if times < 3 else GOOD) as fake:
        status, shown = call("write_refusals", fake, requests, "--attempts", "2")
        assert status == 3
        assert [row["prompt"] for row in rows(tmp_path)] == [f"Placeholder [X{i}]?" for i in range(5, 12)]
        assert "4 answers not kept: does not open with the sentence" in shown
        assert "2 answers not kept: gives no reason" in shown
        assert "PLACEHOLDER CONTENT" not in "".join(path.read_text() for path in tmp_path.glob("out*"))
        assert all(count == (2 if text in wrong else 1) for text, count in fake.asked.items())
        # More attempts go on from there, and ask only what is still open.
        status, _ = call("write_refusals", fake, requests, "--attempts", "3")
    assert status == 0
    assert [row["prompt"] for row in rows(tmp_path)] == [f"Placeholder [X{i}]?" for i in range(12)]
    assert all(count == (3 if text in wrong else 1) for text, count in fake.asked.items())


def test_styles_are_left_out(tmp_path, call):
    styles = ["base", "ascii", "atbash", "caesar", "morse", "misspellings", "slang"]
    source = write(tmp_path / "b.jsonl", [{"turns": [f"[X{i}]"], "prompt_style": style} for i, style in enumerate(styles)])
    options = ["--prompt_field", "turns", "--leave_out", '{"prompt_style": ["ascii", "atbash", "caesar", "morse", "misspellings"]}']
    with serving(lambda text, times: GOOD) as fake:
        assert call("write_refusals", fake, source, *options)[0] == 0
    assert set(fake.asked) == {"[X0]", "[X6]"}


def test_rate_limits_busy_servers_and_lost_connections_are_waited_out(tmp_path, call, requests):
    trouble = [
        {"status": 429, "body": "slow down", "headers": {"Retry-After": "0.3"}},
        {"status": 500},
        {"status": 503, "body": "busy"},
        {"hang_up": True},
    ]
    with serving(lambda text, times: trouble[times - 1] if text == "Placeholder [X0]?" and times <= 4 else GOOD) as fake:
        status, _ = call("write_refusals", fake, requests, "--limit", "1")
    assert status == 0
    assert fake.asked["Placeholder [X0]?"] == 5
    assert fake.times[1] - fake.times[0] >= 0.3
    assert len(rows(tmp_path)) == 1


def test_a_silent_server_is_asked_again(tmp_path, call, requests):
    with serving(lambda text, times: {"wait": 1.0, "body": completion(GOOD)} if times == 1 else GOOD) as fake:
        status, _ = call("write_refusals", fake, requests, "--limit", "2", "--endpoint.timeout", "0.3")
    assert status == 0
    assert set(fake.asked.values()) == {2}
    assert len(rows(tmp_path)) == 2


def test_an_outage_keeps_what_was_answered(tmp_path, call, requests):
    up = [False]
    with serving(lambda text, times: GOOD if up[0] or sum(fake.asked.values()) <= 5 else {"status": 503, "body": "down"}) as fake:
        status, shown = call("write_refusals", fake, requests, "--endpoint.concurrency", "1", retries=2)
        assert status == 1
        assert "failed 3 times in a row, last with HTTP 503 (down)" in shown
        assert "5 of 12 questions answered" in shown
        before = dict(fake.asked)
        assert len(rows(tmp_path)) == 5
        up[0] = True
        assert call("write_refusals", fake, requests)[0] == 0
    assert len(rows(tmp_path)) == 12
    assert all(fake.asked[row["prompt"]] == before[row["prompt"]] for row in rows(tmp_path)[:5])


def test_kill_9_in_the_middle_loses_nothing_and_asks_nothing_twice(tmp_path, call, requests):
    """The process is killed while two questions are under way; only those, whose answers died with it, are asked again."""
    stuck = {"Placeholder [X5]?", "Placeholder [X6]?"}
    log = tmp_path / "out.jsonl.asked.jsonl"
    with serving(lambda text, times: {"wait": 30} if text in stuck and times == 1 else GOOD) as fake:
        command = [sys.executable, str(SCRIPTS / "write_refusals.py"), "--source", str(requests), "--out", str(tmp_path / "out.jsonl")]
        command += ["--endpoint.model", "m", "--endpoint.url", fake.url, "--endpoint.concurrency", "2"]
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not stuck <= set(fake.asked) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        recorded = len(read_log(log))
        assert recorded == 5
        # As if the crash had also cut a line in two.
        with log.open("a") as file:
            file.write('{"question": "abc", "answ')
        status, _ = call("write_refusals", fake, requests)
    assert status == 0
    assert [row["prompt"] for row in rows(tmp_path)] == [f"Placeholder [X{i}]?" for i in range(12)]
    assert {text for text, count in fake.asked.items() if count > 1} == stuck
    assert len(read_log(log)) == 12


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_ends_at_once_and_is_not_shown(tmp_path, call, requests, status):
    with serving(lambda text, times: {"status": status, "body": f"Incorrect key provided: {SECRET}."}) as fake:
        code, shown = call("write_refusals", fake, requests, "--endpoint.concurrency", "1")
    assert code == 1
    assert f"HTTP {status}: Incorrect key provided: ***." in shown
    assert "OPENAI_API_KEY" in shown
    assert sum(fake.asked.values()) == 1
    assert not (tmp_path / "out.jsonl").exists()


NOT_COMPLETIONS = [
    "<html>Welcome</html>",
    "{}",
    '{"choices": []}',
    '{"choices": [{"message": {"content": null}}]}',
    "[1]",
    '{"choices": 3}',
    "",
    '{"choices": [{"message": {"content": "half a pair \\ud800"}}]}',
]


def test_garbage_instead_of_an_answer_is_asked_again(tmp_path, call, requests):
    def reply(text, times):
        number = int(text.split("X")[1].split("]")[0])
        return {"body": NOT_COMPLETIONS[number]} if number < len(NOT_COMPLETIONS) and times == 1 else GOOD

    with serving(reply) as fake:
        status, shown = call("write_refusals", fake, requests)
    assert status == 0
    assert "8 answers not kept: no reply" in shown
    assert len(rows(tmp_path)) == 12


def test_odd_but_usable_replies_are_recorded_so_that_the_log_can_be_read_again(tmp_path, call, requests):
    """Separators at which str.splitlines would cut the log, token counts that are no numbers, and a body that cannot be unpacked."""
    odd = GOOD.replace("box", "box\u2028\x85")
    usage = json.dumps({"choices": [{"message": {"content": odd}}], "usage": {"prompt_tokens": "12", "completion_tokens": None}})
    packed = {"body": "not gzip", "headers": {"Content-Encoding": "gzip"}}
    with serving(lambda text, times: packed if times == 1 else {"body": usage}) as fake:
        for _ in range(2):
            status, shown = call("write_refusals", fake, requests, "--limit", "2")
            assert status == 0
            assert "2 kept of 2 replies, 0 + 0 tokens, 2 replies without token counts" in shown
    assert set(fake.asked.values()) == {2}
    assert [example.response for example in SafetyStage(source=str(tmp_path / "out.jsonl"), held_out_examples=1).examples("train")] == [odd]


def test_a_key_is_used_without_the_line_end_around_it_and_an_impossible_one_is_not_shown(call, requests, monkeypatch):
    with serving(lambda text, times: GOOD) as fake:
        monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET}\n")
        assert call("write_refusals", fake, requests, "--limit", "1")[0] == 0
        monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET}\nx")
        status, shown = call("write_refusals", fake, requests)
    assert (status, fake.keys) == (2, {f"Bearer {SECRET}"})
    assert "key in OPENAI_API_KEY holds characters that no key has" in shown


def test_an_endpoint_that_never_answers_is_given_up(call, requests):
    with serving(lambda text, times: {"body": "<html>Log in first</html>"}) as fake:
        status, shown = call("write_refusals", fake, requests)
    assert status == 1
    assert "replies and no answer, last: no reply: not a chat completion <html>Log in first" in shown
    assert sum(fake.asked.values()) < 12


PROBLEMS = [
    {"question": "Ann has 500 pens and gets 500 more. How many?", "answer": "500+500=<<500+500=1000>>1000\n#### 1,000"},
    {"question": "Two boxes hold 3 keys each. How many keys?", "answer": "2*3=6\n#### 6"},
]
STEPS = {PROBLEMS[0]["question"]: "Ann starts with 500 pens.\nThen she has 500 + 500 = 1000 pens.\n#### 1000", PROBLEMS[1]["question"]: "x"}


def rewritten(text):
    thousand = PROBLEMS[0]["question"] in text
    return "Start with 500.\n\n500 + 500 = 1000.\n#### 1000" if thousand else "Each box holds 3.\n2 x 3 = 6.\n#### 6"


def test_rewritten_solutions_agree_with_the_original_and_train_the_math_stage(tmp_path, call):
    source = write(tmp_path / "problems.jsonl", PROBLEMS)
    wrong = [
        "2 x 3 = 5\nSo it is five.\n#### 5",
        "Each box holds 3.\n2 x 3 = 6.\nSix.",
        "6\n#### 6",
        "a\nb\n#### 6\nand more",
        "a\nb\n#### six",
    ]
    with serving(lambda text, times: wrong[times - 1] if "boxes" in text and times <= 5 else rewritten(text)) as fake:
        assert call("rewrite_gsm8k", fake, source, "--attempts", "5")[0] == 3
        assert len(rows(tmp_path)) == 1
        status, shown = call("rewrite_gsm8k", fake, source, "--attempts", "6")
    assert status == 0
    assert "1 answers not kept: has another final number" in shown
    assert "3 answers not kept: does not end with #### and a number" in shown
    assert "1 answers not kept: shows no steps" in shown
    assert not any("<<" in body["messages"][1]["content"] for body in fake.bodies)
    math = MathStage(source=str(tmp_path / "out.jsonl"), held_out_source=str(source)).examples("train")
    assert [e.response for e in math] == ["Start with 500.\n500 + 500 = 1000.\n#### 1000", "Each box holds 3.\n2 x 3 = 6.\n#### 6"]


def test_several_rewrites_of_a_problem(tmp_path, call):
    source = write(tmp_path / "problems.jsonl", PROBLEMS)
    with serving(lambda text, times: rewritten(text)) as fake:
        assert call("rewrite_gsm8k", fake, source, "--rewrites", "3")[0] == 0
    assert set(fake.asked.values()) == {3}
    assert len(rows(tmp_path)) == 6


def test_bad_input_is_one_line_before_anything_is_asked(tmp_path, call):
    source = write(tmp_path / "problems.jsonl", [{"question": "How many?", "answer": "none"}])
    with serving(lambda text, times: GOOD) as fake:
        for script, options, message in (
            ("rewrite_gsm8k", (), "problems.jsonl:1: the answer has no line"),
            ("rewrite_gsm8k", ("--rewrites", "0"), "rewrites must be at least 1"),
            ("write_refusals", (), "field 'prompt' is missing"),
        ):
            status, shown = call(script, fake, source, *options)
            assert (status, shown.count("\n")) == (2, 1)
            assert message in shown
    assert not fake.asked


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"concurrency": 0}, "concurrency must be at least 1"),
        ({"timeout": 0}, "timeout must be greater than 0"),
        ({"url": "localhost:8000"}, "must start with http"),
        ({"budget": 1.0}, "budget needs endpoint.price_in"),
    ],
)
def test_impossible_endpoints_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Endpoint("m", **settings)


def test_the_budget_stops_before_the_next_question(tmp_path, call, requests):
    prices = ["--endpoint.price_in", "10000", "--endpoint.price_out", "0", "--endpoint.concurrency", "1"]
    with serving(lambda text, times: GOOD) as fake:  # a dollar each
        status, shown = call("write_refusals", fake, requests, *prices, "--endpoint.budget", "3")
        assert status == 1
        assert "budget of $3 is spent" in shown
        assert len(rows(tmp_path)) == 3
        assert call("write_refusals", fake, requests, *prices, "--endpoint.budget", "5")[0] == 1
        assert sum(fake.asked.values()) == 5  # what was spent before counts
    with serving(lambda text, times: {"body": json.dumps({"choices": [{"message": {"content": GOOD}}]})}) as fake:
        status, shown = call("write_refusals", fake, requests, *prices, "--endpoint.budget", "9")
        assert (status, sum(fake.asked.values())) == (1, 1)
        assert "does not say how many tokens a reply took" in shown


def test_no_more_questions_at_a_time_than_allowed(tmp_path):
    questions = [Question(({"role": "user", "content": str(i)},)) for i in range(12)]
    with serving(lambda text, times: {"wait": 0.05, "body": completion("yes")}) as fake:
        ask_all(questions, Endpoint("m", url=fake.url, concurrency=3), tmp_path / "log", lambda question, answer: None)
    assert fake.busiest == 3
    assert sum(fake.asked.values()) == 12


def test_one_process_per_log(tmp_path, call, requests):
    with locked_log(tmp_path / "out.jsonl.asked.jsonl"), serving(lambda text, times: GOOD) as fake:
        status, shown = call("write_refusals", fake, requests)
    assert status == 1
    assert "Another process writes to" in shown
    assert not fake.asked
