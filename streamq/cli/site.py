"""Sites: what limits them and until when; limit, pause, resume."""

from __future__ import annotations

import typer

from streamq.cli.app import app

site = typer.Typer(name="site", help="Sites: look, limit, pause, resume.", no_args_is_help=True)
app.add_typer(site)


@site.callback()
def sites() -> None:
    """Sites: look, limit, pause, resume."""
