"""A command that has commands of its own: `skelfit train CONFIG ...` and `skelfit train import FILE`."""

from __future__ import annotations

from typing import Any

import click


class CommandWithCommands(click.Group):
    """A command with arguments and options, in which the first word may be the name of another command.

    click's groups read their own arguments first: CONFIG would swallow the name of a command, or what follows CONFIG
    would be taken for one. Here the first word alone decides, before anything is read, so that everything else is a
    command like any other. A file with the name of a command is `./import`.
    """

    allow_extra_args = False
    allow_interspersed_args = True

    def __init__(self, name: str | None = None, **attributes: Any) -> None:
        super().__init__(name, invoke_without_command=True, **attributes)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the command that the first word names, or of this one."""
        if args and args[0] in self.commands:
            name, *rest = args
            return self.commands[name].make_context(f"{info_name} {name}", rest, parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As of a command without commands."""
        return click.Command.parse_args(self, ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """As of a command without commands."""
        return click.Command.invoke(self, ctx)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """As of a command without commands."""
        return click.Command.collect_usage_pieces(self, ctx)
