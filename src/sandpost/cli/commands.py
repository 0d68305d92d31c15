"""A group of commands that says which one was meant."""

import click


class Commands(click.Group):
    """A click group whose complaint about an unknown command names the nearest, and all."""

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that `arguments` begin with; raise `click.UsageError` with what there is."""
        try:
            return super().resolve_command(context, arguments)
        except click.UsageError as error:
            import difflib  # noqa: PLC0415 - only for who mistyped

            known = self.list_commands(context)
            near = difflib.get_close_matches(arguments[0], known, 1)
            meant = f"Did you mean `{near[0]}`? " if near else ""
            raise click.UsageError(f"{error.message} {meant}There are: {', '.join(known)}.", context) from None
