"""Tells cffi how the native scanner is built; setup.py names `ffibuilder` in its cffi_modules.

The rule: the header is the contract. cffi reads the very file the C sources include, so the two cannot drift.
PGSONAR_WERROR=1 turns warnings into errors, PGSONAR_SANITIZE=1 builds with AddressSanitizer and UBSan.
"""

import os
import sysconfig
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
HEADER = HERE / "pgsonar.h"
SOURCES = [
    *("procnet.c", "merge.c", "scan.c"),
    *("diagmsg.c", "netlink.c", "sockdiag.c", "destroy.c", "gate.c"),
    *("table.c", "row.c", "entries.c", "told.c", "ring.c"),
    *("tick.c", "ends.c", "sampler.c", "watches.c"),
    "owners.c",
]
INTERNAL = [
    f"{name}.h" for name in ("api", "procnet", "scan", "diagmsg", "sockdiag", "gate", "table", "told", "sampler")
]

# The limited API gives one wheel for CPython 3.11 and later. Free-threaded Python does not have it.
limited = not sysconfig.get_config_var("Py_GIL_DISABLED")

flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-pthread"]
link_flags = ["-pthread"]
if os.environ.get("PGSONAR_WERROR"):
    flags.append("-Werror")
if os.environ.get("PGSONAR_SANITIZE"):
    sanitize = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    flags += [*sanitize, "-g", "-O1"]
    link_flags += sanitize

ffibuilder = FFI()
ffibuilder.cdef(HEADER.read_text(encoding="utf-8"))
ffibuilder.set_source(
    "pgsonar._native",
    '#include "api.h"\n',
    # Relative paths: setuptools writes them into the sdist, and builds from its top directory.
    sources=[f"native/{name}" for name in SOURCES],
    include_dirs=["native"],
    depends=[f"native/{name}" for name in [HEADER.name, Path(__file__).name, *INTERNAL]],
    define_macros=[("Py_LIMITED_API", "0x030b0000")] if limited else [],
    py_limited_api=limited,
    extra_compile_args=flags,
    extra_link_args=link_flags,
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
