"""TLS to a relay: the context that a route's settings ask for, and the certificates that they name.

FAILS    `tls_context`: `SettingsError` with the setting and the file, at the start: a file that is missing or wrong
         would otherwise be a route that is down for ever. `check_pin`: `NotConnected`.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import stat

from streamq.errors import SettingsError
from streamq.settings import RouteSettings
from streamq.smtp.connection import NotConnected
from streamq.smtp.letter import Stage

__all__ = ["check_pin", "tls_context"]

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def tls_context(route: RouteSettings, where: str = "") -> ssl.SSLContext | None:
    """One for all connections of a route: building one reads every certificate of the system. `where` stands before
    the setting in errors ("routes.main."). None: TLS is never used here."""
    if route.tls == "none" and not route.implicit_tls:
        return None
    if route.tls_ca is not None:
        _readable(route.tls_ca, f"{where}tls_ca")
    try:
        context = ssl.create_default_context(cafile=route.tls_ca)  # with a file: that one instead of the system's
    except ssl.SSLError:
        raise SettingsError(f"{where}tls_ca: no certificate (PEM) in it: {route.tls_ca!r}") from None
    if not route.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.minimum_version = VERSIONS[route.tls_min]
    if route.tls_cert is not None:
        _load_own(context, route, route.tls_cert, where)
    return context


def check_pin(secured: ssl.SSLObject, pins: tuple[str, ...]) -> bool:
    """`pins` are SHA-256 digests of the server's certificate (DER), in hexadecimal digits. True: it is one of them,
    and the handshake has proved that the server has its key; False: there are none to check."""
    if not pins:
        return False
    shown = hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()
    if shown not in pins:
        raise NotConnected(Stage.STARTTLS, "tls", f"the certificate is not one of tls_pin: sha256 {shown}")
    return True


def _readable(path: str, setting: str) -> None:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise SettingsError(f"{setting}: not a file: {path!r}")
        with open(path, "rb"):
            pass
    except (OSError, ValueError) as wrong:  # ValueError: a NUL in the name
        raise SettingsError(f"{setting}: {getattr(wrong, 'strerror', None) or wrong}: {path!r}") from None


def _load_own(context: ssl.SSLContext, route: RouteSettings, cert: str, where: str) -> None:
    _readable(cert, f"{where}tls_cert")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cert)
    except ssl.SSLError:
        raise SettingsError(f"{where}tls_cert: no certificate (PEM) in it: {cert!r}") from None
    key, setting = (route.tls_key, "tls_key") if route.tls_key is not None else (cert, "tls_cert")
    _readable(key, f"{where}{setting}")
    asked = False

    def password() -> str:  # always given: without it OpenSSL asks at the terminal, and waits
        nonlocal asked
        asked = True
        return route.tls_key_password.get_secret_value() if route.tls_key_password is not None else ""

    try:
        context.load_cert_chain(cert, key, password)
    except (ssl.SSLError, ValueError) as wrong:  # ValueError: a password beyond OpenSSL's 1,024 bytes
        if getattr(wrong, "reason", "") == "KEY_VALUES_MISMATCH":
            why = f"{setting}: not the key of {cert!r}"
        elif asked and route.tls_key_password is None:
            why = "tls_key_password: the key is encrypted, and no password is set"
        elif asked:
            why = "tls_key_password: does not open the key"
        else:
            why = f"{setting}: no private key (PEM) in it"
        raise SettingsError(f"{where}{why}: {key!r}") from None
