"""Reads and changes mail with imaplib, as a mail program does."""

import imaplib
import re
import unittest

import settings
from settings import ALICE, HOST, PASSWORD, message, trust

PARTS = b"\r\n".join([
    b"From: Bob <bob@example.org>",
    b"To: Alice <alice@example.org>",
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=",
    b"Date: Thu, 1 Jan 2026 12:00:00 +0000",
    b"Message-ID: <parts@python.test>",
    b"MIME-Version: 1.0",
    b'Content-Type: multipart/mixed; boundary="b"',
    b"",
    b"--b",
    b"Content-Type: text/plain; charset=utf-8",
    b"",
    b"first part",
    b"--b",
    b'Content-Type: application/octet-stream; name="a.bin"',
    b"Content-Transfer-Encoding: base64",
    b"",
    b"AAECAwQF",
    b"--b--",
    b"",
])


class Read(unittest.TestCase):
    def setUp(self):
        self.imap = imaplib.IMAP4_SSL(HOST, settings.IMAPS, ssl_context=trust())
        self.imap.login(ALICE, PASSWORD)
        self.box = self._testMethodName
        self.ok(self.imap.create(self.box))

    def tearDown(self):
        self.imap.logout()

    def ok(self, response):
        self.assertEqual(response[0], "OK", response)
        return response[1]

    def fill(self, *identities):
        for identity in identities:
            self.ok(self.imap.append(self.box, None, None, message(identity)))
        return int(self.ok(self.imap.select(self.box))[0])

    def test_capabilities(self):
        for name in (
            "IMAP4REV1", "IMAP4REV2", "ENABLE", "ID", "LITERAL+", "SASL-IR", "NAMESPACE",
            "CHILDREN", "SPECIAL-USE", "UIDPLUS", "MOVE", "IDLE", "UNSELECT", "ESEARCH",
            "LIST-EXTENDED", "LIST-STATUS", "CONDSTORE",
        ):
            # RFC 7888 §4: LITERAL+ and LITERAL- are not offered at once.
            names = ("LITERAL+", "LITERAL-") if name == "LITERAL+" else (name,)
            offered = self.imap.capabilities + tuple(
                self.ok(self.imap.capability())[0].decode().upper().split()
            )
            self.assertTrue(any(one in offered for one in names), f"{name}: {offered}")

    def test_list(self):
        self.ok(self.imap.create(f"{self.box}/inner"))
        listed = [line.decode() for line in self.ok(self.imap.list())]
        names = [re.search(r'"?([^" ]+)"?$', line).group(1) for line in listed]
        self.assertIn("INBOX", names)
        self.assertIn(self.box, names)
        self.assertIn(f"{self.box}/inner", names)
        only = self.ok(self.imap.list(f"{self.box}/", "%"))
        self.assertEqual(len(only), 1, only)
        self.ok(self.imap.rename(f"{self.box}/inner", f"{self.box}/other"))
        self.ok(self.imap.subscribe(f"{self.box}/other"))
        self.assertTrue(any(b"other" in line for line in self.ok(self.imap.lsub())))
        self.ok(self.imap.delete(f"{self.box}/other"))
        self.assertTrue(self.ok(self.imap.namespace()))

    def test_append_and_fetch(self):
        data = self.ok(self.imap.append(self.box, r"(\Seen $Work)", None, PARTS))
        self.assertIn(b"APPENDUID", data[0])
        self.assertEqual(self.ok(self.imap.select(self.box)), [b"1"])

        def literal(item):
            part = self.ok(self.imap.fetch("1", f"({item})"))[0]
            self.assertIsInstance(part, tuple, part)
            return part[1]

        self.assertEqual(literal("BODY.PEEK[]"), PARTS)
        self.assertEqual(literal("RFC822"), PARTS)
        header, body = PARTS.split(b"\r\n\r\n", 1)
        self.assertEqual(literal("BODY.PEEK[HEADER]"), header + b"\r\n\r\n")
        self.assertEqual(literal("BODY.PEEK[TEXT]"), body)
        self.assertEqual(literal("BODY.PEEK[]<10.20>"), PARTS[10:30])
        one = self.imap.fetch("1", "(BODY.PEEK[1])")
        self.assertIn(b"first part", str(one).encode())
        two = self.imap.fetch("1", "(BODY.PEEK[2])")
        self.assertIn(b"AAECAwQF", str(two).encode())
        subject = str(self.imap.fetch("1", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])"))
        self.assertIn("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", subject)
        shown = str(self.ok(self.imap.fetch("1", "(FLAGS RFC822.SIZE UID INTERNALDATE ENVELOPE)")))
        # Keywords are the same in either case (RFC 9051 §2.3.2).
        self.assertIn("$work", shown.lower())
        for part in (r"\\Seen", f"RFC822.SIZE {len(PARTS)}", "UID 1",
                     "<parts@python.test>", '"Alice" NIL "alice" "example.org"'):
            self.assertIn(part, shown)
        structure = str(self.ok(self.imap.fetch("1", "(BODYSTRUCTURE)"))).upper()
        for part in ('"MIXED"', '"TEXT" "PLAIN"', '"BASE64"', '"A.BIN"'):
            self.assertIn(part, structure)

    def test_search(self):
        self.assertEqual(self.fill("alpha", "beta", "gamma"), 3)
        self.ok(self.imap.store("2", "+FLAGS", r"(\Flagged)"))

        def found(*criteria):
            return self.ok(self.imap.search(None, *criteria))[0].split()

        self.assertEqual(found("ALL"), [b"1", b"2", b"3"])
        self.assertEqual(found("FLAGGED"), [b"2"])
        self.assertEqual(found("NOT", "FLAGGED"), [b"1", b"3"])
        self.assertEqual(found("SUBJECT", "gam"), [b"3"])
        self.assertEqual(found("OR", "SUBJECT", "alpha", "FLAGGED"), [b"1", b"2"])
        self.assertEqual(found("BODY", settings.CONTENT[:12]), [b"1", b"2", b"3"])
        self.assertEqual(found("TEXT", "beta@python"), [b"2"])
        self.assertEqual(found("SENTON", "1-Jan-2026"), [b"1", b"2", b"3"])
        self.assertEqual(found("LARGER", "100000"), [])
        self.assertEqual(found("UID", "2:*"), [b"2", b"3"])

    def test_store_copy_expunge(self):
        self.fill("one", "two", "three")
        shown = self.ok(self.imap.store("1:2", "+FLAGS", r"(\Answered custom)"))
        self.assertEqual(len(shown), 2)
        self.ok(self.imap.store("2", "-FLAGS", "(custom)"))
        flags = [str(line) for line in self.ok(self.imap.fetch("1:3", "(FLAGS)"))]
        self.assertIn("custom", flags[0])
        self.assertNotIn("custom", flags[1])
        self.assertIn(r"\\Answered", flags[1])
        self.assertNotIn(r"\\Answered", flags[2])
        other = f"{self.box}-other"
        self.ok(self.imap.create(other))
        self.ok(self.imap.copy("1:2", other))
        self.ok(self.imap.uid("MOVE", "3", other))
        # imaplib keeps what MOVE brought until it is asked for.
        self.assertEqual(self.imap.response("EXPUNGE")[1], [b"3"])
        self.ok(self.imap.store("1", "+FLAGS", r"(\Deleted)"))
        self.assertEqual(self.ok(self.imap.expunge()), [b"1"])
        left = self.ok(self.imap.uid("SEARCH", "ALL"))[0].split()
        self.assertEqual(left, [b"2"])
        status = self.ok(self.imap.status(other, "(MESSAGES UIDNEXT UNSEEN)"))[0]
        for part in (b"MESSAGES 3", b"UIDNEXT 4", b"UNSEEN 3"):
            self.assertIn(part, status)
        self.assertEqual(self.ok(self.imap.select(other)), [b"3"])
        copied = str(self.ok(self.imap.fetch("1", "(FLAGS)")))
        self.assertIn("custom", copied)
        self.ok(self.imap.close())

    def test_seen(self):
        self.fill("unread")
        self.imap.fetch("1", "(BODY.PEEK[])")
        self.assertNotIn("Seen", str(self.imap.fetch("1", "(FLAGS)")))
        self.imap.fetch("1", "(BODY[])")
        self.assertIn("Seen", str(self.imap.fetch("1", "(FLAGS)")))
        self.assertEqual(self.ok(self.imap.select(self.box, readonly=True)), [b"1"])
        self.assertEqual(self.imap.store("1", "-FLAGS", r"(\Seen)")[0], "NO")

    def test_idle(self):
        self.fill()
        tag = self.imap._new_tag()
        self.imap.send(tag + b" IDLE\r\n")
        self.assertTrue(self.imap.readline().startswith(b"+"))
        with imaplib.IMAP4_SSL(HOST, settings.IMAPS, ssl_context=trust()) as other:
            other.login(ALICE, PASSWORD)
            other.append(self.box, None, None, message("wake"))
        while b"1 EXISTS" not in self.imap.readline():
            pass
        self.imap.send(b"DONE\r\n")
        line = self.imap.readline()
        while not line.startswith(tag):
            line = self.imap.readline()
        self.assertIn(b"OK", line)

    def test_starttls_and_sasl(self):
        with imaplib.IMAP4(HOST, settings.IMAP) as imap:
            self.assertIn("LOGINDISABLED", imap.capabilities)
            with self.assertRaises(imaplib.IMAP4.error):
                imap.login(ALICE, PASSWORD)
            imap.starttls(trust())
            self.assertNotIn("LOGINDISABLED", imap.capabilities)
            for name in ("AUTH=PLAIN", "AUTH=SCRAM-SHA-256"):
                self.assertIn(name, imap.capabilities)
            imap.authenticate("PLAIN", lambda _: f"\0{ALICE}\0{PASSWORD}".encode())
            self.assertEqual(self.ok(imap.select("INBOX"))[0].isdigit(), True)

    def test_a_wrong_password_is_refused(self):
        with imaplib.IMAP4_SSL(HOST, settings.IMAPS, ssl_context=trust()) as imap:
            with self.assertRaisesRegex(imaplib.IMAP4.error, "AUTHENTICATIONFAILED"):
                imap.login(ALICE, "not-the-password")

    def test_names_in_any_script(self):
        # RFC 3501 §5.1.3: modified UTF-7 before IMAP4rev2 is enabled.
        name = "&U,BTFw-"
        self.ok(self.imap.create(name))
        self.assertTrue(any(name.encode() in line for line in self.ok(self.imap.list())))
        self.ok(self.imap.select(name))
        self.ok(self.imap.delete(name))


if __name__ == "__main__":
    unittest.main()
