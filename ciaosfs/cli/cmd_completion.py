"""`ciaosfs completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ciaosfs.base.errors import UsageError
from ciaosfs.cli import output

SHELLS = ("bash", "zsh", "fish")
COMPLETE_VARIABLE = "_CIAOSFS_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script by which a shell completes the names of commands, options and files of ciaosfs.

    Run it at the start of each shell, as in the example (bash: in ~/.bashrc, zsh: in ~/.zshrc), or write it once where
    the shell looks by itself.

    \b
    Example:
      eval "$(ciaosfs completion bash)"
      eval "$(ciaosfs completion zsh)"
      ciaosfs completion fish > ~/.config/fish/completions/ciaosfs.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(
            f"This version of click cannot complete in {shell}: give one of {', '.join(SHELLS)}."
        )
    output.print_text(kind(context.find_root().command, {}, "ciaosfs", COMPLETE_VARIABLE).source())
