"""Certificates of an authority of the tests' own, for servers on loopback."""

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Authority:
    """`bundle` is what has to be trusted for its certificates to be."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of the tests")])
        constraint = x509.BasicConstraints(ca=True, path_length=None)
        self.bundle = place / "authority.pem"
        self.bundle.write_bytes(self._sign(self.name, self.key.public_key(), constraint, DAY))

    def _sign(self, subject, key, extension: x509.ExtensionType, lasts: datetime.timedelta) -> bytes:
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder(
            self.name, subject, key, x509.random_serial_number(), now - 2 * DAY, now + lasts
        )
        critical = isinstance(extension, x509.BasicConstraints)
        return (
            builder.add_extension(extension, critical)
            .sign(self.key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )

    def server(self, *, host: str = "127.0.0.1", lasts: datetime.timedelta = DAY) -> ssl.SSLContext:
        """What a server needs to be `host`."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
        certificate = self._sign(x509.Name([]), key.public_key(), x509.SubjectAlternativeName([name]), lasts)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = self.place / f"{host}.pem"
        chain.write_bytes(private + certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        return context
