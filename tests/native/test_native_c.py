"""Compiles the C tests with sanitizers and runs them; the corpus is replayed through the fuzzer's entry."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import needs
import own_network

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
NATIVE = sorted((ROOT / "native").glob("*.c"))
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-g", "-O1", "-fno-omit-frame-pointer", "-pthread"]
MEMORY = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
THREADS = ["-fsanitize=thread"]

# The tests bring their own sanitizer: one that is preloaded into this interpreter would come before it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


TESTS = [path.stem for path in sorted(HERE.glob("test_*.c"))]


def build(compiler, sources, flags, program):
    compile_with(compiler, flags, *sources, "-o", program)


def compile_with(compiler, flags, *arguments, folder=None):
    command = [compiler, *FLAGS, *flags, f"-I{ROOT / 'native'}", *map(str, arguments)]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=folder, capture_output=True, text=True, check=False)
    if "cannot find" in done.stderr and "san" in done.stderr:
        needs.part(f"a library of {compiler} for {flags[0]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Builds a test with the scanner's objects, which are compiled once for all tests that have the same flags."""

    @functools.cache
    def objects(*flags):
        folder = tmp_path_factory.mktemp("objects")
        compile_with(needs.either("cc", "gcc", "clang"), flags, "-c", *NATIVE, folder=folder)
        return sorted(folder.glob("*.o"))

    @functools.cache
    def built(test, *flags):
        path = tmp_path_factory.mktemp("program") / test
        build(needs.either("cc", "gcc", "clang"), [HERE / f"{test}.c", *objects(*flags)], flags, path)
        return path

    return built


def run(command, directory):
    done = subprocess.run(
        [sys.executable, own_network.__file__, *command],
        cwd=directory,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode == own_network.REFUSED:
        pytest.skip("needs root or user namespaces, for a network namespace of its own")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("machine", [(), ("-DPGS_PORTABLE",)], ids=["native", "portable"])
@pytest.mark.parametrize("test", TESTS)
def test_c_tests_pass_with_memory_and_undefined_behaviour_checked(program, test, machine, tmp_path):
    run([program(test, *MEMORY, *machine)], tmp_path)


def test_netlink_needs_no_privilege_in_its_own_namespace(program):
    if os.geteuid():
        pytest.skip("needs root, to give it up: this is how the tests run anyway")
    with tempfile.TemporaryDirectory() as folder:  # where others may go, unlike the folders of the tests
        copy = Path(shutil.copy(program("test_sockets", *MEMORY), folder))
        Path(folder).chmod(0o755)
        # The queue of ends is then as short as net.core.rmem_max, and is emptied between ticks.
        run([needs.either("setpriv"), "--reuid=65534", "--clear-groups", copy], folder)


@pytest.mark.parametrize("test", ["test_sampler", "test_sockets"])
def test_the_sampler_has_no_data_race(program, test, tmp_path):
    # Without address randomization: older ThreadSanitizers refuse the memory layout of newer kernels.
    fixed_layout = [needs.either("setarch"), "-R"]
    run([*fixed_layout, program(test, *THREADS)], tmp_path)


@pytest.mark.parametrize("parser", ["procnet", "diagmsg"])
def test_a_parser_keeps_its_invariants_on_its_corpus_and_mutations_of_it(parser, tmp_path):
    clang = needs.either("clang", "clang-14", "clang-15", "clang-16", "clang-17", "clang-18", "clang-19")
    fuzz = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    build(clang, [HERE / f"fuzz_{parser}.c", ROOT / "native" / f"{parser}.c"], fuzz, tmp_path / "fuzz")
    shutil.copytree(HERE / f"corpus_{parser}", tmp_path / "corpus")
    run([tmp_path / "fuzz", "-runs=20000", "-seed=1", "-max_len=4096", tmp_path / "corpus"], tmp_path)
