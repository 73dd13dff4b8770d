"""Authorities that are trusted besides the usual ones."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

import certifi
import pytest

from detent.worker import trust

OWN = Path(certifi.where()).read_text().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
"""Any certificate."""


@pytest.fixture(autouse=True)
def no_bundles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in trust.VARIABLES:
        monkeypatch.setenv(name, "")


def test_bundle_holds_the_usual_authorities_and_the_extra_one(tmp_path: Path) -> None:
    extra = tmp_path / "ca.pem"
    extra.write_text(OWN)
    trust.trust(extra)
    for name in trust.VARIABLES:
        bundle = Path(os.environ[name]).read_text()
        assert bundle.endswith(f"-----END CERTIFICATE-----\n{OWN}")
        assert ssl.create_default_context(cafile=os.environ[name]).cert_store_stats()["x509_ca"] > 50


def test_bundle_of_the_shell_is_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extra, shell = tmp_path / "ca.pem", tmp_path / "shell.pem"
    extra.write_text(OWN)
    shell.write_text("of the shell\n\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(shell))
    trust.trust(extra)
    assert Path(os.environ["SSL_CERT_FILE"]).read_text() == f"of the shell\n{OWN}"


def test_processes_share_one_file_which_nobody_else_can_have_made(tmp_path: Path) -> None:
    extra = tmp_path / "ca.pem"
    extra.write_text(OWN)
    found = []
    for _ in range(2):
        os.environ["SSL_CERT_FILE"] = ""
        trust.trust(extra)
        found.append(os.environ["SSL_CERT_FILE"])
    assert found[0] == found[1]
    folder = Path(found[0]).parent
    assert folder.stat().st_mode & 0o777 == 0o700

    folder.chmod(0o777)
    os.environ["SSL_CERT_FILE"] = ""
    trust.trust(extra)
    assert Path(os.environ["SSL_CERT_FILE"]).parent != folder
