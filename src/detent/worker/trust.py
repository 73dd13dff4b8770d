"""Certificate authorities that a project trusts besides the usual ones (`extra_ca_certs`)."""

from __future__ import annotations

import hashlib
import os
import ssl
import tempfile
from pathlib import Path

VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
"""What OpenSSL and httpx read, and what requests does. Each names a file in the place of the usual one, so that must hold all."""


def trust(extra: Path) -> None:
    """Have this process and what it starts trust the authorities in a PEM file as well."""
    for name in VARIABLES:
        usual = Path(os.environ.get(name) or _usual_file())
        os.environ[name] = str(_kept(usual.read_bytes().rstrip() + b"\n" + extra.read_bytes()))


def _usual_file() -> str:
    found = ssl.get_default_verify_paths().cafile
    if found is None:
        import certifi

        found = certifi.where()
    return found


def _kept(bundle: bytes) -> Path:
    """Return a file of this content. It is named by it, so that all processes of a user share one."""
    folder = _own_folder()
    file = folder / f"{hashlib.sha256(bundle).hexdigest()[:32]}.pem"
    if not file.exists():
        made, path = tempfile.mkstemp(dir=folder)
        with os.fdopen(made, "wb") as opened:
            opened.write(bundle)
        Path(path).replace(file)
    return file


def _own_folder() -> Path:
    """Return a folder in which nobody else can have put anything."""
    folder = Path(tempfile.gettempdir()) / f"detent-trust-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    is_own = found.st_uid == os.getuid() and not folder.is_symlink() and not found.st_mode & 0o077
    return folder if is_own else Path(tempfile.mkdtemp(prefix="detent-trust-"))
