"""The domain of an address: host name rules, address literals, and IDN to A-labels."""

from __future__ import annotations

import ipaddress
import re
import unicodedata

__all__ = ["HOST", "to_wire"]

LABEL = r"[A-Za-z0-9]++(?>(?:-++[A-Za-z0-9]++)*)"
HOST = rf"{LABEL}(?>(?:\.{LABEL})*)"  # RFC 5321, section 4.1.2: Domain
_HOST = re.compile(HOST)
_DOTS = re.compile("[\u3002\uff0e\uff61]")  # RFC 3490, section 3.1: they count as full stops
_LETTERS = frozenset({"Ll", "Lo", "Lm", "Mn", "Mc", "Nd"})  # RFC 5892, section 2.1: LetterDigits
_CONTEXT = frozenset("-\u00b7\u0375\u05f3\u05f4\u30fb")  # RFC 5892, appendix A, without the joiners

MAX_DOMAIN = 255  # octets, RFC 5321, section 4.5.3.1.2
MAX_LABEL = 63


def to_wire(domain: str) -> str:
    """A domain or address literal as SMTP carries it: ASCII, IDN as A-labels. Raises ValueError.

    A domain in ASCII keeps its case. No length is taken on trust: label 63, domain 255 octets.
    """
    if domain.startswith("["):
        return _literal(domain)
    if len(domain) > MAX_DOMAIN:
        raise ValueError("a domain longer than 255 octets")
    if not domain.isascii():
        domain = _a_labels(domain)
    if not _HOST.fullmatch(domain):
        raise ValueError("not a domain name")
    if len(domain) > MAX_DOMAIN:
        raise ValueError("a domain longer than 255 octets")
    if len(domain) > MAX_LABEL and any(len(label) > MAX_LABEL for label in domain.split(".")):
        raise ValueError("a label of the domain longer than 63 octets")
    return domain


def _literal(domain: str) -> str:
    """RFC 5321, section 4.1.3; `General-address-literal` has no registered use."""
    inside = domain[1:-1]
    try:
        if inside[:5].lower() == "ipv6:":
            ipaddress.IPv6Address(inside[5:])
            good = "%" not in inside
        else:
            ipaddress.IPv4Address(inside)
            good = True
    except ValueError:
        good = False
    if not good or not domain.isascii():
        raise ValueError("not an address literal ([192.0.2.1] or [IPv6:2001:db8::1])")
    return domain


def _a_labels(domain: str) -> str:
    """IDNA2008 lookup (RFC 5891, section 5) with the mapping of RFC 5895.

    Not the standard library's `idna` codec: it is IDNA2003, which turns `straße.de` into `strasse.de`,
    somebody else's domain, and lets emoji through. The table of RFC 5892 is taken by its main rule, letters,
    marks and digits as they are after NFKC and lower case; the joiners (U+200C, U+200D), which need rules of
    each script, and the Bidi rule are left to the registries: such a domain can be given as A-labels.
    """
    mapped = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _DOTS.sub(".", domain)).lower())
    return ".".join(label if label.isascii() else _a_label(label) for label in mapped.split("."))


def _a_label(label: str) -> str:
    if label[0] == "-" or label[-1] == "-" or label[2:4] == "--" or len(label) > MAX_LABEL:
        raise ValueError("not an internationalized domain name (hyphens or length)")
    if unicodedata.category(label[0])[0] == "M":
        raise ValueError("not an internationalized domain name (begins with a combining mark)")
    for sign in label:
        if sign not in _CONTEXT and unicodedata.category(sign) not in _LETTERS:
            raise ValueError(f"not an internationalized domain name (U+{ord(sign):04X} in it)")
    return "xn--" + label.encode("punycode").decode("ascii")
