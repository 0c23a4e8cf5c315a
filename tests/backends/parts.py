"""The real backends of these tests, built once into build/backends and used from there.

The rule: every version is pinned here or in the files beside it, and comes by an ordinary package client with the
machine's own settings. A part that cannot be had is one line that says which and why, and its tests are skipped with
that line. Run as a program it builds them all, or those that are named: `make test-backends` does that first.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "backends"
# Debian 13's, whatever release this machine runs: Debian 12's VictoriaMetrics does not speak OTLP. They are unpacked,
# not installed, and need nothing that Debian 12 lacks.
RELEASE = "trixie"
DEBIAN = {"victoria-metrics": "1.112.0+ds1-2", "prometheus": "2.53.3+ds1-2"}


class CannotBeBuiltError(Exception):
    """Says what is missing."""


class Part(NamedTuple):
    """A backend: the file it is started from, what its recipe is made of, and what builds it into a directory."""

    version: str
    program: str
    recipe: tuple[Path, ...]
    build: Callable[[Path], None]


def _collector(place: Path) -> None:
    _need("go", "apt-get install golang-go (1.25 or later)")
    # -mod=readonly: exactly the versions of go.mod and the checksums of go.sum.
    flags = ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w"]
    _run(["go", "build", *flags, "-o", str(place / "otelcol"), "."], HERE / "collector", {"CGO_ENABLED": "0"})


def _kafka(place: Path) -> None:
    _need("java", "apt-get install default-jre-headless")
    _need("mvn", "apt-get install maven")
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={place / 'lib'}"]
    _run(["mvn", "-q", "-B", "-f", str(HERE / "kafka" / "pom.xml"), *goal], HERE)


def _from_debian(*packages: str) -> Callable[[Path], None]:
    def build(place: Path) -> None:
        _need("apt-get", "only Debian's packages are used")
        apt = _apt_of_the_release(place / "apt")
        _run(["apt-get", *apt, "-qq", "update"], place)
        _run(["apt-get", *apt, "-qq", "download", *(f"{name}={DEBIAN[name]}" for name in packages)], place)
        for package in place.glob("*.deb"):
            _run(["dpkg-deb", "-x", str(package), str(place)], place)
            package.unlink()
        shutil.rmtree(place / "apt")

    return build


def _apt_of_the_release(folder: Path) -> list[str]:
    """Options for an apt that knows nothing but the release, from where this machine gets Debian."""
    targets = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]
    told = _run(["apt-get", *targets], folder.parent).split()
    if not told:
        raise CannotBeBuiltError("apt knows of no Debian: apt-get update")
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    source = f"Types: deb\nURIs: {told[0]}\nSuites: {RELEASE}\nComponents: main\nSigned-By: {key}\n"
    (folder / "debian.sources").write_text(source)
    where = {
        "Dir::Etc::sourcelist": folder / "debian.sources",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",  # the folder is the tests' own
    }
    return [word for name, value in where.items() for word in ("-o", f"{name}={value}")]


PARTS = {
    "collector": Part("0.155.0", "otelcol", (HERE / "collector",), _collector),
    "victoriametrics": Part(
        DEBIAN["victoria-metrics"], "usr/bin/victoria-metrics", (), _from_debian("victoria-metrics")
    ),
    "prometheus": Part(DEBIAN["prometheus"], "usr/bin/prometheus", (), _from_debian("prometheus")),
    "kafka": Part("3.9.1", "lib/kafka_2.13-3.9.1.jar", (HERE / "kafka",), _kafka),
}


def built(name: str) -> Path:
    """The program of a part, built if it is not there yet or its recipe is newer."""
    part = PARTS[name]
    place = BUILD / f"{name}-{part.version}"
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_fresh(place / part.program, part.recipe):
            scratch = BUILD / f"{name}.new"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            part.build(scratch)
            if not (scratch / part.program).exists():
                raise CannotBeBuiltError(f"its packages hold no {part.program}")
            shutil.rmtree(place, ignore_errors=True)
            (scratch / part.program).touch()  # built now, whatever the package says
            scratch.rename(place)
    return place / part.program


def needed(name: str) -> Path:
    """The program of a part, for a test; skips with the reason where it cannot be had."""
    try:
        return built(name)
    except CannotBeBuiltError as error:
        pytest.skip(f"{name} {PARTS[name].version} cannot be installed: {error}")


def _is_fresh(program: Path, recipe: tuple[Path, ...]) -> bool:
    if not program.exists():
        return False
    files = [file for folder in recipe for file in folder.iterdir()]
    return all(file.stat().st_mtime <= program.stat().st_mtime for file in files)


def _need(program: str, how: str) -> None:
    if not shutil.which(program):
        raise CannotBeBuiltError(f"{program} is missing: {how}")


def _run(command: list[str], folder: Path, more: dict[str, str] | None = None) -> str:
    ran = subprocess.run(
        command, cwd=folder, env={**os.environ, **(more or {})}, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        said = (ran.stderr.strip() or ran.stdout.strip()).splitlines() or ["it said nothing"]
        raise CannotBeBuiltError(f"{command[0]} failed: {said[-1][:200]}")
    return ran.stdout


def main() -> None:
    for name in sys.argv[1:] or PARTS:
        part = PARTS[name]
        try:
            built(name)
        except CannotBeBuiltError as error:
            print(f"{name} {part.version}: cannot be installed: {error}")
        else:
            print(f"{name} {part.version}: ready")


if __name__ == "__main__":
    sys.exit(main())
