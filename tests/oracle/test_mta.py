"""What the oracle stands on: servers that end with all of their processes, reasons in words, files read rightly."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import package
from bench.mta import KINDS, LEASH, QUEUE_ID, Stored, mta
from bench.package import Missing

# A daemon as mail servers make them: of another session, orphaned; says its process id
DAEMON = "setsid sh -c 'echo $$; exec sleep 1000' &"


@contextmanager
def leashed(script: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-I", "-S", str(LEASH), "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        yield process


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def daemon_of(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def test_the_end_of_its_holder_ends_a_daemon_of_another_session() -> None:
    with leashed(f"{DAEMON} exec sleep 1000") as process:
        pid = daemon_of(process)
        assert not gone(pid)
        process.communicate()  # as when the holder dies: its end of the pipe closes
        assert process.returncode == 0
        assert gone(pid)


def test_a_word_ends_all_of_it() -> None:
    with leashed(f"{DAEMON} exec sleep 1000") as process:
        pid = daemon_of(process)
        process.terminate()
        assert process.wait() == 0
        assert gone(pid)


def test_the_end_of_the_command_ends_what_it_left_behind() -> None:
    with leashed(DAEMON) as process:
        pid = daemon_of(process)
        process.wait()
        assert gone(pid)


def test_a_process_that_will_not_end_is_killed() -> None:
    deaf = "trap '' TERM; setsid sh -c 'echo $$; while :; do sleep 1000; done' & exec sleep 1000"
    with leashed(deaf) as process:
        pid = daemon_of(process)
        process.communicate()
        assert gone(pid)


def test_an_interrupt_of_the_terminal_is_not_meant_for_it() -> None:
    with leashed(f"{DAEMON} exec sleep 1000") as process:
        pid = daemon_of(process)
        process.send_signal(signal.SIGINT)
        process.communicate()
        assert process.returncode == 0
        assert gone(pid)


@pytest.mark.parametrize("kind", list(KINDS))
def test_who_is_not_root_is_told(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Missing, match=f"{kind}: only root"), mta(kind):
        pass


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(package, "SYSTEM", "/nonexistent")
    monkeypatch.setattr(package, "CACHE", "/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("PEERS_FOLDER", raising=False)


def unpacked(folder: Path, kind: str) -> Path:
    """A folder that looks as if deploy/peers.sh had been there, but for the wrapper."""
    executable = folder / "usr/sbin" / {"postfix": "postfix", "exim": "exim4"}[kind]
    executable.parent.mkdir(parents=True)
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    return folder


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_server_that_is_nowhere_is_told(kind: str) -> None:
    with pytest.raises(Missing, match=r"is not installed; deploy/peers\.sh unpacks it"), mta(kind):
        pass


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_folder_without_the_wrapper_is_told(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEERS_FOLDER", str(unpacked(tmp_path, kind)))
    monkeypatch.setattr(package, "WRAPPER", "none.so")
    with pytest.raises(Missing, match=r"no none\.so in it"), mta(kind):
        pass


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_folder_that_others_cannot_reach_is_told(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = tmp_path / "usr/lib/x86_64-linux-gnu" / package.WRAPPER
    wrapper.parent.mkdir(parents=True)
    wrapper.touch()
    tmp_path.chmod(0o700)
    monkeypatch.setenv("PEERS_FOLDER", str(unpacked(tmp_path, kind)))
    with pytest.raises(Missing, match="other users cannot reach it"), mta(kind):
        pass


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(("kind", "name"), [("postfix", "postfix"), ("exim", "Debian-exim")])
def test_an_installed_server_without_its_user_is_told(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(asked: str) -> None:
        raise KeyError(f"getpwnam(): name not found: {asked!r}")

    unpacked(tmp_path, kind)
    monkeypatch.setattr(package, "SYSTEM", str(tmp_path / "usr/sbin"))
    monkeypatch.setattr(pwd, "getpwnam", nobody)
    with pytest.raises(Missing, match=f"no such user or group: .*{name}"), mta(kind):
        pass


FRONT = b"Return-Path: <a@x.example>\nDelivered-To: b@x.example\n"
RECEIVED = (
    b"Received: from c (unknown [127.0.0.1])\n\tby d (Postfix) with ESMTP id 8018923A4B4\n\tfor <b@x.example>; x\n"
)


def test_only_the_servers_own_lines_are_taken_off() -> None:
    """A Received and a Delivered-To that the mail brought along are content."""
    content = b"Received: by e id 1; x\nDelivered-To: f@x.example\n\nx\n"
    found = Stored.of(FRONT + RECEIVED + content)
    assert found == Stored("a@x.example", "b@x.example", "8018923A4B4", content)


@pytest.mark.parametrize(
    "file",
    [b"", b"Subject: x\n\nx\n", FRONT + b"Subject: x\n\nx\n", RECEIVED + b"\nx\n", FRONT + b"Received: x\n\nx\n"],
)
def test_a_file_without_the_servers_lines_is_refused(file: bytes) -> None:
    with pytest.raises(ValueError, match=r"in front of a mail"):
        Stored.of(file)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("2.0.0 Ok: queued as 8018923A4B4", "8018923A4B4"),
        ("2.0.0 Ok: queued as 4SbX8d3v1Zz1r", "4SbX8d3v1Zz1r"),
        ("OK id=1xWqKm-0004pT-22", "1xWqKm-0004pT-22"),
        ("OK", None),
    ],
)
def test_a_queue_id_is_found_in_a_reply(said: str, found: str | None) -> None:
    match = QUEUE_ID.search(said)
    assert (match and match[1]) == found
