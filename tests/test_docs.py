"""The documentation's website, built as `scripts/docs` builds it."""

import html
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import mkdocs.commands.build
import mkdocs.config
import pytest
from mkdocs.exceptions import Abort

import callbacks
from unlearn_lightning.cli import plugins
from unlearn_lightning.main import HELP

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--config-file", str(ROOT / "mkdocs.yml"), "--site-dir", str(folder)]
    done = subprocess.run(build, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACES = re.compile(r"(?:unlearn_lightning|callbacks|scripts|tests|configs)/[\w./{},*-]*\w")
CLASSES = re.compile(r"(?<![\w.])(?:unlearn_lightning|callbacks)(?:\.\w+)+")


def files_named(text):
    """The files and folders of this repository that a text names; `a/{b,c}.py` names two."""
    for name in PLACES.findall(text):
        before, brace, rest = name.partition("{")
        inner, _, after = rest.partition("}")
        yield from (before + one + after for one in inner.split(",")) if brace else [name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_module_that_a_page_names_exists(page):
    text = page.read_text()
    # What a reader is to write in its place is named in capitals.
    named = [name for name in files_named(text) if not re.search(r"[A-Z]{4}", name.removesuffix(".md"))]
    missing = [name for name in named if not any(ROOT.glob(name)) and not (ROOT / f"{name}.py").exists()]
    for dotted in CLASSES.findall(text):
        if dotted == plugins.GROUP:  # the entry point's name, which is no module
            continue
        try:
            pkgutil.resolve_name(dotted)
        except (ImportError, AttributeError):
            missing.append(dotted)
    assert not missing, f"{page.name} names what is not there: {missing}"


def test_every_probe_is_defined_on_the_page_of_metrics():
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert [name for name in callbacks.__all__ if name not in ("Probe", "Quantity") and f"`{name}`" not in page] == []


def text(site, page):
    return html.unescape(re.sub(r"<[^>]+>", "", (site / page).read_text()))


def test_every_page_of_the_repository_is_there(site):
    pages = {path.with_suffix(".html").name for path in (ROOT / "docs").glob("*.md")}
    pages |= {"index.html", "changelog.html", "contributing.html", "security.html", "commands.html", "api.html"}
    assert pages <= {path.name for path in site.iterdir()}
    home = (site / "index.html").read_text()
    assert all(f'href="{page}"' in home for page in pages - {"index.html"}), "every page is in the navigation"


def test_the_first_help_fits_eighty_columns():
    assert not [line for line in HELP.splitlines() if len(line) > 80]


def test_the_commands_page_holds_their_real_help(site):
    shown = text(site, "commands.html")
    assert HELP.strip() in shown
    assert {"configs", "export", "fit", "new", "report", "status", "study"} <= set(re.findall(r"unlearn (\w+) --help\n", shown))
    for said in (
        "usage: unlearn report",
        "--retry-failed",
        "--trainer.max_epochs",
        "Help for --model.help=unlearn_lightning.objectives.npo.NPO",
    ):
        assert said in shown, said


def test_the_api_page_holds_every_objective_and_metric_with_its_docstring(site):
    shown = text(site, "api.html")
    for path in [*ROOT.glob("unlearn_lightning/objectives/[a-z]*.py"), *ROOT.glob("callbacks/[a-z]*.py")]:
        assert f"{path.parent.name}.{path.stem}" in shown
    assert "per response; Zhang et al. 2024, arXiv:2404.05868, eq. 3." in shown


def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.glob("*.html"):
        assert not re.search(r'<(script|link|img)[^>]+(src|href)="(https?:)?//', page.read_text()), page.name


@pytest.mark.parametrize(
    ("link", "works"), [("runs.md", True), ("rums.md", False), ("runs.md#a-run-folder", True), ("runs.md#nowhere", False)]
)
def test_a_broken_link_fails(link, works, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"[a link]({link})")
    (tmp_path / "docs" / "runs.md").write_text("# Runs\n\n## A run folder\n")
    # The site's own settings without what makes pages of the code.
    config = mkdocs.config.load_config(
        str(ROOT / "mkdocs.yml"), docs_dir=str(tmp_path / "docs"), site_dir=str(tmp_path / "site"), hooks=[], plugins=[]
    )
    if works:
        mkdocs.commands.build.build(config)
    else:
        with pytest.raises(Abort):
            mkdocs.commands.build.build(config)
