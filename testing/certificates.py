"""A certificate authority of a test's own, with certificates for servers and clients.

Made with trustme, in the PEM form that Kafka, Redis and their clients all read (PKCS #8 keys).
"""

from __future__ import annotations

from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

HOSTS = ("localhost", "127.0.0.1", "::1")


class Certificates:
    """Files below `directory`; `ca` is what a client must trust.

    ca.pem, server.pem and server.key, client.pem and client.key (common name `eddyline`),
    keystore.pem (key and chain of the server, as Kafka reads them), and other-ca.pem, an
    authority that signed none of them.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        authority = trustme.CA(organization_name="Eddyline tests")
        authority.cert_pem.write_to_path(self.ca)
        trustme.CA(organization_name="Another authority").cert_pem.write_to_path(self.other_ca)
        self._write(authority.issue_cert(*HOSTS), self.server, self.server_key)
        self._write(
            authority.issue_cert("eddyline@example.com", common_name="eddyline"),
            self.client,
            self.client_key,
        )
        self.keystore.write_bytes(self.server_key.read_bytes() + self.server.read_bytes())

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self.directory / "ca.pem"

    @property
    def other_ca(self) -> Path:
        """The certificate of an authority that signed nothing here."""
        return self.directory / "other-ca.pem"

    @property
    def server(self) -> Path:
        """The server's certificate, for localhost and the loopback addresses."""
        return self.directory / "server.pem"

    @property
    def server_key(self) -> Path:
        """The server's key."""
        return self.directory / "server.key"

    @property
    def keystore(self) -> Path:
        """The server's key and certificate in one file."""
        return self.directory / "keystore.pem"

    @property
    def client(self) -> Path:
        """The client's certificate."""
        return self.directory / "client.pem"

    @property
    def client_key(self) -> Path:
        """The client's key."""
        return self.directory / "client.key"

    @staticmethod
    def _write(leaf: trustme.LeafCert, certificate: Path, key: Path) -> None:
        certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        private = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
        key.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        key.chmod(0o600)
