"""The TLS files of an exporter, followed while it runs: certificates are renewed under a running agent.

The rule: what is loaded stays in use until all of what replaces it can be loaded. A file that is half written, or
whose other half is still to come, is said once and tried again with the next request.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import NamedTuple

from pgsonar.config.schema import TlsClient
from pgsonar.errors import ConfigError

log = logging.getLogger("pgsonar")

_NAMES = ("ca_file", "cert_file", "key_file")
# Where distributions keep the authorities that a host trusts, after what OpenSSL itself says.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat
    "/etc/ssl/ca-bundle.pem",  # SUSE
)

Stamp = tuple[tuple[int, ...] | None, ...]


class Identity(NamedTuple):
    """Whom we trust and who we are: as OpenSSL wants it, and the PEM of each file."""

    context: ssl.SSLContext
    ca: bytes | None
    cert: bytes | None
    key: bytes | None


class TlsFiles:
    """The files of one exporter. Raises ConfigError when they cannot be loaded at the start."""

    def __init__(self, config: TlsClient, component: str) -> None:
        self._config = config
        self._component = component
        self._paths: dict[str, str] = {name: path for name in _NAMES if (path := getattr(config, name))}
        self._loaded: Stamp = self._stamp()
        self._identity = self._load()
        self._said = ""

    def current(self) -> Identity:
        """What is to be used for the next connection: another object after the files have changed."""
        stamp = self._stamp()
        if stamp == self._loaded:
            return self._identity
        try:
            identity = self._load()
        except ConfigError as error:
            if str(error) != self._said:
                self._said = str(error)
                log.warning("%s; what was loaded before stays in use (%s)", error, error.hint)
            return self._identity
        if self._stamp() == stamp:  # else it is still being written
            self._loaded, self._identity, self._said = stamp, identity, ""
            log.info("exporter %s: the TLS files have changed and are in use", self._component)
        return self._identity

    def _stamp(self) -> Stamp:
        """Changes whenever a file does: rewritten, replaced, or its symbolic link pointed elsewhere."""
        return tuple(_stamp_of(path) for path in self._paths.values())

    def _load(self) -> Identity:
        pem = {name: self._read(name, path) for name, path in self._paths.items()}
        ca_file = self._paths.get("ca_file")
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except OSError:  # ssl.SSLError is one
            raise self._wrong("ca_file", "holds no whole certificate in PEM") from None
        if self._config.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if "cert_file" in pem:
            self._load_own(context)
        return Identity(context, pem.get("ca_file"), pem.get("cert_file"), pem.get("key_file"))

    def _load_own(self, context: ssl.SSLContext) -> None:
        try:  # the empty password: without one OpenSSL would ask on the terminal for that of an encrypted key
            context.load_cert_chain(self._paths["cert_file"], self._paths.get("key_file"), password="")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise self._wrong("key_file", "is not the key of tls.cert_file") from None
            raise self._wrong("cert_file", "and tls.key_file are no whole certificate and unencrypted key") from None
        except OSError as error:
            raise self._wrong("cert_file", f"cannot be read: {error.strerror}") from None

    def _read(self, name: str, path: str) -> bytes:
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise self._wrong(name, f"cannot be read: {error.strerror}") from None

    def _wrong(self, name: str, what: str) -> ConfigError:
        hint = f"look at it with: openssl {'pkey' if name == 'key_file' else 'x509'} -noout -in FILE"
        return ConfigError(f"exporters.{self._component}.tls.{name}: {self._paths[name]} {what}", hint)


def system_authorities() -> bytes | None:
    """The PEM of the authorities that this host trusts, where it keeps them in one file."""
    for path in (ssl.get_default_verify_paths().cafile, *_BUNDLES):
        if path is not None and Path(path).is_file():
            return Path(path).read_bytes()
    return None


def _stamp_of(path: str) -> tuple[int, ...] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
