"""Fetches envelope and structure of every message in INBOX, and parses them strictly.

The first argument is the number of messages that have to be there.
"""

import imaplib
import sys

import settings
from settings import ALICE, HOST, PASSWORD, trust


class Parser:
    """The values of RFC 9051 §9 that FETCH answers are made of."""

    def __init__(self, text, literals):
        self.text, self.literals, self.at = text, list(literals), 0

    def value(self):
        first = self.text[self.at : self.at + 1]
        if first == b"(":
            return self.list()
        if first == b'"':
            return self.quoted()
        if first == b"{":
            self.at = self.text.index(b"}", self.at) + 1
            return self.literals.pop(0)
        start = self.at
        while self.at < len(self.text) and self.text[self.at : self.at + 1] not in (b" ", b"(", b")"):
            self.at += 1
        assert self.at > start, (self.text, self.at)
        atom = self.text[start : self.at]
        return None if atom == b"NIL" else atom

    def list(self):
        values = []
        self.at += 1
        while self.text[self.at : self.at + 1] != b")":
            if self.text[self.at : self.at + 1] == b" ":
                assert values, self.text
                self.at += 1
            values.append(self.value())
        self.at += 1
        return values

    def quoted(self):
        out = bytearray()
        self.at += 1
        while self.text[self.at : self.at + 1] != b'"':
            if self.text[self.at : self.at + 1] == b"\\":
                self.at += 1
                assert self.text[self.at : self.at + 1] in (b'"', b"\\"), self.text
            out += self.text[self.at : self.at + 1]
            self.at += 1
        self.at += 1
        return bytes(out)


def check_envelope(envelope):
    assert len(envelope) == 10, envelope
    for addresses in envelope[2:8]:
        assert addresses is None or addresses, envelope
        for address in addresses or ():
            assert len(address) == 4, envelope


def check_structure(body):
    if isinstance(body[0], list):
        parts = [part for part in body if isinstance(part, list)]
        assert any(isinstance(value, bytes) for value in body), body
        for part in parts[: next(i for i, value in enumerate(body) if not isinstance(value, list))]:
            check_structure(part)
        return
    assert len(body) >= 7, body
    kind, subtype, parameters, _, _, encoding, size = body[:7]
    assert kind and subtype and encoding, body
    assert parameters is None or len(parameters) % 2 == 0, body
    assert size.isdigit(), body
    if kind.upper() == b"TEXT":
        assert body[7].isdigit(), body
    if (kind.upper(), subtype.upper()) == (b"MESSAGE", b"RFC822"):
        check_envelope(body[7])
        check_structure(body[8])


def responses(data):
    """imaplib's pieces put together again: text with {} for literals, and the literals."""
    text, literals = b"", []
    for piece in data:
        if isinstance(piece, tuple):
            text += piece[0]
            literals.append(piece[1])
        else:
            text += piece
            yield text, literals
            text, literals = b"", []
    assert not text, text


def main():
    wanted = int(sys.argv[1])
    imap = imaplib.IMAP4_SSL(HOST, settings.IMAPS, ssl_context=trust())
    imap.login(ALICE, PASSWORD)
    _, count = imap.select("INBOX", readonly=True)
    assert int(count[0]) == wanted, count
    status, data = imap.uid(
        "FETCH", "1:*", "(FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)"
    )
    assert status == "OK", data
    seen = set()
    for text, literals in responses(data):
        number, _, rest = text.partition(b" ")
        parser = Parser(rest, literals)
        items = parser.value()
        assert parser.at == len(rest), rest
        fields = dict(zip(items[::2], items[1::2]))
        try:
            check_envelope(fields[b"ENVELOPE"])
            check_structure(fields[b"BODYSTRUCTURE"])
        except Exception:
            print(text, literals, file=sys.stderr)
            raise
        assert int(fields[b"RFC822.SIZE"]) > 0
        seen.add(int(number))
    assert seen == set(range(1, wanted + 1)), len(seen)
    imap.logout()


if __name__ == "__main__":
    main()
