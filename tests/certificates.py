"""Authorities and certificates for tests, made with openssl as an operator would make them."""

import subprocess
from pathlib import Path

import needs


def _openssl(*arguments):
    needs.programs("openssl")
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Authority:
    """Signs certificates into its folder."""

    def __init__(self, folder, name="ca"):
        self.folder = Path(folder)
        self.file, self._key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        extensions = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign,cRLSign")
        new = ("req", "-x509", *_EC, "-nodes", "-days", "2", "-subj", f"/CN={name}", *extensions)
        _openssl(*new, "-keyout", self._key, "-out", self.file)

    def issue(self, name, *, names="DNS:localhost,IP:127.0.0.1,IP:::1", days=2):
        """Certificate and key of a name; a negative number of days makes one that has expired."""
        cert, key, request = (self.folder / f"{name}.{end}" for end in ("crt", "pem", "csr"))
        _openssl("req", "-new", *_EC, "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        extensions = self.folder / "extensions"
        extensions.write_text(f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\n")
        signed = ("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self._key, "-CAcreateserial")
        _openssl(*signed, "-days", days, "-extfile", extensions, "-out", cert)
        return cert, key


_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
