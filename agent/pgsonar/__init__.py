"""pgsonar finds PostgreSQL connections that leak or hang, and names who leaked them."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("pgsonar")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
