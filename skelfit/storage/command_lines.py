"""Commands of skelfit as lines of output name them: to be copied into a shell as they are."""

from __future__ import annotations

import shlex


def command(*words: object) -> str:
    """A command of skelfit; words with spaces and other characters of the shell are quoted."""
    return f"skelfit {shlex.join(map(str, words))}"


def next_command(*words: object) -> str:
    """The line that names the command of the next step."""
    return f"next: {command(*words)}"
