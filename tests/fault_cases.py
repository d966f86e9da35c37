"""Faults by kind, seeded: files that are damaged, runs that are killed, full disks, hostile names and texts. scripts/faults does them all.

Every case ends in one word: `named` (one line says which file or setting is wrong), `harmless` (the outcome is the undamaged one),
`equal` (a killed run ended with the same weights); `silent` and `crash` are faults of this package.
"""

import copy
import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress

import torch
from study_runs import fit, metrics_text, settings, weights

from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.cli.errors import is_known, line
from unlearn_lightning.inference.chat_format import ChatFormat
from unlearn_lightning.models import backbone, chat_tokenizer
from unlearn_lightning.models.adapters import load_adapter
from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.modules.reference_file import ReferenceFile
from unlearn_lightning.records import is_finished, read_run, read_study, write_json
from unlearn_lightning.records.run_records import readable_records
from unlearn_lightning.records.yaml_files import read_mapping
from unlearn_lightning.runs.content import changed_records, refuse_changed_place
from unlearn_lightning.runs.metrics_file import MetricsFile
from unlearn_lightning.runs.moved import read_config
from unlearn_lightning.runs.resume import checkpoint_to_resume
from unlearn_lightning.sources.readers import read_rows


def flipped(content, rng):
    """Single bits of 6 bytes, as a failing disk or memory flips them."""
    changed = bytearray(content)
    for place in rng.sample(range(len(changed)), min(6, len(changed))):
        changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


DAMAGES = {
    "empty": lambda content, rng: b"",
    "cut": lambda content, rng: content[: len(content) // 2],
    "one byte short": lambda content, rng: content[:-1],
    "zeros": lambda content, rng: bytes(len(content)),
    "noise": lambda content, rng: b"\xff" + rng.randbytes(len(content)),
    "flipped": flipped,
    "another kind": lambda content, rng: b"[1, 2]",
    "deep": lambda content, rng: b"[" * 100_000,
    "deep object": lambda content, rng: b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
}  # fmt: skip
# Damage that leaves a text or a list of numbers as good as before: only a digest finds it.
UNSEEN = ("flipped", "zeros", "one byte short")


class Stop(Exception):
    """Ends a run in its middle."""


class StopAtStep3(lightning_cli.pl.Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 3:
            raise Stop


def probe(questions):
    data = {"class_path": "ChatStage", "init_args": {"source": questions, "held_out_source": questions}}
    return {"class_path": "RetainLikelihood", "init_args": {"data": data, "every_n_steps": 2, "limit": 4}}


def make_runs(folder):
    """A run with whole weights, one with an adapter on it, and one that was stopped in the middle, in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "corpus.jsonl").write_text('{"text": "Who wrote the blue book? Ann wrote it in 1987."}')
    (folder / "questions.jsonl").write_text("\n".join(f'{{"prompt": "Who wrote {i}?", "response": "Ann. #### {i}"}}' for i in range(19)))
    files = str(folder / "corpus.jsonl"), str(folder / "questions.jsonl")
    fit(settings(*files, folder / "whole", trainer={"max_steps": 2, "callbacks": [probe(files[1])]}))
    backbone = {"model": str(folder / "whole/model"), "lora": {"rank": 2, "alpha": 2}}
    fit(settings(*files, folder / "lora", trainer={"max_steps": 1}, model={"init_args": {"backbone": backbone}}))
    config = settings(*files, folder / "stopped", checkpoint_every_n_steps=2)
    with suppress(Stop):
        lightning_cli.run({"subcommand": "fit", "fit": config}, callbacks=[StopAtStep3()])
    reference = ReferenceFile(folder / "reference.safetensors")
    reference.write({1: -0.5, 2: -1.5})
    write_json(
        folder / "study.json", {"name": "s", "runs": [{"key": "k", "folder": "../whole", "kind": "stage", "name": "a", "parents": []}]}
    )
    return folder


# --- damaged files ------------------------------------------------------------------------------------------------------------------


def load_model(folder):
    """All that a model folder gives: its tokens, its prompts and its weights."""
    settings_ = Backbone(model=str(folder), lora=None)
    tokenizer = settings_.load_tokenizer()
    text = ChatFormat(tokenizer).turn("Who wrote 3?", "Ann.")
    return text, tokenizer(text[0])["input_ids"], [value.sum().item() for value in settings_.load_base().state_dict().values()]


def load_lora(folder):
    net = load_adapter(Backbone(model=str(folder.parents[1] / "whole/model"), lora=None).load_base(), str(folder), trainable=False)
    return [value.sum().item() for value in net.state_dict().values()]


def resumed(checkpoint):
    chosen = checkpoint_to_resume(checkpoint.parents[1], None)
    return torch.load(chosen, weights_only=True)["global_step"]


def rows_of(path):
    refuse = changed_records(path.parent)
    if refuse:
        raise ValueError(f"{path.parent / refuse[0]} changed")
    return path.read_text()


def rows_of_checkpoint(path):
    MetricsFile(path).keep(3)
    return path.read_text()


def record_of(path):
    found, left_out = readable_records(path.parents[2], path.parent.name)
    if left_out:
        raise ValueError(f"{path.parents[2] / left_out[0]}")
    return found


def state_of(path):
    return is_finished(path.parent), read_run(path.parent).get("status")


def result_of_run(path):
    refuse_changed_place(str(path.parent))
    return path.read_bytes()


MODEL = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")
ADAPTER = ("adapter_model.safetensors", "adapter_config.json")
# Kind of file -> the file in the folder of `make_runs`, what uses it, and the damage that a reader without a digest cannot see.
FILES = {
    **{f"{name} of a run": (f"whole/model/{name}", result_of_run, ()) for name in MODEL},
    **{f"{name} of a run": (f"lora/adapter/{name}", result_of_run, ()) for name in ADAPTER},
    **{f"{name} of a folder": (f"whole/model/{name}", lambda path: load_model(path.parent), UNSEEN) for name in MODEL},
    **{f"{name} of a folder": (f"lora/adapter/{name}", lambda path: load_lora(path.parent), UNSEEN) for name in ADAPTER},
    "last.ckpt": ("stopped/checkpoints/last.ckpt", resumed, ()),
    "metrics.csv of a finished run": ("whole/metrics.csv", rows_of, ()),
    "metrics.csv of a stopped run": ("stopped/metrics.csv", rows_of_checkpoint, UNSEEN),
    "a record": ("whole/records/retain/000002.json", record_of, ()),
    "run.json": ("whole/run.json", state_of, ("flipped", "one byte short")),
    "config.yaml": ("whole/config.yaml", lambda path: read_config(path.parent), ("flipped", "one byte short", "cut")),
    "study.json": ("study.json", lambda path: read_study(path.parent), ("flipped", "one byte short")),
    "a configuration": ("whole/config.yaml", read_mapping, ("flipped", "one byte short", "cut", "deep object")),
    "data": ("questions.jsonl", lambda path: [row.text("prompt") + row.text("response") for row in read_rows(str(path))], ("flipped",)),
    "reference": ("reference.safetensors", lambda path: ReferenceFile(path).read(), ()),
}  # fmt: skip


@contextmanager
def damaged(path, damage, rng):
    """The file damaged, and back afterwards with its time."""
    content, status = path.read_bytes(), path.stat()
    path.write_bytes(DAMAGES[damage](content, rng))
    try:
        yield
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def outcome(use, path, whole):
    """What a use of a damaged file ended in, and what it said."""
    try:
        found = use(path)
    except Exception as error:
        said = line(error)
        names = path.name in said or path.parent.name in said
        return ("named" if is_known(error) and names else "crash"), f"{type(error).__name__}: {said}"
    # A reference that is not taken is computed again.
    same = found == whole or found == {}
    return ("harmless" if same else "silent"), repr(found)[:200]


def damage_cases(folder, rng, kinds=FILES):
    """(kind, outcome, what was said) of every file kind under every damage that its reader can see."""
    for kind, (name, use, unseen) in kinds.items():
        path = folder / name
        cached = copy.deepcopy(use(path))
        for damage in DAMAGES:
            if damage in (*unseen, "wrong values"):
                continue
            chat_tokenizer.load_tokenizer.cache_clear()
            backbone._positions.cache_clear()
            with damaged(path, damage, rng):
                found, said = outcome(use, path, cached)
            yield f"{kind}, {damage}", found, said


WRONG = (None, "x", -1, 0, 10**30, 1e300, True, [], {}, [None], {"a": None}, "[red]\x1b[31m")


def wrong_values(content, rng):
    """One value of a JSON file, anywhere in it, replaced by another that does not belong there."""
    whole = json.loads(content)
    inside = whole
    while True:
        names = list(inside) if isinstance(inside, dict) else range(len(inside))
        name = rng.choice(names)
        if isinstance(inside[name], dict | list) and inside[name] and rng.random() < 0.7:
            inside = inside[name]
            continue
        inside[name] = rng.choice(WRONG)
        return json.dumps(whole).encode()


DAMAGES["wrong values"] = wrong_values
VALUES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "adapter_config.json",
    "run.json",
    "study.json",
)


def value_cases(folder, rng, times):
    """(kind, outcome, what was said) of JSON files with a wrong value; another outcome is right, as another value may be meant."""
    for kind, (name, use, _) in FILES.items():
        if not kind.startswith(VALUES) or kind.endswith("of a run"):
            continue
        path = folder / name
        whole = use(path)
        for _ in range(times):
            chat_tokenizer.load_tokenizer.cache_clear()
            with damaged(path, "wrong values", rng):
                seen = path.read_text()
                found, said = outcome(use, path, whole)
            yield f"{kind}, wrong values", "harmless" if found == "silent" else found, f"{said} {'' if found != 'crash' else seen[:3000]}"


# --- kills ------------------------------------------------------------------------------------------------------------------------------


def die():
    os.kill(os.getpid(), signal.SIGKILL)


KILLS = {
    "fsync": (os, "fsync"), "replace": (os, "replace"), "torch.save": (torch, "save"), "unlink": (os, "unlink"),
    "mkdir": (os, "mkdir"),
}  # fmt: skip


def killed_at(config, call, number):
    """Whether a run in a process of its own was killed by the n-th such call; False where it ended before."""
    child = os.fork()
    if not child:
        owner, name = KILLS[call]
        original, calls = getattr(owner, name), []

        def counted(*args, **kwargs):
            calls.append(1)
            if len(calls) == number:
                die()
            return original(*args, **kwargs)

        setattr(owner, name, counted)
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        try:
            fit(config)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def unstopped(runs, folder):
    """The configuration of a run in a folder, and the weights and numbers of the same run that nobody disturbed."""
    files = str(runs / "corpus.jsonl"), str(runs / "questions.jsonl")

    def config(place):
        return settings(*files, place, checkpoint_every_n_steps=2, trainer={"callbacks": [probe(files[1])]})

    if not is_finished(runs / "unstopped"):
        fit(config(runs / "unstopped"))
    return config(folder), weights(runs / "unstopped"), metrics_text(runs / "unstopped")


def ended_the_same(folder, whole, rows):
    """Whether a run ended with the weights and the numbers of the run that nobody disturbed."""
    same = all(torch.equal(whole[name], value) for name, value in weights(folder).items())
    return same and metrics_text(folder) == rows and is_finished(folder)


def kill_cases(folder, runs, calls=tuple(KILLS), numbers=range(1, 60)):
    """(kind, outcome, what was said): killed at the n-th call, the same command ends with the weights of a run that nobody stopped."""
    config, whole, rows = unstopped(runs, folder / "killed")
    for call in calls:
        for number in numbers:
            shutil.rmtree(folder / "killed", ignore_errors=True)
            if not killed_at(copy.deepcopy(config), call, number):
                break
            fit(copy.deepcopy(config))
            yield f"kill at {call}", "equal" if ended_the_same(folder / "killed", whole, rows) else "silent", f"call {number}"


# --- a full disk ------------------------------------------------------------------------------------------------------------------------


def can_mount(place):
    """Whether this process may mount a small file system there, and why not."""
    if os.geteuid() != 0:
        return "needs root, to mount a small tmpfs"
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"a tmpfs cannot be mounted: {done.stderr.strip()}"
    subprocess.run(["umount", str(place)], check=True)
    return None


def disk_cases(folder, runs, sizes):
    """(kind, outcome, what was said): a run on a disk of so many kilobytes says where there is no space; with more it goes on and ends."""
    place = folder / "disk"
    config, whole, rows = unstopped(runs, place / "run")
    for size in sizes:
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)], check=True)
        try:
            fit(copy.deepcopy(config))
            found, said = "harmless", "it had room enough"
        except Exception as error:
            said = line(error)
            found = "named" if is_known(error) and "No space left" in said and str(place) in said else "crash"
            subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
            fit(copy.deepcopy(config))
            found = found if ended_the_same(place / "run", whole, rows) else "crash"
        finally:
            subprocess.run(["umount", "-l", str(place)], check=False)
        yield f"disk of {size} kB", found, said


def timed(cases):
    """The same cases, and the seconds that all of them took."""
    start, found = time.monotonic(), list(cases)
    return found, time.monotonic() - start
