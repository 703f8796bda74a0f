"""A command whose options are given once: of two values the first would go in silence."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperOption

from streamq.errors import SettingsError

__all__ = ["Once"]


class Once(TyperCommand):
    """Flags may be said again, and what takes several values takes them. Raises `SettingsError`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # of a shell that completes
            *_, order = self.make_parser(ctx).parse_args(args=list(args))
            for at, each in enumerate(order):
                if isinstance(each, TyperOption) and not (each.multiple or each.is_flag) and each in order[:at]:
                    raise SettingsError(f"{each.opts[0]}: given twice; it takes one value")
        return super().parse_args(ctx, args)
