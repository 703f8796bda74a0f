"""Other people's mail servers, each a private instance: Debian's Postfix and Exim.

WHAT      An own configuration, spool and log below a folder under /tmp, listening on loopback alone. It takes mail
          for every domain, and delivers each domain's into a Maildir of its own.
          `busy@`: 4xx 4.2.1 at RCPT; `unknown@`: the server's own refusal of a recipient that it does not know;
          sender `refused@`, header `X-Refuse`: 550 5.7.1. A mail above `SIZE` bytes is refused.
WHERE     The executables are those on PATH, else in $PEERS_FOLDER, else where `deploy/peers.sh` unpacks them. Out
          of such a folder they run with its libraries, and with users that only they see (nss_wrapper): nothing
          of the system is changed, and an instance that runs already is not touched.
WHO       Root: both change users between their processes.
TUNED     What keeps strangers from hurting a server that is open to the world is lifted: connections and mails
          per client, the wait after errors (Postfix), the pause when mail comes faster than it leaves (Postfix),
          Exim's own mix of delivering at once (a process a mail, however many: a machine falls over hundreds) and
          of queueing: all is queued, and two runners deliver. What they do to mail is as Debian has it,
          but for header fields that Postfix adds to mail from its own machine (local_header_rewrite_clients);
          Exim offers DSN.
FAILS     `Missing`, with the reason in words; `RuntimeError` where a server does not come up.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["KINDS", "QUEUE_ID", "SIZE", "Missing", "Mta", "Stored", "mta"]

SIZE = 2_000_000  # bytes of a mail at most
START_S = 20.0
CACHE = "/var/cache/streamq/peers"  # as deploy/peers.sh says it
LEASH = Path(__file__).with_name("leash.py")
HOW = "deploy/peers.sh unpacks it"

# The lines that these servers put in front of a mail. The first Received of a file ends them: it is what a server
# writes on taking the mail in, the others come with the delivery.
DELIVERY = re.compile(rb"(?:(?:Return-Path|X-Original-To|Delivered-To|Envelope-To|Delivery-Date):[^\n]*\n)*", re.I)
RECEIVED = re.compile(rb"Received:[^\n]*\n(?:[ \t][^\n]*\n)*")
# Files of a spool, one a mail
WAITING = {"postfix": ("incoming/*", "active/*", "deferred/**/*[0-9A-F]"), "exim": ("input/*-H",)}
SENDER = re.compile(rb"^Return-Path: <([^\n]*)>$", re.I | re.M)
RECIPIENT = re.compile(rb"^(?:Delivered-To|Envelope-To): ([^\n]*)$", re.I | re.M)
# As these servers, and our sink, say it in the reply to the dot
QUEUE_ID = re.compile(r"(?:queued as |\bid=)([0-9A-Za-z-]+)")
OWN_ID = re.compile(rb"\sid\s+([0-9A-Za-z-]+)")


class Missing(Exception):
    """This machine cannot run that server; the text says why."""


@dataclass(frozen=True)
class Stored:
    """A mail in a Maildir: its envelope, the server's queue id, and what follows the lines that the server put in
    front. Lines end with "\\n", as both servers store them."""

    envelope_from: str
    rcpt: str
    queue_id: str
    content: bytes

    @classmethod
    def of(cls, file: bytes) -> Stored:
        """Raises `ValueError`."""
        delivery = DELIVERY.match(file)
        received = RECEIVED.match(file, delivery.end() if delivery else 0)
        if delivery is None or received is None:
            raise ValueError(f"not what a server writes in front of a mail: {file[:500]!r}")
        sender, rcpt = SENDER.search(delivery[0]), RECIPIENT.search(delivery[0])
        own = OWN_ID.search(received[0])
        if sender is None or rcpt is None or own is None:
            raise ValueError(f"no sender, recipient or id in front of a mail: {file[:500]!r}")
        return cls(sender[1].decode(), rcpt[1].decode(), own[1].decode(), file[received.end() :])


@dataclass(frozen=True)
class Package:
    """Where a server's files are: `/`, or a folder that its packages were unpacked into."""

    executable: Path
    root: Path

    @property
    def unpacked(self) -> bool:
        return self.root != Path("/")

    def environment(self, place: Path, names: Names) -> dict[str, str]:
        """Of its processes; makes the `names` that they see. Raises `Missing`."""
        known = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        if not self.unpacked:
            names.look_up()
            return known
        wrappers = [*self.root.glob("usr/lib/*/libnss_wrapper.so"), *Path("/usr/lib").glob("*/libnss_wrapper.so")]
        if not wrappers:
            raise Missing(f"{self.root}: no libnss_wrapper.so in it; {HOW}")
        closed = [each for each in (self.root, *self.root.parents) if not each.stat().st_mode & stat.S_IXOTH]
        if closed:  # Exim starts itself anew when it is nobody special any more
            raise Missing(f"{self.root}: other users cannot reach it: {closed[-1]} is closed to them")
        folders = [*self.root.glob("usr/lib/*-linux-gnu*"), *self.root.glob("lib/*-linux-gnu*")]
        folders.append(self.root / "usr/lib/postfix")
        passwd, group = place / "passwd", place / "group"
        users = {"root": 0, "nobody": 65_534, names.user: names.uid}
        groups = {"root": 0, "nogroup": 65_534, names.user: names.uid, names.group: names.gid}
        passwd.write_text("".join(f"{name}:x:{uid}:{uid}::/:/bin/false\n" for name, uid in users.items()))
        group.write_text("".join(f"{name}:x:{gid}:\n" for name, gid in groups.items()))
        return known | {
            "LD_LIBRARY_PATH": ":".join(map(str, folders)),
            "LD_PRELOAD": str(wrappers[0]),
            "NSS_WRAPPER_PASSWD": str(passwd),
            "NSS_WRAPPER_GROUP": str(group),
        }


@dataclass
class Names:
    """The user that a server becomes, and a group of its own; the numbers are those of an unpacked one."""

    user: str
    group: str
    uid: int
    gid: int

    def look_up(self) -> None:
        """The system's numbers. Raises `Missing`."""
        try:
            self.uid = pwd.getpwnam(self.user).pw_uid
            self.gid = grp.getgrnam(self.group).gr_gid
        except KeyError as unknown:
            raise Missing(f"no such user or group: {unknown.args[0]}") from None


def _find(names: tuple[str, ...]) -> Package:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    for name in names:
        if found := shutil.which(name, path=path):
            return Package(Path(found), Path("/"))
    for folder in (os.environ.get("PEERS_FOLDER"), CACHE):
        for name in names:
            if folder and (found := shutil.which(name, path=str(Path(folder, "usr/sbin")))):
                return Package(Path(found).absolute(), Path(folder).resolve())
    raise Missing(f"{names[0]} is not installed; {HOW}")


@dataclass
class Mta:
    """A running server. `maildirs` has a Maildir per recipient domain, made by the first mail."""

    kind: str
    version: str
    port: int
    place: Path
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def count(self) -> int:
        """Mails delivered so far."""
        new = self.place / "mail/new"
        return len(os.listdir(new)) if new.is_dir() else 0

    def queued(self) -> int:
        """Mails that it took and that are still on their way through it."""
        return sum(1 for folder in WAITING[self.kind] for _ in self.place.glob(f"queue/{folder}"))

    def stored(self) -> Iterator[Stored]:
        """The mails delivered so far, in no order. Raises `ValueError` for a file that is no mail of ours."""
        for file in self.place.glob("mail/new/*"):
            yield Stored.of(file.read_bytes())

    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""


# -- Postfix -----------------------------------------------------------------------------------------------

POSTFIX_MAIN = """\
compatibility_level = 3.6
queue_directory = {place}/queue
data_directory = {place}/data
daemon_directory = {root}/usr/lib/postfix/sbin
command_directory = {root}/usr/sbin
shlib_directory = {root}/usr/lib/postfix
meta_directory = {place}/etc
maillog_file = {place}/log/mail.log
maillog_file_prefixes = {place}
import_environment = MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LANG=C POSTLOG_SERVICE POSTLOG_HOSTNAME
  LD_LIBRARY_PATH LD_PRELOAD NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
multi_instance_enable = no
myhostname = postfix.example
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
local_header_rewrite_clients =
smtputf8_enable = yes
virtual_mailbox_domains = static:all
virtual_mailbox_maps = regexp:{place}/etc/mailboxes
virtual_mailbox_base = {place}
virtual_mailbox_limit = 0
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{uid}
smtpd_recipient_restrictions = check_recipient_access regexp:{place}/etc/recipients, reject_unauth_destination
smtpd_sender_restrictions = check_sender_access regexp:{place}/etc/senders
header_checks = regexp:{place}/etc/headers
notify_classes =
message_size_limit = {size}
mailbox_size_limit = 0
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_message_rate_limit = 0
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000000
smtpd_hard_error_limit = 1000000
smtpd_peername_lookup = no
in_flow_delay = 0
"""
POSTFIX_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def _postfix(place: Path, port: int) -> tuple[list[str], dict[str, str], str, Path]:
    package = _find(("postfix",))
    names = Names("postfix", "postdrop", 62_101, 62_102)
    environment = package.environment(place, names)
    master = package.root / "usr/lib/postfix/sbin/master"
    if not master.exists():
        raise Missing(f"{master} is not there")
    for name in ("etc", "queue/pid", "log"):
        place.joinpath(name).mkdir(parents=True)
    own = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace")
    for name in (*(f"queue/{name}" for name in own), "data", "mail"):
        place.joinpath(name).mkdir(mode=0o700)
        os.chown(place / name, names.uid, 0)
    for name, mode in (("public", 0o710), ("maildrop", 0o730)):
        folder = place / "queue" / name
        folder.mkdir()
        os.chown(folder, names.uid, names.gid)
        folder.chmod(mode)
    texts = {
        "main.cf": POSTFIX_MAIN.format(
            place=place, root=package.root if package.unpacked else "", uid=names.uid, size=SIZE
        ),
        "master.cf": POSTFIX_MASTER.format(port=port),
        "mailboxes": "!/^unknown@/ mail/\n",
        "recipients": "/^busy@/ 450 4.2.1 Mailbox busy, try again later\n",
        "senders": "/^refused@/ 550 5.7.1 Sender refused\n",
        "headers": "/^X-Refuse:/ REJECT 5.7.1 Content refused\n",
    }
    for name, text in texts.items():
        place.joinpath("etc", name).write_text(text)
    config = str(place / "etc")
    shown = subprocess.run(
        [package.root / "usr/sbin/postconf", "-c", config, "-d", "-h", "mail_version"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if shown.returncode:
        raise Missing(f"{package.executable}: {shown.stderr.strip()[-300:]}")
    return [str(master), "-c", config], environment, shown.stdout.strip(), place / "log/mail.log"


# -- Exim --------------------------------------------------------------------------------------------------

EXIM_CONFIG = """\
exim_path = {executable}
primary_hostname = exim.example
spool_directory = {place}/queue
log_file_path = {place}/log/%slog
pid_file_path = {place}/queue/pid
keep_environment = ^LD_ : ^NSS_WRAPPER_
never_users =
deliver_drop_privilege = true
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
host_lookup =
rfc1413_hosts =
tls_advertise_hosts =
message_size_limit = {size}
smtp_accept_max = 0
queue_only = true
queue_run_max = 2
smtp_accept_max_per_connection = 0
dsn_advertise_hosts = *
ignore_bounce_errors_after = 0s
acl_smtp_mail = mail
acl_smtp_rcpt = rcpt
acl_smtp_data = data

begin acl
mail:
  deny senders = ^refused@
       message = 5.7.1 Sender refused
  accept

data:
  deny condition = ${{if def:h_X-Refuse:}}
       message = 5.7.1 Content refused
  accept

rcpt:
  defer local_parts = busy
        message = 4.2.1 Mailbox busy, try again later
  require verify = recipient
  accept

begin routers
known:
  driver = accept
  local_parts = ! unknown
  transport = maildir

begin transports
maildir:
  driver = appendfile
  maildir_format = true
  directory = {place}/mail
  create_directory = true
  delivery_date_add
  envelope_to_add
  return_path_add
  user = Debian-exim
  group = Debian-exim

begin retry
* * F,1h,1m
"""


def _exim(place: Path, port: int) -> tuple[list[str], dict[str, str], str, Path]:
    package = _find(("exim4", "exim"))
    names = Names("Debian-exim", "Debian-exim", 62_103, 62_103)
    environment = package.environment(place, names)
    for name in ("queue", "log", "mail"):
        place.joinpath(name).mkdir(mode=0o700)
        os.chown(place / name, names.uid, names.gid)
    config = place / "exim.conf"
    config.write_text(EXIM_CONFIG.format(place=place, executable=package.executable, port=port, size=SIZE))
    config.chmod(0o644)
    shown = subprocess.run(
        [package.executable, "-C", config, "-bV"], env=environment, capture_output=True, text=True, check=False
    )
    if shown.returncode:
        raise Missing(f"{package.executable}: {(shown.stderr or shown.stdout).strip()[-300:]}")
    version = re.search(r"version (\S+)", shown.stdout)
    command = [str(package.executable), "-C", str(config), "-bdf", "-q1s"]
    return command, environment, version[1] if version else "", place / "log/mainlog"


KINDS = {"postfix": _postfix, "exim": _exim}


@contextmanager
def mta(kind: str) -> Iterator[Mta]:
    """A running one of `KINDS`; it and its folder are gone afterwards. Raises `Missing`, `RuntimeError`."""
    if sys.platform != "linux":
        raise Missing(f"{kind}: runs here on Linux only")
    if os.geteuid():
        raise Missing(f"{kind}: only root can start it")
    # Not below a test's own folder: that is closed to the users that the server's processes become.
    place = Path(tempfile.mkdtemp(prefix=f"sq-{kind}-"))
    try:
        place.chmod(0o755)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        command, environment, version, log = KINDS[kind](place, port)
        with (place / "out").open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LEASH), *command],
                stdin=subprocess.PIPE, stdout=out, stderr=out, env=environment, cwd=place, start_new_session=True,
            )  # fmt: skip
        one = Mta(kind, version, port, place, log, process)
        try:
            _await_greeting(one)
            yield one
        finally:
            process.communicate()  # the end of its input is the leash's word to end all of it
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _await_greeting(one: Mta) -> None:
    ends = time.monotonic() + START_S
    while True:
        try:
            with socket.create_connection(("127.0.0.1", one.port), 5) as sock:
                if sock.recv(4) == b"220 ":
                    sock.sendall(b"QUIT\r\n")
                    return
        except OSError:
            pass
        if one.process.poll() is not None or time.monotonic() > ends:
            out = (one.place / "out").read_text("utf-8", "replace")
            raise RuntimeError(f"{one.kind} did not come up: {(out + one.said())[-2000:]}")
        time.sleep(0.02)
