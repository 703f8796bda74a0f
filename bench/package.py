"""Where another server's files are, and the users that it becomes.

WHERE     The executables are those on PATH, else in $PEERS_FOLDER, else where `deploy/peers.sh` unpacks them. Out
          of such a folder they run with its libraries, and with users that only they see (nss_wrapper): nothing
          of the system is changed.
FAILS     `Missing`, with the reason in words.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Missing", "Names", "Package", "Prepared", "find_package", "must_be_open"]

SYSTEM = "/usr/sbin"  # often not on PATH
CACHE = "/var/cache/streamq/peers"  # as deploy/peers.sh says it
WRAPPER = "libnss_wrapper.so"
HOW = "deploy/peers.sh unpacks it"


class Missing(Exception):
    """This machine cannot run that server; the text says why."""


@dataclass(frozen=True)
class Prepared:
    """A server that is ready to be started."""

    command: list[str]
    environment: dict[str, str]
    version: str
    log: Path


def must_be_open(folder: Path) -> None:
    """Raises `Missing` if other users than root cannot reach what is in it."""
    for each in (folder, *folder.parents):
        if not each.stat().st_mode & stat.S_IXOTH:
            raise Missing(f"{folder}: other users cannot reach it: {each} is closed to them")


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
        wrappers = [*self.root.glob(f"usr/lib/*/{WRAPPER}"), *Path("/usr/lib").glob(f"*/{WRAPPER}")]
        if not wrappers:
            raise Missing(f"{self.root}: no {WRAPPER} in it; {HOW}")
        must_be_open(self.root)  # Exim starts itself anew when it is nobody special any more
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


def find_package(names: tuple[str, ...]) -> Package:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), SYSTEM])
    for name in names:
        if found := shutil.which(name, path=path):
            return Package(Path(found), Path("/"))
    for folder in (os.environ.get("PEERS_FOLDER"), CACHE):
        for name in names:
            if folder and (found := shutil.which(name, path=str(Path(folder, "usr/sbin")))):
                return Package(Path(found).absolute(), Path(folder).resolve())
    raise Missing(f"{names[0]} is not installed; {HOW}")
