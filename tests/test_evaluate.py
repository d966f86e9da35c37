"""`unlearn evaluate`: the lm-evaluation-harness on runs' own models, by tasks that are defined here, against values computed by hand."""

import json
import sys

import pytest
import torch
import yaml
from study_runs import fit, run_json, settings
from test_backbone import saved_base
from test_study import small

from unlearn_lightning.cli.benchmarks import loaded
from unlearn_lightning.main import main
from unlearn_lightning.records import read_json, read_study, record_path
from unlearn_lightning.report.report import build

QUESTIONS = [
    {"question": "Who wrote the blue book?", "choices": ["Ann", "Sorry", "You"], "answer": 0},
    {"question": "12 + 30 =", "choices": ["42", "12", "1987"], "answer": 2},
    {"question": "Tell me how.", "choices": ["Sorry", "Ann", "book"], "answer": 1},
]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The harness's thousands of own task files and its account of the machine take seconds, and are nothing of what is tested."""
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr(
        "lm_eval.tasks.TaskManager",
        lambda include_path, include_defaults=True: TaskManager(include_path=include_path, include_defaults=False),
    )
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder with a multiple-choice task, one that generates, and the group of both parts' accuracy."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    data = {"data_files": {"test": str(folder / "questions.jsonl")}, "cache_dir": str(folder / "cache")}
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": data,
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "metadata": {"version": 3.0},
    }
    choice = {
        **shared, "task": "books_choice", "output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    answers = {
        **shared, "task": "books_answers", "output_type": "generate_until", "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["#"], "max_gen_toks": 6, "do_sample": False},
        "filter_list": [{"name": "first", "filter": [{"function": "regex", "regex_pattern": "^(.*)$"}, {"function": "take_first"}]}],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    group = {"group": "books", "task": ["books_choice"], "aggregate_metric_list": [{"metric": "acc"}], "metadata": {"version": 1.0}}
    for task in (choice, answers, group):
        (folder / f"{task.get('task') if 'group' not in task else 'books'}.yaml").write_text(yaml.safe_dump(task))
    return folder


def unlearned(make_backbone, corpus, questions, folder, **backbone):
    """A run that unlearned on top of a stage's adapter."""
    base = saved_base(make_backbone, folder / "base")
    own = {"model": base, "scratch": None, "lora": {"rank": 4, "alpha": 16}, **backbone}
    short = {"trainer": {"max_steps": 2, "logger": False}, "model": {"init_args": {"backbone": own}}}
    fit(settings(corpus, questions, folder / "stage", **short))
    own["adapter"] = str(folder / "stage/adapter")
    fit(settings(corpus, questions, folder / "run", "GradientAscent", **short))
    return folder / "run"


@torch.no_grad()
def likelihood(net, tokenizer, question, choice):
    """log p(" " + choice | question) in nats, without padding, cache or harness."""
    prompt, answer = (tokenizer(text, add_special_tokens=False).input_ids for text in (question, f" {choice}"))
    logits = net(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return float(logits.gather(-1, torch.tensor(answer)[:, None]).sum())


@pytest.mark.parametrize("kind", ["stacked over 4 bits", "merged", "whole weights"])
def test_the_harness_gives_what_the_runs_model_gives_by_hand(kind, make_backbone, corpus, questions, tasks, tmp_path, capsys):
    more = {"stacked over 4 bits": {"quantization": "nf4"}, "merged": {}, "whole weights": None}[kind]
    if more is None:
        fit(settings(corpus, questions, tmp_path / "run", trainer={"max_steps": 2, "logger": False}))
    run = tmp_path / "run" if more is None else unlearned(make_backbone, corpus, questions, tmp_path, **more)
    line = ["evaluate", str(run), "--tasks", "books_choice,books_answers,books", "--include_path", str(tasks), "--batch_size", "2"]
    assert main(line) == 0, capsys.readouterr().err
    net, tokenizer, _ = loaded(run, True)
    chosen = [max(range(3), key=lambda i, row=row: likelihood(net, tokenizer, row["question"], row["choices"][i])) for row in QUESTIONS]
    right = [float(choice == row["answer"]) for choice, row in zip(chosen, QUESTIONS, strict=True)]
    record = read_json(record_path(run, "lm_eval_books_choice", 2))
    assert [row["acc"] for row in record["examples"]] == right
    assert record["metrics"] == {"lm_eval_books_choice/acc": pytest.approx(sum(right) / 3)}
    # Standard error of a mean: s / sqrt(n), with n - 1 in s.
    mean = sum(right) / 3
    error = (sum((value - mean) ** 2 for value in right) / 2 / 3) ** 0.5
    assert record["stderr"] == {"lm_eval_books_choice/acc": pytest.approx(error)}
    assert (record["n"], record["task_version"], record["num_fewshot"]) == (3, 3.0, 0)
    group = read_json(record_path(run, "lm_eval_books", 2))
    assert group["parts"] == {"books_choice": {"acc": pytest.approx(mean)}}
    assert group["metrics"] == {"lm_eval_books/acc": pytest.approx(mean)}

    answers = read_json(record_path(run, "lm_eval_books_answers", 2))
    expected = []
    for row in QUESTIONS:
        prompt = tokenizer(row["question"], return_tensors="pt", add_special_tokens=False).input_ids
        said = net.generate(prompt, max_new_tokens=6, do_sample=False, pad_token_id=tokenizer.pad_token_id)[0, prompt.shape[1] :]
        expected.append(float(tokenizer.decode(said, skip_special_tokens=True).split("#")[0] == row["choices"][row["answer"]]))
    assert [row["exact_match"] for row in answers["examples"]] == expected
    assert list(answers["metrics"]) == ["lm_eval_books_answers/exact_match.first"]


def test_what_was_measured_is_found_and_other_settings_replace_it(corpus, questions, tasks, tmp_path, capsys):
    for seed, name in enumerate(("a", "b")):
        config = settings(corpus, questions, tmp_path / name, "GradientAscent", trainer={"max_steps": 1, "logger": False})
        fit({**config, "seed_everything": seed})
    line = ["evaluate", str(tmp_path), "--tasks", "books_choice", "--include_path", str(tasks)]
    assert main([*line, "--limit", "2"]) == 0
    capsys.readouterr()
    assert main([*line, "--limit", "2"]) == 0
    assert capsys.readouterr().out.count("measured already with these settings: books_choice.") == 2
    assert main([*line, "--start"]) == 0
    said = capsys.readouterr().out
    assert said.count("was measured with other settings before; those records are replaced.") == 2
    assert said.count("n = 3") == 4
    assert run_json(tmp_path / "a")["probes"]["lm_eval_books_choice"]["steps"] == [0, 1]
    made = build(tmp_path)
    (table,) = [table for section in made.sections for table in section.tables if table.name == "benchmarks"]
    assert [row.cells[:2] for row in table.rows] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert main(["evaluate", str(tmp_path / "a"), "--tasks", "books_choise", "--include_path", str(tasks)]) == 2
    assert "no task 'books_choise'. Did you mean books_choice" in capsys.readouterr().err


def test_what_cannot_be_evaluated_is_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    assert main(["evaluate", str(tmp_path / "empty"), "--tasks", "gsm8k"]) == 2
    assert "holds no finished run of the kind unlearn" in capsys.readouterr().err
    (tmp_path / "empty" / "config.json").write_text("{}")
    assert main(["evaluate", str(tmp_path / "empty"), "--tasks", "gsm8k"]) == 2
    assert "lm_eval --model hf --model_args pretrained=" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    monkeypatch.setattr("unlearn_lightning.cli.benchmarks.runs_in", lambda *_: [])
    assert main(["evaluate", "run", "--tasks", "gsm8k"]) == 2
    assert "pip install 'unlearn_lightning[benchmarks]'" in capsys.readouterr().err


def test_a_study_is_evaluated_run_by_run_and_its_report_has_the_numbers(corpus, questions, tasks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    study = small(corpus, questions, order=["inst"], positions=[2], base=None, probes={}, stage_probes=[])
    study["probes"] = {}
    study["stages"].pop("math")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(study))
    assert main(["study", "small.yaml", "--jobs", "1"]) == 0, capsys.readouterr().err
    line = ["evaluate", "runs/small", "--tasks", "books_choice", "--include_path", str(tasks)]
    assert main([*line, "--start"]) == 0, capsys.readouterr().err
    folders = {run["name"]: tmp_path / "runs/small" / run["folder"] for run in read_study(tmp_path / "runs/small")["runs"]}
    measured = {name for name, folder in folders.items() if (folder / "records" / "lm_eval_books_choice").is_dir()}
    assert measured == {"seed0/p2/ga", "seed0/p2/npo"}, "what unlearned, and no stage"
    # By hand: the likeliest choice of each question under the run's own model.
    net, tokenizer, _ = loaded(folders["seed0/p2/ga"], True)
    chosen = [max(range(3), key=lambda i, row=row: likelihood(net, tokenizer, row["question"], row["choices"][i])) for row in QUESTIONS]
    expected = sum(choice == row["answer"] for choice, row in zip(chosen, QUESTIONS, strict=True)) / 3
    record = read_json(record_path(folders["seed0/p2/ga"], "lm_eval_books_choice", 2))
    assert record["metrics"]["lm_eval_books_choice/acc"] == pytest.approx(expected)
    assert main([*line, "--kind", "stage"]) == 0
    assert (folders["seed0/inst"] / "records" / "lm_eval_books_choice").is_dir()
    made = build(tmp_path / "runs/small")
    (table,) = [table for section in made.sections for table in section.tables if table.name == "benchmarks"]
    assert {(row.cells[0], row.cells[1]) for row in table.rows} >= {("seed0/p2/ga", 0), ("seed0/p2/ga", 2)}
    assert main(["study", "small.yaml", "--jobs", "1"]) == 0
    assert "0 runs executed, 4 were finished already" in " ".join(capsys.readouterr().out.split())
