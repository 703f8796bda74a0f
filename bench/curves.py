"""`python -m bench curves`: the pictures of docs/limits.md, and what the policy scores where the limit is known.

Each case of streamq/simulate/yardstick.py runs in virtual time with the settings' defaults; the pictures of those whose
limit changes go to a directory, the numbers of all of them, tuned and reported half apart, are printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streamq.cli.own import own_server
from streamq.settings import Settings, load_settings
from streamq.simulate import Terms, picture, simulate
from streamq.simulate.yardstick import CASES, DRAWN, TUNED, Marks, read

__all__ = ["Curve", "add", "curves", "plain", "table"]


@dataclass(frozen=True, slots=True)
class Curve:
    name: str
    half: str  # tuned, reported
    marks: Marks


def curves(settings: Settings, folder: Path | None, names: Sequence[str] = (), workers: int = 2) -> list[Curve]:
    """All cases, or those; pictures only with a folder."""
    found = []
    with own_server(settings, "curves") as server:
        for name in names or CASES:
            case = CASES[name]
            ran = simulate(case.scenario(), settings, server.url, Terms(workers=workers, until_s=case.seconds))
            if folder is not None and name in DRAWN:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{name}.svg").write_text(picture(ran, DRAWN[name]), "utf-8")
            found.append(Curve(name, "tuned" if name in TUNED else "reported", read(case, ran)))
            print(_row(found[-1]), flush=True)
    return found


def _row(curve: Curve) -> str:
    marks = curve.marks
    regained = "" if marks.regained_s is None else f"{marks.regained_s:.0f} s"
    return (
        f"{curve.name:<24} {curve.half:<9} {marks.refused:>8.2%} {marks.turned_away:>8.2%} {marks.goodput:>8.1%} "
        f"{marks.wobble:>7.1%} {regained:>9}"
    )


def table(found: Sequence[Curve]) -> str:
    head = f"{'case':<24} {'half':<9} {'refused':>8} {'turned':>8} {'goodput':>8} {'wobble':>7} {'regained':>9}"
    return "\n".join([head, *(_row(curve) for curve in found)])


def plain(found: Sequence[Curve]) -> list[dict[str, object]]:
    return [asdict(curve) for curve in found]


def add(benches: Any, common: argparse.ArgumentParser) -> None:
    one = benches.add_parser("curves", parents=[common], help="the policy against known limits, in virtual time")
    one.add_argument("--case", choices=list(CASES), action="append", default=[], help="of them (each)")
    one.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw those of docs/limits.md there (docs/curves)")
    one.set_defaults(run=_run)


def _run(asked: argparse.Namespace) -> tuple[dict[str, Any], bool, str]:
    found = curves(load_settings(), asked.pictures, asked.case)
    return {"results": plain(found)}, True, table(found)
