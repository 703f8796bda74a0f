"""A private Exim: what its folder holds before it is started (bench/mta.py)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from bench.package import Missing, Names, Prepared, find_package

__all__ = ["prepare_exim"]

CONFIG = """\
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


def prepare_exim(place: Path, port: int, size: int) -> Prepared:
    """Make its folders and its file below `place`; `size`: bytes of a mail at most. Raises `Missing`."""
    package = find_package(("exim4", "exim"))
    names = Names("Debian-exim", "Debian-exim", 62_103, 62_103)
    environment = package.environment(place, names)
    for name in ("queue", "log", "mail"):
        place.joinpath(name).mkdir(mode=0o700)
        os.chown(place / name, names.uid, names.gid)
    config = place / "exim.conf"
    config.write_text(CONFIG.format(place=place, executable=package.executable, port=port, size=size))
    config.chmod(0o644)
    shown = subprocess.run(
        [package.executable, "-C", config, "-bV"], env=environment, capture_output=True, text=True, check=False
    )
    if shown.returncode:
        raise Missing(f"{package.executable}: {(shown.stderr or shown.stdout).strip()[-300:]}")
    version = re.search(r"version (\S+)", shown.stdout)
    command = [str(package.executable), "-C", str(config), "-bdf", "-q1s"]
    return Prepared(command, environment, version[1] if version else "", place / "log/mainlog")
