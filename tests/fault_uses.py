"""Faults of use, by kind: files that belong to another run, damaged caches, hostile fields, plans, two at one run.

As in tests/fault_cases.py, every case ends in one word; scripts/faults does them all and tests/test_faults.py a short selection.
"""

import contextlib
import copy
import io
import json
import os
import re
import shutil
import unittest.mock

import yaml
from fault_cases import DAMAGES, ended_the_same, unstopped
from forked import Forked
from study_runs import fit, settings
from test_study import small

from unlearn_lightning.cli.errors import is_known, line
from unlearn_lightning.cli.measuring import trained_config
from unlearn_lightning.data import ChatStage, token_store
from unlearn_lightning.main import main
from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.records.run_records import readable_records
from unlearn_lightning.runs.content import RESULTS, refuse_changed_place
from unlearn_lightning.runs.moved import CONFIG
from unlearn_lightning.sources import readers

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def said_by(arguments):
    """The exit status of a command in this process, and all that it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = main(list(arguments))
    return status, " ".join(out.getvalue().split())


# --- files of another run ---------------------------------------------------------------------------------------------------------------


def swap_cases(folder, runs):
    """(kind, outcome, what was said): each file of a run replaced by the same file of another run, with its time, and then used."""
    files = str(runs / "corpus.jsonl"), str(runs / "questions.jsonl")
    lora = {"rank": 2, "alpha": 2}
    for name, seed in (("a", 5), ("b", 6), ("lora a", 5), ("lora b", 6)):
        data = {"class_path": "ChatStage", "init_args": {"source": files[1], "held_out_source": files[1]}}
        probe = {"class_path": "RetainLikelihood", "init_args": {"data": data, "limit": seed}}
        more = {"seed_everything": seed, "trainer": {"max_steps": seed - 3, "callbacks": [probe]}}
        if name.startswith("lora"):
            more["model"] = {"init_args": {"backbone": {"model": str(runs / "whole/model"), "lora": lora}}}
        fit(settings(*files, folder / name, **more))
    for name in ("a", "lora a"):
        run, other = folder / name, folder / f"{name[:-1]}b"
        kept = shutil.copytree(run, folder / "kept" / name)
        for path in sorted(path for path in other.rglob("*") if path.is_file() and path.name != "logged_as.json"):
            place = run / path.relative_to(other)
            if place.is_file() and place.read_bytes() == path.read_bytes():
                continue
            shutil.copy2(path, place)
            yield f"{path.relative_to(other)} of another run", *_named_by_its_users(run, place)
            shutil.rmtree(run)
            shutil.copytree(kept, run)


def _named_by_its_users(run, place):
    """Whether whoever uses a run names the file of another: the next run, a report, a measurement, a verification."""
    if place.parent.name in RESULTS:
        uses = [lambda: refuse_changed_place(str(place.parent))]
    elif "records" in place.parts:
        uses = [lambda: refuse_left_out(run, place.parent.name)]
    else:
        uses = [lambda: trained_config(run)] if place.name == CONFIG else []
    for use in uses:
        try:
            use()
            return "silent", "used"
        except ValueError as error:
            if place.name not in line(error):
                return "silent", line(error)
    status, said = said_by(["status", str(run), "--verify"])
    # Where run.json is another's, no other file is as it says.
    named = status and (place.name in said or place.name == "run.json")
    return "named" if named else "silent", said[:300]


def refuse_left_out(run, probe):
    if left_out := readable_records(run, probe)[1]:
        raise ValueError(" ".join(left_out))


# --- caches -----------------------------------------------------------------------------------------------------------------------------


def cache_cases(folder, runs, rng):
    """(kind, outcome, what was said): every file that is kept of a large source, damaged; it is made again and gives the same."""
    backbone = Backbone(model=str(runs / "whole/model"), lora=None)
    tokenizer = backbone.load_tokenizer()

    def read():
        stage = ChatStage(source=str(runs / "questions.jsonl"), held_out_examples=4)
        return stage.fingerprint(), *(list(stage.encoded_examples(split, tokenizer)) for split in ("train", "held_out"))

    kept = {token_store.VARIABLE: str(folder / "cache")}
    with unittest.mock.patch.dict(os.environ, kept), unittest.mock.patch.object(readers, "LARGE", 1):
        whole = read()
        for path in sorted(path for path in (folder / "cache").rglob("*") if path.is_file() and path.name != "lock"):
            content = path.read_bytes()
            for damage in DAMAGES if path.suffix == ".json" else sorted(DAMAGES.keys() - {"wrong values"}):
                path.write_bytes(DAMAGES[damage](content, rng))
                kind = f"{'a kept text' if path.parent.name == 'texts' else path.name}, {damage}"
                try:
                    found = read()
                    yield kind, "harmless" if found == whole else "silent", ""
                except Exception as error:
                    yield kind, "named" if is_known(error) and path.name in line(error) else "crash", line(error)
                path.write_bytes(content)


# --- hostile fields -----------------------------------------------------------------------------------------------------------------------

HOSTILE = (
    "\x1b[31mred\x1b[0m", "[red]markup[/red]", "=cmd|' /C calc'!A0", "../../etc/passwd", "\u202eevil", "a" * 100_000, "\x00", "{{ 7 * 7 }}",
    "__class__", "prompt ", "PROMPT", "\ufeffprompt", "<|assistant|>", "%s%n", "\r\nprompt",
)  # fmt: skip


def field_cases(runs):
    """(kind, outcome, what was said): names and values of a record's fields that act on whoever prints, opens or renders them."""
    tokenizer = Backbone(model=str(runs / "whole/model"), lora=None).load_tokenizer()
    file = runs / "hostile.jsonl"
    for text in HOSTILE:
        for kind, row in {
            "a further field's name": {"prompt": "Who?", "response": "Ann.", text: "x"},
            "a prompt's field": {text: "Who?", "response": "Ann."},
            "a prompt": {"prompt": text, "response": "Ann."},
            "a response": {"prompt": "Who?", "response": text},
            "a dropped field's value": {"prompt": "Who?", "response": "Ann.", "system": text},
            "a value of another kind": {"prompt": {text: text}, "response": "Ann."},
            "labels": {"prompt": "Who?", "response": "Ann.", "label": text},
        }.items():
            file.write_text(json.dumps(row))
            leave_out = {"label": ["nothing"]} if kind == "labels" else None
            stage = ChatStage(source=str(file), held_out_examples=0, max_length=64, leave_out=leave_out)
            try:
                (encoded,) = stage.encode(stage.examples("train"), tokenizer)
                # What is typed is text: no special token but those of the template.
                plain = stage.encode(stage.examples("train"), tokenizer)[0].prompt_ids
                typed = tokenizer.convert_tokens_to_ids("<|assistant|>")
                yield f"{kind} {text[:12]!r}", "harmless" if plain.count(typed) <= 1 and encoded else "silent", ""
            except Exception as error:
                said = line(error)
                obeys = CONTROL.search(said) or len(said) > 2000 or not ("hostile.jsonl" in said or "Example" in said)
                yield f"{kind} {text[:12]!r}", "named" if is_known(error) and not obeys else "crash", said[:300]


# --- plans ------------------------------------------------------------------------------------------------------------------------------


def plan_cases(folder, runs):
    """(kind, outcome, what was said): a study folder that holds the plan of another study, of an older one, or a damaged one."""
    folder.mkdir(parents=True, exist_ok=True)
    study = small(str(runs / "corpus.jsonl"), str(runs / "questions.jsonl"), seeds=[0])
    file, place = folder / "small.yaml", folder / "study"

    def plan(content, *words):
        file.write_text(yaml.safe_dump(content))
        return said_by(["study", str(file), *words, "--folder", str(place), "--store", str(folder / "store")])

    plan(study, "--plan")
    older = {**study, "seeds": [0, 1]}
    for kind, content, before, words in (
        ("of an older study", older, None, ""),
        ("with study.json of another study", study, '{"format": 1, "name": "other", "runs": []}', "other"),
        ("with a damaged study.json", study, "{", "study.json"),
        ("with study.json of another format", study, '{"format": 99}', "study.json"),
        ("whose study.json is a list", study, "[]", "study.json"),
    ):
        place.mkdir(exist_ok=True)
        if before is not None:
            (place / "study.json").write_text(before)
        # The base alone is trained, and only once.
        status, said = plan(content, "--only", "seed0/base")
        planned = {run["name"] for run in json.loads((place / "study.json").read_text())["runs"]} if not status else set()
        right = len(planned) == 15 * len(content["seeds"])
        named = bool(status) and words in said and "not foreseen" not in said
        yield f"a plan {kind}", "named" if named else "harmless" if right else "silent", f"{status} {said[:300]}"
        (place / "study.json").unlink(missing_ok=True)


# --- two at one run ----------------------------------------------------------------------------------------------------------------------


def twice_cases(folder, runs, times=3):
    """(kind, outcome, what was said): two processes start the same run at once; it ends once, with the weights of one that was alone."""
    config, whole, rows = unstopped(runs, folder / "twice")
    for delay in range(times):
        shutil.rmtree(folder / "twice", ignore_errors=True)
        processes = [Forked(lambda: bool(fit(copy.deepcopy(config))) - 1) for _ in range(2)]
        codes = [process.wait() for process in processes]
        same = ended_the_same(folder / "twice", whole, rows)
        said = " | ".join(process.stderr()[-200:] for process in processes)
        yield f"two processes, {delay}", "equal" if same and 0 in codes else "silent", f"{codes} {said}"
