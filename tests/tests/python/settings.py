"""What the harness tells the scripts, and how to trust the server's certificate."""

import os
import ssl

HOST = "localhost"
SMTP = int(os.environ["SMTP"])
SUBMISSION = int(os.environ["SUBMISSION"])
SUBMISSIONS = int(os.environ["SUBMISSIONS"])
LMTP = int(os.environ["LMTP"])
IMAP = int(os.environ["IMAP"])
IMAPS = int(os.environ["IMAPS"])
ALICE = os.environ["ALICE"]
BOB = os.environ["BOB"]
PASSWORD = os.environ["PASSWORD"]
CONTENT = os.environ["CONTENT"]
TIMEOUT_SECONDS = 60


def trust():
    """A context that trusts the server's own certificate alone, and checks its name."""
    return ssl.create_default_context(cafile=os.environ["CERTIFICATE"])


def message(identity, extra_fields=(), body=()):
    """A message with CRLF line ends, as bytes; its Message-ID is IDENTITY@python.test."""
    fields = [
        f"From: {BOB}",
        f"To: {ALICE}",
        f"Subject: {identity}",
        "Date: Thu, 1 Jan 2026 12:00:00 +0000",
        f"Message-ID: <{identity}@python.test>",
        *extra_fields,
    ]
    lines = [*fields, "", CONTENT, *body, ""]
    return "\r\n".join(lines).encode()
