"""`unlearn watch`: its pictures of a study folder, and the command in a terminal while the folder changes."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress

import pytest
from rich.console import Console
from study_runs import UNLEARN
from test_report_study_data import StudyWriter

from unlearn_lightning.main import main
from unlearn_lightning.records import locked, read_run, write_json
from unlearn_lightning.report.page import FINAL
from unlearn_lightning.study.frame import ProbeMetrics, frame
from unlearn_lightning.study.slurm_queue import Task, note_submission
from unlearn_lightning.study.state import study_states


@pytest.fixture
def study(tmp_path):
    """Two finished runs, one that is to run, and one that nobody has started; the folder, and the run folder of the third."""
    writer = StudyWriter(tmp_path)
    writer.retrained(1, {"a": [-1.0]})
    writer.unlearn(1, 1, "npo", label={0: -0.21, 8: -3.4}, accuracy={0: 0.5, 16: 0.25})
    running = writer.unlearn(1, 4, "npo", label={0: -0.1, 4: -0.9}, status="running")
    write_json(running / "progress.json", {"step": 4, "steps": 16, "tokens_per_second": 1234.5})
    writer.run("seed1/p4/ga", "unlearn", {"seed": 1, "path": ["safety"], "p": 4, "objective": "ga"}, status=None)
    return writer.write(), running


def shown(folder):
    """The version of the page there, as an open page learns it; None where there is no page."""
    file = folder / "report" / "version.svg"
    return int(re.search(r'width="(\d+)"', file.read_text())[1]) if file.is_file() else None


def said(console):
    return " ".join(console.export_text().split())


def picture(folder, height=None, tasks=None):
    console = Console(record=True, width=160, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(frame(study_states(folder, tasks), ProbeMetrics(), "demo", height=height))
    return said(console)


def test_a_picture_shows_what_runs_how_far_how_fast_and_what_was_measured(study):
    folder, running = study
    with locked(running):
        text = picture(folder)
    assert "demo 2 finished, 1 running, 1 ready, of 4 runs 1,234 tokens/s" in text
    assert "forget/" in text
    assert "label_log_lik" in text
    assert re.search(r"seed1/p1/npo finished 16/16 6,500 −0.21 → −3.4 0.5 → 0.25", text), text
    assert re.search(r"seed1/p4/npo running 4/16 \S+ 1,234 −0.1 → −0.9", text), text
    assert "seed1/p4/npo stopped 4/16" in picture(folder), "its process is gone"


def test_in_a_narrow_terminal_no_number_is_cut(study):
    folder, running = study
    console = Console(record=True, width=80, file=open(os.devnull, "w"))  # noqa: SIM115
    with locked(running):
        console.print(frame(study_states(folder), ProbeMetrics(), "demo", width=80))
    text = console.export_text()
    assert "…" not in text
    assert re.search(r"seed1/p1/npo +finished +16/16 +6,500 +−3.4 +0.25", text), text
    assert re.search(r"seed1/p4/npo +running +4/16 +1,234 +−0.9", text), text


def test_a_queue_is_shown_beside_the_files(study):
    folder, running = study
    script = folder / "slurm" / "001-x.sh"
    note_submission(running, script, 0)
    note_submission(folder.parent / "store" / "seed1-p4-ga", script, 1)
    # A lock that another machine holds cannot be seen on every file system; the queue knows that the run runs.
    tasks = [Task("7", 0, "RUNNING", "None", str(script)), Task("7", 1, "PENDING", "Priority", str(script))]
    text = picture(folder, tasks=tasks)
    assert "2 finished, 1 running, 1 queued" in text
    assert "7_1 pending (Priority)" in text
    lost = {run.name: run for run in study_states(folder, [])}
    assert (lost["seed1/p4/ga"].state, lost["seed1/p4/npo"].state) == ("ready", "stopped")
    assert lost["seed1/p4/ga"].why == "its job has left the queue before it began, such as by scancel; the study submits it again"
    script.parent.mkdir()
    (folder / "slurm/001-x.1.out").touch()
    (why,) = (run.why for run in study_states(folder, []) if run.name == "seed1/p4/ga")
    assert why == f"its job has left the queue; {folder}/slurm/001-x.1.out may say why; the study submits it again"


def test_what_does_not_fit_is_counted(study):
    folder, running = study
    with locked(running):
        text = picture(folder, height=8)
    assert "seed1/p4/npo running" in text
    assert "seed1/p1/npo finished" in text
    assert "not shown: 1 finished, 1 ready" in text


def test_once_prints_a_picture_from_the_files_alone_and_without_torch(study):
    folder, _ = study
    code = "import sys; from unlearn_lightning.main import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "watch", str(folder), "--once"], capture_output=True, text=True, check=True)
    assert "2 finished, 1 stopped, 1 ready, of 4 runs" in " ".join(done.stdout.split())
    assert done.stdout.endswith("False\n")
    assert not (folder / "report").exists(), "one picture leaves the report as it is"


def test_a_missing_study_and_a_wrong_interval_are_refused(tmp_path, capsys):
    assert main(["watch", str(tmp_path), "--once"]) == 2
    assert "there is no study.json and no run.json" in capsys.readouterr().err
    assert main(["watch", str(tmp_path), "--every", "0"]) == 2
    assert "above 0, got 0" in capsys.readouterr().err


def test_in_a_terminal_it_follows_a_study_to_its_end_and_keeps_the_page(study):
    folder, running = study
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color"}
    for fixed in ("COLUMNS", "LINES"):
        env.pop(fixed, None)
    command = [*UNLEARN, "watch", str(folder), "--every", "0.2"]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=env, start_new_session=True)
    os.close(terminal)
    seen = ""

    def read_until(words):
        nonlocal seen
        deadline = time.monotonic() + 120
        while not all(word in seen for word in words):
            assert time.monotonic() < deadline, seen[-2000:]
            with suppress(OSError):
                seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(master, 1 << 16).decode(errors="replace"))

    try:
        with locked(running):
            read_until(["4/16", "−0.1 → −0.9", "1,234"])
            write_json(running / "progress.json", {"step": 9, "steps": 16, "tokens_per_second": 1500.0})
            read_until(["9/16"])
            deadline = time.monotonic() + 120
            while shown(folder) != 2 + 2 and time.monotonic() < deadline:
                time.sleep(0.1)
            assert "The study runs: 2 of 4 runs are finished." in (folder / "report" / "index.html").read_text()
        for name in ("seed1-p4-npo", "seed1-p4-ga"):
            place = folder.parent / "store" / name
            write_json(place / "run.json", {**read_run(folder.parent / "store" / "seed1-p1-npo"), "status": "finished"})
            (place / "config.yaml").write_text("")
        read_until(["4 finished, of 4 runs", "Report: "])
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert shown(folder) == FINAL
    assert "This page follows" not in (folder / "report" / "index.html").read_text()


def test_no_probe_is_left_out_silently_and_the_sets_come_first(study):
    folder, running = study
    place = folder.parent / "store" / running.name
    for probe in ("holdout", "forget_answers", "retain_answers", "retain", "answers"):
        write_json(place / "records" / probe / "000004.json", {"metrics": {f"{probe}/log_lik": -1.0}})
    lines = picture(folder, height=11)
    assert "measured, too: retain_answers/log_lik, holdout/log_lik, answers/log_lik" in lines
    assert re.search(r"forget/ .*forget_answers/ .*retain/ .*gsm8k/", lines), lines
    # The line takes its own room: of eleven lines none is too many.
    console = Console(record=True, width=160, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(frame(study_states(folder), ProbeMetrics(), "demo", height=8))
    assert len(console.export_text().splitlines()) <= 8
