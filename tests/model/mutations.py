"""Each script broken once, where it keeps the law: `python tests/model/mutations.py [NAME …]`.

A mutation is red when the state machine fails on it; where that can't see it, because no law of the model is
touched, the conformance tests of tests/queue and tests/webhooks must. One that stays green means that an assertion is
missing. Without names all of them run, some seconds each; exit 1 where any stays green.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

__all__ = ["MUTATIONS", "Mutation", "hunted", "mutated"]

LUA = files("streamq.queue") / "lua"
HERE = Path(__file__).parent
LIMIT_S = 300.0


class Mutation(NamedTuple):
    """`old` stands once in `file` and becomes `new`."""

    name: str
    file: str
    old: str
    new: str


def mutated(mutation: Mutation) -> str:
    """The file's text with the mutation in it."""
    text = LUA.joinpath(*mutation.file.split("/")).read_text("utf-8")
    assert text.count(mutation.old) == 1, f"{mutation.name}: {text.count(mutation.old)} times in {mutation.file}"
    return text.replace(mutation.old, mutation.new)


with HERE.joinpath("mutations.toml").open("rb") as _file:
    MUTATIONS = tuple(Mutation(**each) for each in tomllib.load(_file)["mutation"])


def hunted(mutation: Mutation, *, conformance: bool = True) -> str:
    """Who saw it: 'machine', 'conformance' or '' for nobody. Raises where the tests themselves could not run."""
    if _is_red(mutation, [HERE / "test_machine.py"]):
        return "machine"
    by_verb = sorted(path for path in (HERE.parent / "queue").glob("test_*.py") if path.stem != "test_script")
    by_verb += sorted((HERE.parent / "webhooks").glob("test_*.py"))
    one_server = ["-k", "not 6.2 and not 8.1 and not path"]
    return "conformance" if conformance and _is_red(mutation, [*by_verb, *one_server]) else ""


def _is_red(mutation: Mutation, tests: Sequence[Path | str]) -> bool:
    """A test failed, or hung."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "mutated", "-p", "no:cacheprovider", *tests],
            cwd=HERE.parents[1],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
                "STREAMQ_MUTATION": mutation.name,
                "STREAMQ_MODEL": "mutant",
            },
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return True
    if done.returncode > 1:
        raise RuntimeError(f"{mutation.name}: {done.stdout.decode()[-2000:]}{done.stderr.decode()[-2000:]}")
    return done.returncode == 1


def main(names: list[str]) -> int:
    green = 0
    for mutation in MUTATIONS:
        if names and mutation.name not in names:
            continue
        began = time.monotonic()
        who = hunted(mutation)
        green += not who
        seen = f"red, by {who}" if who else "GREEN"
        print(f"{mutation.name:32} {mutation.file:18} {seen:22} {time.monotonic() - began:5.1f} s", flush=True)
    print(f"{green} stayed green")
    return 1 if green else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
