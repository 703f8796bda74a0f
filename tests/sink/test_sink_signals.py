from __future__ import annotations

import signal
import smtplib
import ssl
from pathlib import Path

import orjson
import pytest
from test_sink_process import process, send


def test_sighup_rereads_the_rules_and_sigusr1_writes_the_counters(tmp_path: Path) -> None:
    rules, counters, ledger = tmp_path / "rules.toml", tmp_path / "counters.json", tmp_path / "ledger.json"
    rules.write_text("")
    flags = ["--rules", str(rules), "--counters", str(counters), "--ledger", str(ledger), "--window", "3600", "--quiet"]
    with process(*flags) as (child, port):
        assert child.stdout is not None
        assert child.stderr is not None
        assert "listening" in child.stdout.readline()
        send(port, "b@x")
        rules.write_text('[[rule]]\nreply = "550 5.1.1 gone"\n')
        child.send_signal(signal.SIGHUP)
        assert child.stdout.readline() == "the rules were read again\n"
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            send(port, "b@x")
        rules.write_text("[[rule]]\nshare = 2\n")
        child.send_signal(signal.SIGHUP)
        wrong = child.stderr.readline()
        assert wrong.startswith(f"streamq sink: {rules}, line 2, rule 1: share: ")
        assert wrong.endswith("the rules stay as they were\n")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            send(port, "b@x")
        child.send_signal(signal.SIGUSR1)
        assert child.stdout.readline().startswith("counters and ledger were written")
        found = orjson.loads(counters.read_bytes())
        assert (found["accepted"], found["replies"]["rcpt 550"], found["most_in_window"]) == (1, 2, {"3600": 3})
        assert orjson.loads(ledger.read_bytes())["recipients"] == {"b@x": 1}
        rules.write_text("")
        child.send_signal(signal.SIGHUP)
        child.stdout.readline()
        send(port, "b@x", number=1)
        child.terminate()
        out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    assert out.rstrip().endswith("; at most 4 mails in 3600 s")
    found = orjson.loads(counters.read_bytes())
    assert (found["accepted"], found["repeated"]) == (2, 1)
    assert orjson.loads(ledger.read_bytes())["repeated"] == [["<1@x>", "b@x", 2]]


@pytest.mark.parametrize("implicit", [False, True])
def test_a_certificate_of_its_own_is_written_beside_it(tmp_path: Path, implicit: bool) -> None:
    cert = tmp_path / "cert.pem"
    flags = ["--implicit-tls"] if implicit else ["--tls"]
    with process(*flags, "--cert-out", str(cert), "--quiet") as (child, port):
        context = ssl.create_default_context(cafile=cert)
        if implicit:
            client: smtplib.SMTP = smtplib.SMTP_SSL("localhost", port, "c.example", timeout=60, context=context)
        else:
            client = smtplib.SMTP("localhost", port, "c.example", timeout=60)
            client.starttls(context=context)
        with client:
            client.sendmail("a@x", ["b@x"], b"Subject: x\r\n\r\n")
        child.terminate()
        out, _ = child.communicate(timeout=60)
    assert out.splitlines()[0] == f"listening on smtp{'s' * implicit}://127.0.0.1:{port}"
    assert "PRIVATE" not in cert.read_text()


def test_a_profile_under_a_rules_file(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nmatch = "now@*"\nreply = "552 5.2.2 full"\n')
    with process("--profile", "greylist", "--profile", "exim", "--rules", str(rules), "--quiet") as (_, port):
        for to, code in (("now@x", 552), ("later@x", 450)):
            with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
                send(port, to)
            assert refused.value.recipients[to][0] == code
