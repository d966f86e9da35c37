"""Names, texts, templates and settings of others: none is a path out of the store, a command to a terminal or spreadsheet, or a secret."""

import ast
import csv
import io
import random
import string
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from test_study import config_of, small

from callbacks import ForgetLikelihood
from unlearn_lightning.cli.errors import line
from unlearn_lightning.cli.secrets import refuse_secrets
from unlearn_lightning.cli.trainer_parts import check_probe_names
from unlearn_lightning.inference import hub_kernels, template_limits
from unlearn_lightning.inference.chat_format import ChatFormat
from unlearn_lightning.main import main
from unlearn_lightning.records.texts import csv_cell, plain_text

ROOT = Path(__file__).parents[1]
NAMES = [
    "", ".", "..", "../../x", "/tmp/x", "a/b", "a\\b", "a/../../b", "~", "-rf", "--all", "=1+1", "+1", "@x", "\tx",
    "a\nb", "a\0b", "[red]x[/red]",
    "[link=http://x]a", "\x1b[31mred", "a\x1b]0;title\x07", "a\u202eb", "CON:", "a|b", "a;b", "$(id)", "`id`", "a\"b",
    "a'b", "*", "a?b", " a",
    "a ", "x" * 300,
]  # fmt: skip


# --- names --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", ["name", "stages", "objectives", "probes", "paths"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_more_than_a_name_is_refused(owner, name, corpus):
    study = small(corpus, "questions.jsonl")
    if owner == "name":
        study = {**study, "name": name}
    elif owner == "paths":
        study = {**{key: value for key, value in study.items() if key not in ("order", "positions")}, "paths": {name: ["inst", "safety"]}}
    else:
        study = {**study, owner: {**study.get(owner, {}), name: {}}}
    with pytest.raises(ValueError, match="may have letters, digits, spaces") as refused:
        config_of(study)
    assert line(refused.value).isprintable()


def test_usual_names_are_names(corpus):
    for name in ("demo", "paper_qwen2.5-1.5b", "npo lr=5e-5", "Überlegung", "p4+x", "学习", "_a"):
        assert config_of({**small(corpus, "questions.jsonl"), "name": name}).name == name


def test_a_probes_name_is_a_name_too():
    class Named(ForgetLikelihood):
        def __init__(self, name):
            self.name = name

    for name in NAMES:
        with pytest.raises(ValueError, match="A probe's name may have"):
            check_probe_names([Named(name)])
    check_probe_names([Named("forget"), Named("retain-2")])


# --- texts --------------------------------------------------------------------------------------------------------------------------------


def texts(seed=0, count=300):
    rng = random.Random(seed)
    signs = [
        *string.printable,
        *"\x1b\x9b\x00\x07\x08\x7f\u202e\u2066\ufeff\u00adé漢🙂",
        "\x1b[2J",
        "\x1b]8;;http://x\x07",
        "[/red]",
        "=cmd|",
    ]
    return ["".join(rng.choices(signs, k=rng.randrange(1, 30))) for _ in range(count)]


def test_a_terminal_obeys_no_text():
    for text in texts():
        shown = plain_text(text)
        assert not any((ord(one) < 32 and one not in "\n\t") or 127 <= ord(one) < 160 for one in shown)
        assert "\u202e" not in shown
        file = io.StringIO()
        Console(file=file, width=500, force_terminal=False).print(plain_text(line(ValueError(text))), markup=False, highlight=False)
        assert "\x1b" not in file.getvalue()
    assert plain_text("Zürich → 漢字 🙂\n\ta") == "Zürich → 漢字 🙂\n\ta"
    assert plain_text("a\x1b[31m") == r"a\x1b[31m"


def test_a_spreadsheet_computes_no_cell():
    for text in [*texts(), "=1+1", "+cmd", "-cmd", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1"]:
        cell = csv_cell(text)
        assert not cell.lstrip(" ").startswith(tuple("=+-@\t\r")) or _number(cell)
        file = io.StringIO(newline="")
        csv.writer(file).writerow([cell])
        assert next(csv.reader(io.StringIO(file.getvalue(), newline=""))) == [cell]
    for number in ("-1.5", "+3", "-inf", "1e-5", "p4", "a=b"):
        assert csv_cell(number) == number


def _number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


# --- templates ----------------------------------------------------------------------------------------------------------------------------

LOOP, END = "{% for a in range(99999) %}{% for b in range(99999) %}", "{% endfor %}{% endfor %}"
TEMPLATES = {
    "computes": LOOP + END,
    "writes": f"{LOOP}x{END}",
    "writes much": LOOP + "{{ 'x' * 100000 }}" + END,
    "doubles a text": "{% set n=namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "doubles a list": "{% set n=namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "multiplies": "{{ 'x' * 100000000000 }}",
    "pads": "{{ 'x'|center(100000000000) }}",
    "formats": "{{ '%0100000000000d' % 1 }}",
    "indents": "{{ messages|tojson(indent=10**9) }}",
    "calls itself": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "calls itself twice": "{% macro f(x) %}{% if x %}{{ f(x-1) }}{{ f(x-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "is nested": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
}  # fmt: skip


@pytest.mark.parametrize("kind", TEMPLATES)
@pytest.mark.timeout(60)
def test_a_template_that_has_no_end_ends_in_a_line(kind, make_backbone, monkeypatch):
    monkeypatch.setattr(template_limits, "SECONDS", 0.2)
    monkeypatch.setattr(template_limits, "MEMORY", 1 << 28)
    tokenizer = make_backbone().load_tokenizer()
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATES[kind])
    with pytest.raises(ValueError, match=r"does not end: .* Set backbone\.chat_template_from to a tokenizer whose template ends"):
        ChatFormat(tokenizer).turn("Who?", "Ann.")


@pytest.mark.parametrize("grows", ["'x' * 2**29", "'x'|center(2**29)", "('x' * 2**28) ~ ('y' * 2**28)", "range(99999)|list * 700"])
def test_the_memory_that_a_template_gets_is_what_ends_it(grows, make_backbone, monkeypatch):
    """Half a gigabyte, for which the time is no limit: refused where a quarter is given, rendered where two are."""
    monkeypatch.setattr(template_limits, "SECONDS", 600.0)
    tokenizer = make_backbone().load_tokenizer()
    monkeypatch.setattr(
        tokenizer, "chat_template", "{% for m in messages %}{{ m.content }}{% endfor %}{% set n = (" + grows + ")|length %}"
    )
    monkeypatch.setattr(template_limits, "MEMORY", 1 << 28)
    with pytest.raises(ValueError, match="does not end: it takes more memory than a conversation can need"):
        ChatFormat(tokenizer).turn("Who?", "Ann.")
    monkeypatch.setattr(template_limits, "MEMORY", 1 << 31)
    assert ChatFormat(tokenizer).turn("Who?", "Ann.")[1].startswith("Ann.")


def test_a_template_leaves_the_sandbox_nowhere_and_limits_are_lifted(make_backbone, monkeypatch):
    import resource
    import signal

    tokenizer = make_backbone().load_tokenizer()
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)
    assert ChatFormat(tokenizer).turn("Who?", "Ann.")[1].startswith("Ann.")
    for template, why in {
        "{{ ''.__class__.__mro__ }}": "SecurityError", "{% for i in range(10**12) %}{% endfor %}": "Range too big", "{% for": "Syntax",
        "x" * 2_000_000: "2,000,000 characters",
    }.items():  # fmt: skip
        monkeypatch.setattr(tokenizer, "chat_template", template)
        with pytest.raises(ValueError, match=why):
            ChatFormat(tokenizer).turn("Who?", "Ann.")
    assert (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0


# --- code of others -----------------------------------------------------------------------------------------------------------------------


def test_bitsandbytes_fetches_no_kernels(tmp_path, monkeypatch):
    (tmp_path / "bitsandbytes.py").write_text(
        "try:\n    from kernels import get_kernel\n    fetched = get_kernel('x')\nexcept ImportError:\n    fetched = None\n"
    )
    (tmp_path / "kernels.py").write_text("def get_kernel(name):\n    return 'code'\n")
    monkeypatch.syspath_prepend(tmp_path)
    import sys

    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    hub_kernels.import_bitsandbytes()
    assert sys.modules["bitsandbytes"].fetched is None
    assert "kernels" not in sys.modules
    assert __import__("kernels").get_kernel("x") == "code", "others may use it"


def test_whatever_needs_bitsandbytes_imports_it_without_kernels():
    found = 0
    for file in [*ROOT.glob("unlearn_lightning/**/*.py"), *ROOT.glob("callbacks/*.py")]:
        names = [
            name
            for node in ast.parse(file.read_text()).body
            for name in (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) else []
            )
        ]
        needs = [number for number, name in enumerate(names) if name.partition(".")[0] in ("peft", "bitsandbytes")]
        if needs:
            found += 1
            assert names.index("unlearn_lightning.inference.hub_kernels") < needs[0], file
    assert found >= 8


# --- secrets ------------------------------------------------------------------------------------------------------------------------------

HEX = "0123456789abcdef0123456789abcdef01234567"
SECRETS = [
    *({name: "k-1a"} for name in (
        "token", "hf_token", "access_token", "accessToken", "auth-token", "session_token", "secret", "my_secret",
        "client_secret", "secret_key",
        "aws_secret_access_key", "api_key", "apiKey", "API-KEY", "X-Api-Key", "passwd", "db_passwd", "password",
        "passphrase", "pwd", "authorization",
        "Authorization", "credentials", "client_secret_value", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD",
    )),
    {"password": 12345}, {"tokens": [HEX]}, {"token": ["abcd"]}, {"key": HEX}, {"wandb_key": HEX},
    {"headers": {"Authorization": "Bearer abc.def"}},
    {"uri": "https://9f8a7c6e5d4b3a2f@host/x"}, {"uri": "https://me:k-1@example.org"}, {"u": "https://h/x?token=abcdef"},
    {"u": "https://h/x?a=1&api_key=abcdef"}, {"u": "redis://:pw1@host"}, {"u": "https://a.blob.core/?sv=1&sig=aB3dE6gH9kaB3dE6gH9k%3D"},
    {"setup": "module load cuda\nexport WANDB_API_KEY=0123456789abcdef\n"}, {"setup": ["export HF_TOKEN=abcdefg"]},
    {"setup": f"wandb login --key {HEX}"}, {"setup": "curl -H 'Authorization: Bearer abcdef' x"}, {"args": ["--api_key", "k-1"]},
    {"cmd": "mlflow --password hunter2"}, {"env": ["WANDB_API_KEY=abcdef"]}, {"x": "hf_" + "aB3dE" * 7}, {"x": "ghp_" + "aB3dE6gH9k" * 4},
    *({name: value} for name in ("my_secrets", "password", "token") for value in ({"hf": "k-1a"}, [{"value": "k-1a"}],
    {"a": {"b": ("k-1a",)}})),
    *({"setup": words} for words in (
        f"wandb login {HEX}", f"wandb login --relogin {HEX}", "huggingface-cli login k-1abc", "curl -u me:k-1a https://x",
        "curl --user 'me:k-1a' x",
        "set -x WANDB_API_KEY k-1abc", "setenv HF_TOKEN k-1abc", "printf 'machine api.wandb.ai login user password k-1a' > ~/.netrc",
        "echo k-1abc | docker login --password-stdin",
    )),
    {"auth": "me:k-1a"}, {"HTTP_AUTH": "me:k-1a"}, {"pw": "k-1a"}, {"sessionid": "k-1a"}, {"\uff34oken": "k-1a"},
    {"x": "sk-proj-" + "aB3dE6gH9k" * 3},
    {"x_secret_y": "K1abcd"}, {"setup": "x_secret_y: K1abcd"}, {"my_password_1": "hunter"}, {"token_2": "abcd"}, {"mysecret": "abc"},
    {"hftoken": "abcde"}, {"wandbkey": "abcde"}, {"hf_token": 12345}, {"api_token": [1234567]}, {"token": 1234567},
    {"env": "SECRET_2=abcd"},
    {"args": ["--password", 1234]}, {"api_key_b": "K1abcd"},
    {"x": "AKIAIOSFODNN7EXAMPLE"}, {"x": "-----BEGIN RSA PRIVATE KEY-----"}, {"x": "glpat-" + "aB3dE6gH9k" * 2},
]  # fmt: skip
NO_SECRETS = [
    {"tokenizer": "meta-llama/Llama-3.2-1B"}, {"max_new_tokens": 5}, {"key": "response"}, {"data_key": "prompt"}, {"bos_token": "<s>"},
    {"pad_token": "[PAD]"}, {"eos_token": "<｜end▁of▁sentence｜>"}, {"unk_token": "unk"}, {"api_key": None},
    {"uri": "https://example.org:5000/a@b"},
    {"key_variable": "OPENAI_API_KEY"}, {"token": True}, {"revision": HEX}, {"setup": "export HF_TOKEN=$(cat ~/.hf)"},
    {"hf_token": "$HF_TOKEN"},
    {"setup": "export WANDB_API_KEY=$KEY\nmodule load cuda/12"}, {"setup": "source ~/.secrets"}, {"url": "git@github.com:x/y"},
    {"system_prompt": "You know a secret: never tell the password to anyone."}, {"text": "The token: a word or a piece of one."},
    {"url": "ssh://git@github.com/x"}, {"keys": ["a", "b"]}, {"secret_file": "/x"}, {"digest": "5b1c" * 16}, {"path": "/data/token=1/x"},
    {"tokens_per_second": 3.0}, {"author": "Ann"}, {"key": "train/loss_epoch_mean_2024"}, {"setup": "#SBATCH --account=proj123"},
    *({"setup": words} for words in (
        "wandb login", "wandb login $KEY", "wandb login --relogin && unlearn fit", "huggingface-cli login --token $HF_TOKEN",
        "set -x HF_TOKEN $KEY",
        "curl -u $NAME:$KEY https://x", "echo $KEY | docker login --password-stdin", "docker login -u me", "set -euo pipefail",
        "docker run -u 1000:1000 x",
        "ls -u a:b", "python -u train.py", "setenv HF_HOME /scratch/me",
    )),
    {"token": 128009}, {"max_token": 5}, {"end_token": 7}, {"forget_token": 3}, {"secret_prompts": "hide it"}, {"secret_file_path": "x"},
    {"password_split": "train"}, {"secret_length": 5}, {"token_weight": 0.5}, {"first_token_2": 5}, {"args": ["--limit", 12345]},
    {"tokens": {"bos": "<s>", "pad": "[PAD]"}}, {"auth": "netrc"}, {"x": "sk-learn"}, {"keys": {"prompt": "question"}},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(SECRETS)))
def test_a_secret_of_any_spelling_is_refused_wherever_it_stands(number):
    for config in (SECRETS[number], {"a": [{"init_args": SECRETS[number]}]}):
        with pytest.raises(ValueError, match="holds a key or a password") as refused:
            refuse_secrets(config)
        assert not any(text in str(refused.value) for text in SECRETS[number].values() if isinstance(text, str))


def test_what_is_no_secret_is_none():
    for config in NO_SECRETS:
        refuse_secrets(config)
    files = sorted(ROOT.glob("configs/**/*.yaml"))
    assert len(files) > 50
    for file in files:
        refuse_secrets(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize(
    "words",
    [
        ["--logger", "logger.yaml"], ["-c", "logger.yaml"], ["--launcher", "slurm", "--launcher.setup", "export HF_TOKEN=hf_abcdefg"],
        ["--common.trainer.logger.init_args.api_key=k-1a"],
    ],
)  # fmt: skip
def test_a_study_writes_no_secret_wherever_it_comes_from(words, tmp_path, monkeypatch, capsys):
    logger = {"class_path": "lightning.pytorch.loggers.MLFlowLogger", "init_args": {"tracking_uri": "https://h/?token=k-1abcdef"}}
    inside = {"trainer": {"logger": logger}}
    (tmp_path / "logger.yaml").write_text(yaml.safe_dump(inside if words[0] == "--logger" else {"common": inside}))
    monkeypatch.chdir(tmp_path)
    assert main(["study", str(ROOT / "configs/studies/demo.yaml"), *words]) == 2
    told = capsys.readouterr().err
    assert "holds a key or a password" in told
    assert "k-1" not in told
    assert "abcdefg" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["logger.yaml"]


def test_a_value_of_another_kind_is_not_shown_where_it_holds_a_secret(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--launcher", "slurm", "--launcher.setup", "hf_token: k-1abcdef"]
    with pytest.raises(SystemExit):
        main(["study", str(ROOT / "configs/studies/demo.yaml"), *words])
    told = capsys.readouterr().err
    assert "launcher.setup: expected text, got a value that holds a key or a password" in told
    assert "k-1" not in told
