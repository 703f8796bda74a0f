"""A private Postfix: what its folder holds before it is started (bench/mta.py). One that stores all mail, or one that
relays all of it to another server."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.package import Missing, Names, Prepared, find_package

__all__ = ["prepare_postfix", "relaying_to", "tuned"]

NOBODY = 65_534  # who delivers: not the user of Postfix's own files
MAIN = """\
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
STORES = """\
virtual_mailbox_domains = static:all
virtual_mailbox_maps = regexp:{place}/etc/mailboxes
virtual_mailbox_base = {place}
virtual_mailbox_limit = 0
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{uid}
smtpd_recipient_restrictions = check_recipient_access regexp:{place}/etc/recipients, reject_unauth_destination
smtpd_sender_restrictions = check_sender_access regexp:{place}/etc/senders
header_checks = regexp:{place}/etc/headers
"""
# As Debian has it, but for the number that is asked about
RELAYS = """\
relayhost = [127.0.0.1]:{to}
smtpd_recipient_restrictions = permit_mynetworks, reject
default_destination_concurrency_limit = {at_once}
"""
# For speed: a connection goes from mail to mail by way of scache; all connections from the first moment; whatever waits
# is active. `HOLDS` keeps all mail until somebody releases it.
TUNED = """\
default_process_limit = 200
initial_destination_concurrency = {at_once}
smtp_connection_cache_destinations = [127.0.0.1]:{to}
smtp_connection_cache_time_limit = 60s
smtp_dns_support_level = disabled
qmgr_message_active_limit = 200000
qmgr_message_recipient_limit = 200000
"""
HOLDS = "smtpd_client_restrictions = check_client_access static:HOLD\n"
MASTER = """\
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
smtp unix - - n - - smtp
"""


def relaying_to(port: int, at_once: int, more: str = "") -> Callable[[Path, int, int], Prepared]:
    """`prepare_postfix` for one that relays to a server on loopback, over so many connections at once; `more`: lines
    of its main.cf, with `{to}` and `{at_once}`."""
    return partial(prepare_postfix, does=(RELAYS + more).format(to=port, at_once=at_once))


def tuned(*, held: bool) -> str:
    """Lines for `relaying_to`; `held`: what comes waits until it is released (postsuper -H ALL)."""
    return TUNED + (HOLDS if held else "")


def prepare_postfix(place: Path, port: int, size: int, does: str = STORES) -> Prepared:
    """Make its folders and files below `place`; `size`: bytes of a mail at most; `does`: lines of its main.cf, what it
    does with mail. Raises `Missing`."""
    package = find_package(("postfix",))
    names = Names("postfix", "postdrop", 62_101, 62_102)
    environment = package.environment(place, names)
    master = package.root / "usr/lib/postfix/sbin/master"
    if not master.exists():
        raise Missing(f"{master} is not there")
    for name in ("etc", "queue/pid", "log"):
        place.joinpath(name).mkdir(parents=True)
    own = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace")
    for name in (*(f"queue/{name}" for name in own), "data"):
        place.joinpath(name).mkdir(mode=0o700)
        os.chown(place / name, names.uid, 0)
    place.joinpath("mail").mkdir(mode=0o700)
    os.chown(place / "mail", NOBODY, 0)
    for name, mode in (("public", 0o710), ("maildrop", 0o730)):
        folder = place / "queue" / name
        folder.mkdir()
        os.chown(folder, names.uid, names.gid)
        folder.chmod(mode)
    texts = {
        "main.cf": (MAIN + does).format(
            place=place, root=package.root if package.unpacked else "", uid=NOBODY, size=size
        ),
        "master.cf": MASTER.format(port=port),
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
    return Prepared([str(master), "-c", config], environment, shown.stdout.strip(), place / "log/mail.log")
