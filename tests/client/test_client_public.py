"""The public names: what `streamq` exports, what its import costs, and how it is typed."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import assert_type

import pytest

import streamq
from streamq import AsyncClient, Client, Mail, NotSent, Result, Sent

HEAVY = {"redis", "pydantic", "pydantic_settings", "typer", "rich", "uvloop", "aiosmtplib", "email"}


def loaded(code: str) -> set[str]:
    """Top names of the modules that a program has loaded."""
    text = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_its_import_loads_nothing() -> None:
    bare = loaded("import importlib, typing, __future__")
    assert loaded("import streamq") - bare == {"streamq"}


def test_the_names_load_no_driver() -> None:
    assert loaded("from streamq import AsyncClient, Client, Mail") & HEAVY == set()


def test_a_mail_is_made_without_a_driver() -> None:
    code = "import streamq; streamq.Mail(from_='a@example.com', to='b@example.net', text='x')"
    assert loaded(code) & HEAVY == set()


def test_every_name_is_there() -> None:
    for name in streamq.__all__:
        assert getattr(streamq, name) is not None
    assert dir(streamq) == sorted(streamq.__all__)
    with pytest.raises(AttributeError, match="module 'streamq' has no attribute 'Clint'"):
        streamq.Clint  # type: ignore[attr-defined]  # noqa: B018


def test_errors_are_what_they_are_called() -> None:
    for error in (streamq.Unreachable, streamq.NoReply, streamq.Refused, streamq.OutOfMemory, streamq.TooDeep):
        assert issubclass(error, streamq.SendError)
    assert issubclass(streamq.SendError, streamq.StreamqError)


def test_both_clients_take_the_same_options() -> None:
    def options(kind: type) -> dict[str, object]:
        known = inspect.signature(kind).parameters.values()
        return {each.name: each.default for each in known if each.name != "sleep"}

    assert options(Client) == options(AsyncClient)
    assert {name for name in vars(Client) if not name.startswith("_")} <= set(dir(AsyncClient))


def typed(client: Client, mail: Mail) -> None:
    """Not called: mypy reads it."""
    assert_type(client.send(mail), Sent)
    assert_type(client.send_many([mail]), list[Result])
    assert_type(Mail.raw(b"", None, ["a@example.net"], tags=["x"]), Mail)
    for result in client.send_many([mail]):
        if isinstance(result, NotSent):
            assert_type(result.error, streamq.StreamqError)
        else:
            assert_type(result.entry, str)
    Mail(from_="a@example.com", colour="red")  # type: ignore[call-arg]
    Mail(text=b"bytes")  # type: ignore[arg-type]
    Mail(to="a@example.net", on_ambiguous="maybe")  # type: ignore[arg-type]
