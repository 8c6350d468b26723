"""`skelfit completion`: the script that lets a shell complete commands, options, names and paths."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from skelfit.cli.console import Console, pass_console

_PROGRAM, _VARIABLE = (
    "skelfit",
    "_SKELFIT_COMPLETE",
)  # the variable that click reads for a program of this name
INSTALL = {
    "bash": "skelfit completion bash >> ~/.bashrc",
    "zsh": "skelfit completion zsh >> ~/.zshrc    (after the line with compinit)",
    "fish": "skelfit completion fish > ~/.config/fish/completions/skelfit.fish",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(INSTALL)))
@pass_console
def completion_command(console: Console, shell: str) -> None:
    """Print the script for a SHELL; its last lines say how to install it."""
    complete = get_completion_class(shell)
    assert complete is not None, shell
    script = complete(click.Command(_PROGRAM), {}, _PROGRAM, _VARIABLE).source()
    console.result(f"{script.strip()}\n\n# To install this: {INSTALL[shell]}\n# Then open a new shell.")
