"""--help: by task, whole sentences at every width, examples in one line; and what a shell completes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from shardline.cli.app import app
from shardline.cli.help import TASKS, HelpGroup

GROUP = typer.main.get_command(app)
assert isinstance(GROUP, HelpGroup)
COMMANDS = GROUP.commands
# A sentence that is cut; [ARGS]... and s3://… are none.
CUT = re.compile(r"\w\.\.\.|\w…")


def helped(*arguments: str, columns: int = 80) -> str:
    done = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": str(columns)})
    assert done.exit_code == 0, done.output
    return done.output


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_help_has_every_command_by_task_with_its_whole_sentence(columns: int) -> None:
    text = helped(columns=columns)
    assert not CUT.search(text)
    found = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert found[1:6] == [*TASKS]
    for name in COMMANDS:
        sentence = COMMANDS[name].get_short_help_str(10_000)
        assert f"{name} {words(sentence)}" in words(text)
    for line in text.splitlines():
        if "  shardline " not in line:
            assert len(line) <= columns, line


@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_fits_and_its_examples_can_be_copied(name: str, columns: int) -> None:
    text = helped(name, columns=columns)
    options, _, examples = text.partition("\nExamples:\n")
    assert not [line for line in options.splitlines() if len(line) > columns]
    assert not CUT.search(options)
    if name != "dead-letters":
        lines = examples.splitlines()
        assert lines
        for line in lines:
            assert f"shardline {name}" in line or name == "preview"


@pytest.mark.parametrize("name", ["init", "preview", "sample"])
def test_help_has_no_words_of_python(name: str) -> None:
    text = CliRunner().invoke(app, [name, "--help"]).stdout
    assert "list[" not in text
    assert "range>" not in text


def test_a_command_without_a_task_is_shown_too(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = {task: names for task, names in TASKS.items() if task != "Services"}
    monkeypatch.setattr("shardline.cli.help.TASKS", fewer)
    text = helped()
    assert "Other commands:\n  producer" in text
    assert words("gateway Serve Clara's dataset API over HTTP") in words(text)


SCRIPT = """
eval "$(shardline --show-completion bash)"
for line in "$@"; do
    COMP_WORDS=($line)
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    COMPREPLY=()
    _shardline_completion shardline
    echo "${COMPREPLY[*]}"
done
"""


def test_bash_completes_commands_and_options() -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # In a test the shell above this process is not the user's.
    env = os.environ | {"PATH": path, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    lines = ["shardline ver", "shardline run --val", "shardline dead-letters re", "shardline run job"]
    done = subprocess.run(
        ["bash", "-c", SCRIPT, "bash", *lines], env=env, check=True, capture_output=True, text=True
    )
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["verify"],
        ["--validation-fraction"],
        ["requeue"],
        # Nothing: bash completes names of files by itself (-o default).
        [],
    ]


@pytest.mark.parametrize(("shell", "file"), [("bash", ".bashrc"), ("zsh", ".zshrc"), ("fish", "")])
def test_completion_is_installed_for_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str, file: str
) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    monkeypatch.setenv("HOME", str(tmp_path))
    done = CliRunner().invoke(app, ["--install-completion"], prog_name="shardline")
    assert done.exit_code == 0, done.output
    assert f"{shell} completion installed" in done.output
    assert not file or (tmp_path / file).exists()
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "_SHARDLINE_COMPLETE" in written
