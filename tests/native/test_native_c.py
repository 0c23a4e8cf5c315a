"""Compiles the C tests with sanitizers and runs them; the corpus is replayed through the fuzzer's entry."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
NATIVE = sorted((ROOT / "native").glob("*.c"))
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-g", "-O1", "-fno-omit-frame-pointer", "-pthread"]
MEMORY = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
THREADS = ["-fsanitize=thread"]

# The tests bring their own sanitizer: one that is preloaded into this interpreter would come before it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def case(test):
    """The text of the host's sockets is no snapshot: who compares it with anything wants no others to come and go."""
    return pytest.param(test, marks=pytest.mark.alone if test == "test_sockets" else ())


def find_program(*names):
    for name in names:
        if path := shutil.which(name):
            return path
    pytest.skip(f"needs one of {', '.join(names)}")


def build(compiler, sources, flags, program):
    command = [compiler, *FLAGS, *flags, f"-I{ROOT / 'native'}", *map(str, sources), "-o", str(program)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip(f"{compiler} has no library for {flags[0]}")
    assert done.returncode == 0, done.stderr


def run(command, directory):
    done = subprocess.run(
        command, cwd=directory, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("machine", ["", "-DPGS_PORTABLE"], ids=["native", "portable"])
@pytest.mark.parametrize("test", [case(path.stem) for path in sorted(HERE.glob("test_*.c"))])
def test_c_tests_pass_with_memory_and_undefined_behaviour_checked(test, machine, tmp_path):
    flags = [*MEMORY, machine] if machine else MEMORY
    build(find_program("cc", "gcc", "clang"), [HERE / f"{test}.c", *NATIVE], flags, tmp_path / test)
    run([tmp_path / test], tmp_path)


def test_netlink_needs_no_privilege_in_its_own_namespace(tmp_path):
    if os.geteuid():
        pytest.skip("this is how the tests run anyway")
    build(find_program("cc", "gcc", "clang"), [HERE / "test_sockets.c", *NATIVE], MEMORY, tmp_path / "sockets")
    # The queue of ends is then as short as net.core.rmem_max, and is emptied between ticks.
    run([find_program("setpriv"), "--reuid=65534", "--clear-groups", tmp_path / "sockets"], "/tmp")  # noqa: S108 - read only


@pytest.mark.parametrize("test", [case("test_sampler"), case("test_sockets")])
def test_the_sampler_has_no_data_race(test, tmp_path):
    # Without address randomization: older ThreadSanitizers refuse the memory layout of newer kernels.
    fixed_layout = [find_program("setarch"), "-R"]
    build(find_program("cc", "gcc", "clang"), [HERE / f"{test}.c", *NATIVE], THREADS, tmp_path / test)
    run([*fixed_layout, tmp_path / test], tmp_path)


@pytest.mark.parametrize("parser", ["procnet", "diagmsg"])
def test_a_parser_keeps_its_invariants_on_its_corpus_and_mutations_of_it(parser, tmp_path):
    clang = find_program("clang", "clang-14", "clang-15", "clang-16", "clang-17", "clang-18", "clang-19")
    fuzz = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    build(clang, [HERE / f"fuzz_{parser}.c", ROOT / "native" / f"{parser}.c"], fuzz, tmp_path / "fuzz")
    shutil.copytree(HERE / f"corpus_{parser}", tmp_path / "corpus")
    run([tmp_path / "fuzz", "-runs=20000", "-seed=1", "-max_len=4096", tmp_path / "corpus"], tmp_path)
