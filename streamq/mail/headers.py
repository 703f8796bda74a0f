"""Header fields as wire text: encoded words (RFC 2047), phrases and addresses (RFC 5322), folding.

All functions are total: what may stand in a value (no CR, LF, NUL) is checked before, by the field's rule.
Lines are at most 78 characters wherever there is a blank to fold at, and never over 998 octets.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Callable, Iterable

from streamq.mail.address import Address

__all__ = ["MAX_FIELD", "about", "address_field", "fault", "is_too_long", "parameter_field", "text_field"]

# Octets of one field with its folds: what is beyond 102,400 (header_size_limit) is another header to Postfix, or body
MAX_FIELD = 102_000
GROWTH = 5  # times the octets of a value that its field may take: encoded words of one letter each, A-labels, folds
LINE = 78  # RFC 5322, section 2.1.1
CODED_LINE = 76  # RFC 2047, section 2: a line that holds an encoded word
CODED_WORD = 75
CODED_FRAME = len("=?utf-8?q??=")
SHORTEST = 30  # an encoded word with less room than this begins on a line of its own
LONGEST = 900  # a word over this would come near 998 with its neighbours: it is encoded

# Made of words that programs read: an encoded word may not stand in them (RFC 2047, section 5)
STRUCTURED = frozenset(
    {
        *("references", "in-reply-to", "auto-submitted", "feedback-id", "autocrypt", "autocrypt-gossip", "openpgp"),
        *("archived-at", "supersedes", "expires", "thread-index"),
        *("list-id", "list-help", "list-unsubscribe", "list-unsubscribe-post", "list-subscribe", "list-post"),
        *("list-owner", "list-archive"),
    }
)

VISIBLE = re.compile(r"[!-~]++(?>(?:[ \t]++[!-~]++)*)")
STEP = re.compile(r"[ \t]*[^ \t]+")
PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]++(?>(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]++)*)")
QUOTABLE = re.compile(r"[ -~]{1,60}")

# RFC 2047, section 5 (3): the set that is safe in phrases too, so that one table does for all places
Q_SAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/ "
Q_TABLE = [chr(code) if code in Q_SAFE and code != 32 else f"={code:02X}" for code in range(256)]
Q_TABLE[32] = "_"


def fault(name: str, value: str) -> str:
    """Why a field that its producer named cannot be written, "" where it can: one that programs read must be ASCII, and
    a word of ASCII fits a line: encoded, as a Subject's would be, programs would not find it again."""
    if VISIBLE.fullmatch(value):
        if len(value) <= LONGEST or max(map(len, value.split())) <= LONGEST:
            return ""
        return f"a word of more than {LONGEST} characters, which no line holds (RFC 5322, 2.1.1): part it by blanks"
    return "not ASCII, and programs that read it decode nothing" if name.lower() in STRUCTURED else ""


def text_field(name: str, value: str) -> str:
    """A field that is no address list, folded, without its last CRLF. Unfolding and decoding gives back `value`."""
    if VISIBLE.fullmatch(value) and ("=?" not in value or name.lower() in STRUCTURED):
        if len(name) + 2 + len(value) <= LINE:
            return f"{name}: {value}"
        steps = STEP.findall(value)
        if max(map(len, steps)) <= LONGEST:
            return _folded(f"{name}: {steps[0]}", steps[1:], LINE)
    room = CODED_LINE - len(name) - 2
    if room < SHORTEST:
        return f"{name}:\r\n " + "\r\n ".join(_encoded_words(value, CODED_WORD))
    return f"{name}: " + "\r\n ".join(_encoded_words(value, room))


def is_too_long(octets: int, made: Callable[[], str]) -> bool:
    """Whether the field that is made of a value of so many octets is over `MAX_FIELD`; made only where it may be."""
    return octets * GROWTH > MAX_FIELD and len(made().encode()) > MAX_FIELD


def address_field(name: str, addresses: Iterable[Address]) -> str:
    """An address list, folded, without its last CRLF."""
    first, *others = addresses
    steps = _address(first, LINE - len(name) - 1)
    steps += [step for address in others for step in _address(address, LINE)]
    steps[-1] = steps[-1][:-1]  # the last comma
    return _folded(f"{name}:{steps[0]}", steps[1:], CODED_LINE)


def parameter_field(name: str, value: str, parameters: Iterable[str]) -> str:
    """A MIME field (RFC 2045, section 5.1), a parameter on the next line where the last one is full."""
    steps = [f" {step};" for step in (value, *parameters)]
    steps[-1] = steps[-1][:-1]  # the last semicolon
    return _folded(f"{name}:{steps[0]}", steps[1:], LINE)


def _address(address: Address, room: int) -> list[str]:
    """The words of `Name <local@domain>,`, each with the blank before it; of what can only be put on a line as a whole
    the first is at most `room` long."""
    name, local, domain = address
    if not name:
        return [f" {local}@{domain},"]
    spec = f" <{local}@{domain}>,"
    if "=?" not in name and len(name) <= LONGEST:
        if PHRASE.fullmatch(name):
            return [*(" " + word for word in name.split(" ")), spec]
        if QUOTABLE.fullmatch(name):
            quoted = name.replace("\\", "\\\\").replace('"', '\\"')
            if len(quoted) + len(' ""') <= room:
                return [f' "{quoted}"', spec]
    first = max(SHORTEST, min(SHORTEST * 2, room - (LINE - CODED_LINE) - 1))
    return [*(" " + word for word in _encoded_words(name, first)), spec]


def _folded(line: str, steps: Iterable[str], limit: int) -> str:
    """Steps (a blank, a word) put on lines. `line` has the name and the first word already: some readers take
    a field whose first line is empty for an empty field."""
    lines = []
    for step in steps:
        if len(line) + len(step) > limit:
            lines.append(line)
            line = step
        else:
            line += step
    lines.append(line)
    return "\r\n".join(lines)


def about(value: str) -> int:
    """Octets of a text in a header, nearly: as encoded words, where it is not ASCII."""
    if value.isascii():
        return len(value)
    data = value.encode()
    coded = min(len(data) + 2 * len(data.translate(None, Q_SAFE)), len(data) * 4 // 3 + 4)
    return coded + (coded // (CODED_WORD - CODED_FRAME) + 1) * (CODED_FRAME + 3)


def _encoded_words(value: str, first: int) -> list[str]:
    """The whole value as encoded words: at most `first` characters the first one, 75 the others.

    Whole, though a plain word among them would stay readable: blanks between encoded words vanish, blanks
    beside plain ones are kept, and only one rule can be got right by every reader. Characters are not split
    (section 5). Q or B: whichever is shorter.
    """
    data = value.encode()
    unsafe = len(data.translate(None, Q_SAFE))
    q = unsafe * 6 < len(data)  # len + 2 unsafe < 4/3 len
    room = first - CODED_FRAME
    if q and len(data) + 2 * unsafe <= room:  # most names and subjects
        return [_encoded_word(data, q)]
    words = []
    at = 0
    while at < len(data):
        end = _cut(data, at, room, q)
        words.append(_encoded_word(data[at:end], q))
        at = end
        room = CODED_WORD - CODED_FRAME
    return words


def _encoded_word(data: bytes, q: bool) -> str:
    if q:
        return f"=?utf-8?q?{''.join([Q_TABLE[code] for code in data])}?="
    return f"=?utf-8?b?{b2a_base64(data, newline=False).decode('ascii')}?="


def _cut(data: bytes, at: int, room: int, q: bool) -> int:
    """Where the encoded word that begins at `at` must end, for its text to be at most `room` long."""
    if q:
        end = at
        for code in data[at : at + room]:
            room -= len(Q_TABLE[code])
            if room < 0:
                break
            end += 1
    else:
        end = at + room // 4 * 3
    if end >= len(data):
        return len(data)
    while data[end] & 0xC0 == 0x80:  # the middle of a character (RFC 3629)
        end -= 1
    return end
