"""Builds the native scanner; everything else about the distribution stands in pyproject.toml.

cffi has no key in pyproject.toml, so this call remains (https://cffi.readthedocs.io/en/stable/cdef.html).
"""

from setuptools import setup

setup(
    cffi_modules=["native/build_native.py:ffibuilder"],
    # The compiled module uses the limited API only: one wheel serves CPython 3.11 and later.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
