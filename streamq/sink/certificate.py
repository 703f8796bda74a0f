"""The sink's certificate: from files, or one of its own, for this machine and signed by itself.

The standard library can present certificates and cannot make them: `cryptography`, of the extra `tls`, does. The
`openssl` command would do too; it is not everywhere, and its options differ from version to version.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

from streamq.errors import SettingsError

__all__ = ["Certificate", "from_files", "self_signed"]

DAYS = 30  # that a certificate of its own is good for
CLOCKS = timedelta(hours=1)  # that a client's clock may be behind
NAMES = ("localhost",)
ADDRESSES = ("127.0.0.1", "::1")


class Certificate:
    """What a server shows. `pem` is the certificate (not the key): a client that trusts it needs nothing else."""

    def __init__(self, context: ssl.SSLContext, pem: bytes) -> None:
        self.context = context
        self.pem = pem


def from_files(certificate: Path, key: Path | None = None) -> Certificate:
    """PEM files; without `key`, the certificate's file holds it too. Raises `SettingsError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        pem = certificate.read_bytes()
        context.load_cert_chain(certificate, key, password="")  # or an encrypted key would ask the terminal
    except FileNotFoundError as wrong:
        raise SettingsError(f"cert: {wrong.filename or key}: {wrong.strerror}") from None
    except (OSError, ssl.SSLError) as wrong:
        raise SettingsError(f"cert: not a certificate and its key: {wrong} (got {str(certificate)!r})") from None
    return Certificate(context, pem)


def self_signed() -> Certificate:
    """For localhost, 127.0.0.1 and ::1. Raises `SettingsError` where the extra is missing."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError:
        raise SettingsError(
            "tls: a certificate of its own needs the package cryptography: pip install 'streamq[tls]', "
            "or name files with --cert and --key"
        ) from None
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "streamq sink")])
    now = datetime.now(UTC)
    others = [*(x509.DNSName(each) for each in NAMES), *(x509.IPAddress(ip_address(each)) for each in ADDRESSES)]
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS)
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName(others), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with TemporaryDirectory() as folder:  # 0700; the ssl module loads keys from files only
        path = Path(folder, "both.pem")
        path.write_bytes(secret + pem)
        return Certificate(from_files(path).context, pem)
