from __future__ import annotations

import os
import re
import signal
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from streamq.errors import SettingsError
from streamq.sink import Received
from streamq.sink.process import Options, Printer, run


@contextmanager
def process(*flags: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The sink on a free port, and the port."""
    reader, writer = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "streamq.sink", "--port", "0", "--ready-fd", str(writer), *flags],
        pass_fds=[writer],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    with child, os.fdopen(reader) as ready:
        try:
            yield child, int(ready.readline() or 0)
        finally:
            if child.poll() is None:
                child.kill()


def send(port: int, *recipients: str, number: int = 1) -> None:
    with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=60) as client:
        client.sendmail("a@x", list(recipients), f"Message-ID: <{number}@x>\r\n\r\nHello\r\n")


def test_it_serves_until_sigterm_and_leaves_ledger_journal_and_maildir(tmp_path: Path) -> None:
    ledger, journal, box = tmp_path / "ledger.json", tmp_path / "journal", tmp_path / "box"
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nmatch = "later@*"\nreply = "450 4.2.1 later"\ntimes = 1\n')
    flags = ["--ledger", str(ledger), "--journal", str(journal), "--maildir", str(box), "--rules", str(rules)]
    with process(*flags, "--reply", "gone@*=550", "--keep", "0") as (child, port):
        send(port, "b@x", "c@x")
        for recipient, code in (("gone@x", 550), ("later@x", 450)):
            with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
                send(port, recipient)
            assert refused.value.recipients[recipient][0] == code
        send(port, "later@x", number=2)
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"listening on smtp://127.0.0.1:{port}"
    assert re.fullmatch(r"\d\d:\d\d:\d\d <a@x> → b@x, c@x  28 bytes  <1@x>", lines[1])
    assert len(lines) == 4
    assert lines[3].startswith("2 mails to 3 recipients in ")
    assert "2 refusals" in lines[3]
    found = orjson.loads(ledger.read_bytes())
    assert found["recipients"] == {"b@x": 1, "c@x": 1, "later@x": 1}
    assert found["message_ids"] == {"<1@x>": 1, "<2@x>": 1}
    assert found["counters"]["refused_by"] == {"rcpt 550": 1, "rcpt 450": 1}
    assert [line.split(" ")[1:] for line in journal.read_text().splitlines()] == [
        ["b@x", "<1@x>"],
        ["c@x", "<1@x>"],
        ["later@x", "<2@x>"],
    ]
    assert [path.read_bytes()[:14] for path in sorted((box / "new").iterdir())] == [
        b"Message-ID: <1",
        b"Message-ID: <2",
    ]


def test_the_journal_outlives_kill_9(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with process("--journal", str(journal), "--quiet") as (child, port):
        for number in range(5):
            send(port, f"{number}@x", number=number)
        child.kill()
        child.communicate(timeout=60)
    assert [line.split(" ")[1:] for line in journal.read_text().splitlines()] == [
        [f"{number}@x", f"<{number}@x>"] for number in range(5)
    ]


def test_every_mail_is_printed_or_counted() -> None:
    with process("--keep", "0") as (child, port):
        with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=60) as client:
            for number in range(100):
                client.sendmail("a@x", ["b@x"], f"Message-ID: <\x1b[{number}@x>\r\n\r\n")
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    lines = out.splitlines()
    printed = [line for line in lines if " → b@x " in line]
    more = [int(found[1]) for found in re.finditer(r"^… and (\d+) more mails?$", out, re.MULTILINE)]
    assert printed[0].endswith(r"<\x1b[0@x>")
    assert len(printed) + sum(more) == 100
    assert lines[-1].startswith("100 mails to 1 recipient in ")


async def test_a_stream_of_mails_prints_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    mail = Received(
        envelope_from="",
        envelope_to=("a@x", "b@x", "c@x", "d@x", "e@x"),
        content=bytes(4096),
        message_id=b"",
        at_ns=0,
        monotonic_ns=0,
        mail_ns=0,
        peer="",
        helo="",
        eight_bit=False,
        smtputf8=False,
    )
    printer = Printer()
    for _ in range(500):
        printer.mail(mail)
    printer.close()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 21
    assert lines[0].endswith(" <> → a@x, b@x, c@x and 2 more  4,096 bytes  no Message-ID")
    assert lines[-1] == "… and 480 more mails"


def test_quiet_prints_no_mails() -> None:
    with process("--quiet") as (child, port):
        send(port, "b@x")
        child.terminate()
        out, _ = child.communicate(timeout=60)
    assert [line.split(" ")[0] for line in out.splitlines()] == ["listening", "1"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_journal_that_cannot_be_written_ends_it_and_nothing_was_acknowledged() -> None:
    with process("--journal", "/dev/full", "--quiet") as (child, port):
        with pytest.raises(smtplib.SMTPServerDisconnected):
            send(port, "b@x")
        _, err = child.communicate(timeout=60)
    assert child.returncode == 1
    assert err == "streamq sink: /dev/full: No space left on device\n"


def test_a_wrong_flag_is_exit_2(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text("[[rule]]\ntimes = -1\n")
    with process("--rules", str(rules)) as (child, _):
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (2, "")
    assert err.startswith(f"streamq sink: {rules}, line 2, rule 1: times: ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(reply=("x",)), "reply: not an answer"),
        (Options(without=("VRFY",)), "without: .*'VRFY'"),
        (Options(host="0.0.0.0"), "host: "),
        (Options(journal=Path("/dev/null/x")), "cannot start: /dev/null/x: Not a directory"),
        (Options(maildir=Path("/dev/null/x")), "cannot start: /dev/null/x"),
        (Options(profile=("hotmail",)), "profile: not one of .*greylist.*'hotmail'"),
        (Options(key=Path("key.pem")), "key: needs --cert"),
        (Options(cert=Path("/nowhere/cert.pem")), "cert: /nowhere/cert.pem: No such file"),
        (Options(tls=True, cert_out=Path("/dev/null/x")), "cert_out: /dev/null/x: Not a directory"),
        (Options(ready_fd=1000), "ready_fd: .*1000"),
        (Options(rules=Path("/nowhere/rules.toml")), "/nowhere/rules.toml: No such file"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(options: Options, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        run(options)
