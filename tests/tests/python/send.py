"""Sends with smtplib, in every way it can, and reads back what arrived with imaplib."""

import imaplib
import smtplib
import unittest
from email.message import EmailMessage
from email.policy import SMTPUTF8

import settings
from settings import ALICE, BOB, HOST, PASSWORD, TIMEOUT_SECONDS, message, trust


def exchange():
    return smtplib.SMTP(HOST, settings.SMTP, "client.python.test", TIMEOUT_SECONDS)


def submission():
    smtp = smtplib.SMTP(HOST, settings.SUBMISSION, "client.python.test", TIMEOUT_SECONDS)
    smtp.starttls(context=trust())
    return smtp


def submissions():
    return smtplib.SMTP_SSL(
        HOST, settings.SUBMISSIONS, "client.python.test", timeout=TIMEOUT_SECONDS, context=trust()
    )


class Send(unittest.TestCase):
    def arrived(self, user, identity):
        """The one message with this Message-ID in the user's INBOX."""
        with imaplib.IMAP4_SSL(HOST, settings.IMAPS, ssl_context=trust()) as imap:
            imap.login(user, PASSWORD)
            imap.select("INBOX", readonly=True)
            wanted = f'"<{identity}@python.test>"'
            _, found = imap.search(None, "HEADER", "Message-ID", wanted)
            numbers = found[0].split()
            self.assertEqual(len(numbers), 1, f"{identity} at {user}: {numbers}")
            _, parts = imap.fetch(numbers[0], "(BODY.PEEK[])")
            return parts[0][1]

    def assert_arrived(self, user, identity, sent):
        got = self.arrived(user, identity)
        self.assertTrue(got.endswith(sent), f"sent {sent!r}, got {got!r}")
        added = got[: -len(sent)]
        self.assertIn(b"Received:", added)
        self.assertTrue(added.endswith(b"\r\n"))

    def test_exchange(self):
        with exchange() as smtp:
            smtp.ehlo()
            for feature in (
                "size", "8bitmime", "smtputf8", "pipelining", "chunking", "binarymime",
                "starttls", "enhancedstatuscodes", "dsn",
            ):
                self.assertTrue(smtp.has_extn(feature), f"{feature}: {smtp.esmtp_features}")
            self.assertFalse(smtp.has_extn("auth"), "AUTH in clear")
            sent = message("exchange")
            self.assertEqual(smtp.sendmail(BOB, [ALICE], sent), {})
        self.assert_arrived(ALICE, "exchange", sent)

    def test_dots_and_long_lines(self):
        sent = message("dots", body=[".", "..", ".a", "x" * 990, "", "."])
        with exchange() as smtp:
            smtp.sendmail(BOB, [ALICE], sent)
        self.assert_arrived(ALICE, "dots", sent)

    def test_exchange_over_tls(self):
        with exchange() as smtp:
            smtp.starttls(context=trust())
            smtp.ehlo()
            self.assertFalse(smtp.has_extn("starttls"), "STARTTLS within TLS")
            sent = message("exchange-tls")
            smtp.sendmail(BOB, [ALICE], sent)
        self.assert_arrived(ALICE, "exchange-tls", sent)

    def test_submission(self):
        with smtplib.SMTP(HOST, settings.SUBMISSION, timeout=TIMEOUT_SECONDS) as smtp:
            smtp.ehlo()
            self.assertFalse(smtp.has_extn("auth"), "AUTH in clear")
            smtp.starttls(context=trust())
            smtp.ehlo()
            offered = smtp.esmtp_features["auth"].split()
            for mechanism in ("PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"):
                self.assertIn(mechanism, offered)
            smtp.login(BOB, PASSWORD)
            sent = message("submission")
            self.assertEqual(smtp.sendmail(BOB, [ALICE, BOB], sent), {})
        self.assert_arrived(ALICE, "submission", sent)
        self.assert_arrived(BOB, "submission", sent)

    def test_submissions_with_each_mechanism(self):
        for mechanism, respond in (("PLAIN", "auth_plain"), ("LOGIN", "auth_login")):
            with submissions() as smtp:
                smtp.ehlo()
                smtp.user, smtp.password = BOB, PASSWORD
                smtp.auth(mechanism, getattr(smtp, respond))
                sent = message(f"submissions-{mechanism}")
                smtp.sendmail(BOB, [ALICE], sent)
            self.assert_arrived(ALICE, f"submissions-{mechanism}", sent)

    def test_submission_adds_what_is_missing(self):
        sent = f"From: {BOB}\r\nTo: {ALICE}\r\nSubject: bare\r\n\r\n{settings.CONTENT}\r\n".encode()
        with submissions() as smtp:
            smtp.login(BOB, PASSWORD)
            smtp.sendmail(BOB, [ALICE], sent)
        with imaplib.IMAP4_SSL(HOST, settings.IMAPS, ssl_context=trust()) as imap:
            imap.login(ALICE, PASSWORD)
            imap.select("INBOX", readonly=True)
            _, found = imap.search(None, "SUBJECT", "bare")
            _, parts = imap.fetch(found[0].split()[0], "(BODY.PEEK[HEADER])")
            header = parts[0][1].lower()
        self.assertIn(b"\r\nmessage-id: <", b"\r\n" + header)
        self.assertIn(b"\r\ndate: ", b"\r\n" + header)

    def test_submission_needs_a_login(self):
        with submission() as smtp:
            with self.assertRaises(smtplib.SMTPSenderRefused) as refused:
                smtp.sendmail(BOB, [ALICE], message("no-login"))
            self.assertEqual(refused.exception.smtp_code, 530)

    def test_a_wrong_password_is_refused(self):
        with submission() as smtp:
            with self.assertRaises(smtplib.SMTPAuthenticationError) as refused:
                smtp.login(BOB, "not-the-password")
            self.assertEqual(refused.exception.smtp_code, 535)

    def test_the_sender_has_to_be_ones_own(self):
        with submission() as smtp:
            smtp.login(BOB, PASSWORD)
            with self.assertRaises(smtplib.SMTPException) as refused:
                smtp.sendmail(ALICE, [ALICE], message("not-mine"))
            self.assertIn("5.7.1", str(refused.exception))

    def test_no_relay(self):
        with exchange() as smtp:
            with self.assertRaises(smtplib.SMTPRecipientsRefused) as refused:
                smtp.sendmail(BOB, ["someone@elsewhere.example"], message("relay"))
            code, text = refused.exception.recipients["someone@elsewhere.example"]
            self.assertEqual((code, text[:5]), (550, b"5.7.1"))

    def test_several_recipients(self):
        nobody = "nobody@example.org"
        sent = message("several")
        with exchange() as smtp:
            refused = smtp.sendmail("someone@elsewhere.example", [ALICE, nobody, BOB], sent)
        self.assertEqual(list(refused), [nobody])
        self.assertEqual((refused[nobody][0], refused[nobody][1][:5]), (550, b"5.1.1"))
        self.assert_arrived(ALICE, "several", sent)
        self.assert_arrived(BOB, "several", sent)

    def test_8bitmime(self):
        fields = ("MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8",
                  "Content-Transfer-Encoding: 8bit")
        sent = message("eight", fields, ["Grüße, Ἀλίκη, アリス"])
        with exchange() as smtp:
            smtp.sendmail(BOB, [ALICE], sent, mail_options=["BODY=8BITMIME"])
        self.assert_arrived(ALICE, "eight", sent)

    def test_smtputf8(self):
        mail = EmailMessage(policy=SMTPUTF8)
        mail["From"] = "Пример <пример@elsewhere.example>"
        mail["To"] = ALICE
        mail["Subject"] = "こんにちは"
        mail["Message-ID"] = "<utf8@python.test>"
        mail.set_content(settings.CONTENT + "\n")
        with exchange() as smtp:
            smtp.send_message(mail)
        got = self.arrived(ALICE, "utf8")
        self.assertIn("Subject: こんにちは\r\n".encode(), got)
        self.assertTrue(got.endswith(mail.as_bytes(policy=SMTPUTF8)[-40:]))

    def test_lmtp(self):
        sent = message("lmtp")
        with smtplib.LMTP(HOST, settings.LMTP, "client.python.test") as lmtp:
            lmtp.sendmail(BOB, [ALICE], sent)
        self.assert_arrived(ALICE, "lmtp", sent)

    def test_subaddresses(self):
        sent = message("tagged")
        with exchange() as smtp:
            smtp.sendmail(BOB, ["alice+lists@example.org"], sent)
        self.assert_arrived(ALICE, "tagged", sent)

    def test_too_large(self):
        with exchange() as smtp:
            smtp.ehlo()
            size = int(smtp.esmtp_features["size"]) + 1
            self.assertEqual(smtp.mail(BOB, [f"SIZE={size}"])[0], 552)


if __name__ == "__main__":
    unittest.main()
