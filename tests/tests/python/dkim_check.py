"""Checks every DKIM signature of a message with dkimpy.

The message is read from standard input; the first argument is a JSON object of names and texts, which is
what DNS says. Prints the algorithm of each signature that is good; fails where one is not.
"""

import json
import re
import sys

import dkim

message = sys.stdin.buffer.read()
texts = json.loads(sys.argv[1])


def look_up(name, timeout=5):
    return texts.get(name.decode().rstrip(".").lower(), "").encode()


checker = dkim.DKIM(message)
count = sum(1 for name, _ in checker.headers if name.lower() == b"dkim-signature")
for index in range(count):
    if not checker.verify(idx=index, dnsfunc=look_up):
        sys.exit("signature %d is not good" % index)
    fields = re.sub(rb"\s+", b"", checker.signature_fields[b"a"])
    print(fields.decode())
