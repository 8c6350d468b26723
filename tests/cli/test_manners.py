"""The manners of all commands: quiet, verbose, a log file, completion, colours on a terminal, one text an option."""

from __future__ import annotations

import logging
import os
import pty
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import skelfit
import skelfit.cli
from skelfit.cli import COMMANDS, main
from skelfit.cli.completion import INSTALL
from skelfit.cli.console import Console
from skelfit.conversion.run_lock import write_record
from skelfit.conversion.run_status import read_status
from skelfit.executors.report_table import ReportTable
from skelfit.storage.command_lines import next_command

TIMED = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR|DEBUG) ")
TABLE = ReportTable(("status", "rows"), (("ok", "12"), ("bad_input", "3")), "  ok  12\n  bad_input  3")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run that has only begun."""
    write_record(tmp_path, "demo", 100, 2)
    return tmp_path


def skelfit_(*words: object, environment: dict[str, str] | None = None) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words], env=environment, prog_name="skelfit")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_verbose_version_tells_what_skelfit_runs_on() -> None:
    short = skelfit_("--version").stdout
    lines = skelfit_("--version", "--verbose").stdout
    assert lines.startswith(short) and len(short.splitlines()) == 1
    assert re.search(r"^Python 3\.\d+", lines, re.M) and re.search(r"^torch 2\.", lines, re.M)
    assert re.search(r"^device: (cpu|cuda) \(", lines, re.M)
    assert skelfit_("-v", "--version").stdout == lines


@pytest.mark.parametrize("shell", INSTALL)
def test_completion_prints_a_script_that_says_how_to_install_it(shell: str) -> None:
    result = skelfit_("completion", shell)
    assert result.exit_code == 0 and "_SKELFIT_COMPLETE" in result.stdout
    assert f"# To install this: skelfit completion {shell} >" in result.stdout
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=result.stdout, text=True, check=True)


def test_the_names_of_commands_are_completed_without_an_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skelfit.cli, "import_module", lambda name: pytest.fail(f"imports {name}"))

    def completed(word: str) -> list[str]:
        environment = {
            "_SKELFIT_COMPLETE": "bash_complete",
            "COMP_WORDS": f"skelfit {word}",
            "COMP_CWORD": "1",
        }
        return skelfit_(environment=environment).stdout.split()

    assert completed("com") == ["plain,compare", "plain,completion"]
    assert completed("") == [f"plain,{name}" for name in COMMANDS]
    assert completed("--log") == ["plain,--log-file"]


def test_shipped_names_are_completed() -> None:
    environment = {"_SKELFIT_COMPLETE": "bash_complete", "COMP_CWORD": "3"}
    environment["COMP_WORDS"] = "skelfit bench --pipeline hmr"
    assert skelfit_(environment=environment).stdout.split() == ["plain,hmr-skel"]
    environment["COMP_WORDS"] = "skelfit bench --pipeline mine"
    assert skelfit_(environment=environment).stdout.split() == ["file,mine"]


def test_quiet_leaves_the_result_in_one_line(run_folder: Path) -> None:
    lines = skelfit_("status", run_folder).stdout.splitlines()
    assert len(lines) > 2
    for words in (("--quiet", "status", run_folder), ("status", "-q", run_folder)):
        assert skelfit_(*words).stdout.splitlines() == lines[:1]
    wrong = skelfit_("-q", "status", run_folder / "none")
    assert wrong.exit_code == 2 and wrong.stderr.startswith("Error: ")
    both = skelfit_("-q", "status", "-v", run_folder)
    assert both.exit_code == 2 and "give one of them" in both.stderr


def test_the_log_file_holds_all_that_was_said_with_times(run_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "all.log"
    said = skelfit_("--log-file", file, "status", run_folder).stdout
    skelfit_("status", run_folder / "none", "--log-file", file)
    skelfit_("--log-file", file, "status", "--nonsense")
    lines = file.read_text().splitlines()
    assert all(TIMED.match(line) for line in lines), lines
    texts = [TIMED.sub("", line) for line in lines]
    assert texts[:-2] == said.splitlines()
    assert texts[-2].startswith(f"Error: {run_folder}/none: expected the folder of a run")
    assert "ERROR Error: " in lines[-1] and "--nonsense" in lines[-1]
    refused = skelfit_("status", run_folder, "--log-file", tmp_path / "no" / "all.log")
    assert refused.exit_code == 2 and len(refused.stderr.splitlines()) == 1
    assert "all.log: cannot be written" in refused.stderr


def test_a_bug_leaves_its_traceback_in_the_log_file(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("no such number")

    monkeypatch.setattr("skelfit.cli.status.read_status", fail)
    file = tmp_path / "bug.log"
    assert isinstance(
        CliRunner().invoke(main, ["--log-file", str(file), "status", str(run_folder)]).exception,
        ZeroDivisionError,
    )
    assert "Traceback" in file.read_text() and "no such number" in file.read_text()


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        ((), ["a warning"]),
        (("--quiet",), []),
        (("--verbose",), ["DEBUG skelfit.x: a detail", "WARNING skelfit.x: a warning"]),
    ],
)
def test_what_modules_log(
    option: tuple[str, ...], shown: list[str], run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def log(folder: Path) -> object:
        logging.getLogger("skelfit.x").debug("a detail")
        logging.getLogger("skelfit.x").warning("a warning")
        return read_status(folder)

    monkeypatch.setattr("skelfit.cli.status.read_status", log)
    lines = skelfit_(*option, "status", run_folder).stderr.splitlines()
    assert [re.sub(r"^\d{4}-\S+ \S+ ", "", line) for line in lines] == shown
    if option == ("--verbose",):
        assert all(TIMED.match(line) for line in lines)
    assert logging.getLogger("skelfit").handlers == []


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], None]], str]]:
    """Calls a function while stdout is a terminal; returns what appeared there."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "80")

        def shown(call: Callable[[], None]) -> str:
            with monkeypatch.context() as patch:
                patch.setattr("sys.stdout", terminal)
                call()
                terminal.flush()
            return os.read(ours, 100_000).decode()

        yield shown
    os.close(ours)


def test_commands_that_are_named_can_be_copied(run_folder: Path) -> None:
    folder = run_folder.rename(run_folder.with_name("my run"))
    (folder / "summary.json").write_text("{}")
    result = skelfit_("status", folder)
    assert result.stdout.splitlines()[-1] == f"next: skelfit verify '{folder}'"
    assert next_command("verify", folder, "a b", 3) == f"next: skelfit verify '{folder}' 'a b' 3"
    unquoted = re.compile(rf'f".*skelfit ({"|".join(COMMANDS)}) .*\{{')
    sources = Path(skelfit.__file__).parent.rglob("*.py")
    assert [file.name for file in sources if unquoted.search(file.read_text("utf-8"))] == []


def test_a_terminal_has_colours_and_tables(
    on_terminal: Callable[[Callable[[], None]], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = Console()
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in on_terminal(lambda: console.say("next: skelfit verify out"))
    coloured = on_terminal(lambda: console.say(TABLE))
    assert "\x1b[" in coloured and "status" in coloured and "─" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    plain = on_terminal(lambda: console.say(TABLE))
    assert not re.search(r"\x1b\[[\d;]*3\d", plain) and "─" in plain
    long = f"{'x' * 200}/[bold]y:smile:"
    assert on_terminal(lambda: console.say(long)) == f"{long}\r\n"  # paths are neither broken nor interpreted
    console.say(TABLE)
    assert capsys.readouterr().out == f"{TABLE.text}\n"


def options() -> Iterator[tuple[str, click.Option]]:
    """All options that are shown, with their commands."""
    todo: list[tuple[str, click.Command | None]] = [
        (name, main.get_command(click.Context(main), name)) for name in COMMANDS
    ]
    while todo:
        name, command = todo.pop()
        assert command is not None
        if isinstance(command, click.Group):
            todo += [(f"{name} {inner}", each) for inner, each in command.commands.items()]
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                yield name, parameter


def test_an_option_has_the_same_words_everywhere() -> None:
    texts: dict[str, set[str]] = defaultdict(set)
    for command, option in options():
        for word in option.opts:
            if (command, word) != ("verify", "--keep"):  # which writes the list that others read
                texts[word].add((option.help or "").partition("  [default")[0].rstrip("."))
    shared = "--models --device --out --overwrite --json --keep --workers --limit --pipeline".split()
    assert {word: texts[word] for word in shared if len(texts[word]) != 1} == {}


@pytest.mark.parametrize("words", [["--help"], ["status", "gone"]], ids=["help", "status"])
def test_a_full_disk_is_one_line(words: list[str], tmp_path: Path) -> None:
    write_record(tmp_path / "gone", "some", 3, 1)
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "skelfit", *words]
        done = subprocess.run(
            command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert done.returncode == 2
    assert done.stderr == "Error: the output: cannot be written: No space left on device\n"
