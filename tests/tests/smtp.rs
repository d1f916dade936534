//! SMTP with bytes that no good client sends, and addresses that the command line makes.

use blackbox::{
    imap::Imap,
    message,
    server::{ALICE, BOB, PASSWORD, Server},
    smtp::{Reply, Smtp},
};

const SENDER: &str = "sender@elsewhere.example";

/// How many messages are in a user's INBOX.
fn count(imap: &mut Imap) -> usize {
    imap.ok("EXAMINE INBOX");
    imap.ok("UID SEARCH ALL").search().len()
}

#[track_caller]
fn has(reply: &Reply, code: u16, enhanced: &str) {
    assert_eq!(reply.code, code, "{reply}");
    assert!(reply.lines[0].starts_with(enhanced), "{reply}");
}

#[test]
fn no_other_end_of_data_is_let_through() {
    let server = Server::start();
    let mut imap = server.imap(ALICE);
    let smuggled = format!(
        "MAIL FROM:<admin@example.org>\r\nRCPT TO:<{ALICE}>\r\nDATA\r\nSubject: smuggled\r\n\r\nx"
    );
    for end in [
        "\n.\n",
        "\r\n.\n",
        "\n.\r\n",
        "\r.\r",
        "\r\n.\r",
        "\r.\r\n",
        "\n.\r",
        "\r.\n",
        "\n",
        "\r",
        "\r\r\n",
        "\r\n\0.\r\n",
    ] {
        let mut smtp = Smtp::exchange(&server);
        smtp.envelope(SENDER, &[ALICE]);
        smtp.expect("DATA", 354);
        let data = format!("Subject: outer\r\n\r\nouter{end}{smuggled}\r\n.\r\n");
        smtp.wire().send(data.as_bytes());
        if end.contains('\0') {
            // No line end at all: taken as a byte of the message, or refused with it.
            let reply = smtp.reply();
            assert!(reply.code == 250 || reply.code / 100 == 5, "{end:?}: {reply}");
        } else {
            let reply = smtp.reply();
            assert_eq!(reply.code, 550, "{end:?}: {reply}");
            assert!(reply.lines[0].starts_with("5.6.11"), "{end:?}: {reply}");
        }
        // Nothing within was taken for a command: the next reply is the next command's.
        smtp.expect("HELP", 214);
        smtp.expect("QUIT", 221);
    }
    imap.ok("EXAMINE INBOX");
    assert_eq!(
        imap.ok("UID SEARCH SUBJECT smuggled NOT SUBJECT outer").search(),
        Vec::<u32>::new()
    );
    assert!(count(&mut imap) <= 1);
}

#[test]
fn bdat_takes_what_data_refuses_to_guess() {
    let server = Server::start();
    let mail = message(SENDER, ALICE, "bdat", "a line of dots\r\n.\r\n..\r\nend");
    let (first, rest) = mail.as_bytes().split_at(40);
    let mut smtp = Smtp::exchange(&server);
    smtp.envelope(SENDER, &[ALICE]);
    smtp.wire().send(format!("BDAT {}\r\n", first.len()).as_bytes());
    smtp.wire().send(first);
    has(&smtp.reply(), 250, "2.");
    smtp.wire().send(format!("BDAT {} LAST\r\n", rest.len()).as_bytes());
    smtp.wire().send(rest);
    has(&smtp.reply(), 250, "2.");
    let mut imap = server.imap(ALICE);
    imap.ok("SELECT INBOX");
    assert!(imap.body(1).ends_with(mail.as_bytes()));
}

#[test]
fn commands_may_be_pipelined_up_to_data() {
    let server = Server::start();
    let mut smtp = Smtp::exchange(&server);
    let commands = format!(
        "MAIL FROM:<{SENDER}>\r\nRCPT TO:<{ALICE}>\r\nRCPT TO:<nobody@example.org>\r\nDATA\r\n"
    );
    smtp.wire().send(commands.as_bytes());
    assert_eq!(smtp.reply().code, 250);
    assert_eq!(smtp.reply().code, 250);
    has(&smtp.reply(), 550, "5.1.1");
    assert_eq!(smtp.reply().code, 354);
    let mail = message(SENDER, ALICE, "pipelined", "one");
    smtp.wire().send(format!("{mail}.\r\nNOOP\r\nQUIT\r\n").as_bytes());
    assert_eq!(smtp.reply().code, 250);
    assert_eq!(smtp.reply().code, 250);
    assert_eq!(smtp.reply().code, 221);
}

#[test]
fn what_is_sent_before_the_handshake_is_discarded() {
    let server = Server::start();
    let mut smtp = Smtp::connect(server.ports.submission).expect("the server accepts");
    let clear = smtp.expect("EHLO client.blackbox.test", 250);
    assert!(!clear.lines.iter().any(|line| line.starts_with("AUTH")), "AUTH in clear: {clear}");
    assert_eq!(smtp.command("AUTH PLAIN AGJvYgBwYXNz").code / 100, 5);
    // RFC 3207 §4.2, in one packet, so that it lies in the server's buffer.
    let injected = format!("STARTTLS\r\nEHLO evil.example\r\nMAIL FROM:<{SENDER}>\r\n");
    smtp.wire().send(injected.as_bytes());
    assert_eq!(smtp.reply().code, 220);
    let mut smtp = smtp.start_tls(&server);
    // A reply to what was injected would come first; and the greeting is forgotten too.
    has(&smtp.command("VRFY postmaster"), 252, "2.");
    assert_eq!(smtp.command(&format!("MAIL FROM:<{BOB}>")).code / 100, 5);
    let secure = smtp.expect("EHLO client.blackbox.test", 250);
    assert!(secure.lines.iter().any(|line| line.starts_with("AUTH ")), "{secure}");
    assert!(!secure.lines.iter().any(|line| line == "STARTTLS"), "{secure}");
}

#[test]
fn recipients_are_known_or_refused() {
    let server = Server::start();
    let mut smtp = Smtp::exchange(&server);
    smtp.expect(&format!("MAIL FROM:<{SENDER}>"), 250);
    has(&smtp.command("RCPT TO:<nobody@example.org>"), 550, "5.1.1");
    has(&smtp.command("RCPT TO:<someone@elsewhere.example>"), 550, "5.7.1");
    smtp.expect("RCPT TO:<ALICE@Example.ORG>", 250);
    smtp.expect("RCPT TO:<alice+tag@example.org>", 250);
    // RFC 5321 §4.5.1: a development node begins with one; where there is somebody, every
    // postmaster is that one.
    smtp.expect("RCPT TO:<Postmaster>", 250);
    server.cli(&["alias", "remove", "postmaster@example.org"]);
    has(&smtp.command("RCPT TO:<Postmaster>"), 550, "5.1.1");
    server.cli(&["alias", "add", "postmaster@example.org", BOB]);
    smtp.expect("RCPT TO:<Postmaster>", 250);
    smtp.expect("RCPT TO:<postmaster@example.org>", 250);
}

#[test]
fn addresses_made_on_the_command_line_work_at_once() {
    let server = Server::start();
    server.cli(&["domain", "add", "second.example"]);
    server.cli(&["account", "add", "carol@second.example", "--password-stdin"]);
    server.cli(&["alias", "add", "info@example.org", ALICE]);
    server.cli(&["alias", "add", "both@second.example", ALICE, "carol@second.example"]);
    server.cli(&["group", "add", "team@example.org", BOB, "info@example.org"]);
    let mut smtp = Smtp::exchange(&server);
    has(&refused(&mut smtp, "anyone@second.example"), 550, "5.1.1");
    server.cli(&["domain", "catch-all", "second.example", BOB]);

    let mut alice = server.imap(ALICE);
    let mut bob = server.imap(BOB);
    let mut carol = Imap::login(&server, "carol@second.example", PASSWORD);
    let mut expected = [0, 0, 0];
    for (to, reaches) in [
        ("info@example.org", [1, 0, 0]),
        ("info+tag@example.org", [1, 0, 0]),
        ("both@second.example", [1, 0, 1]),
        ("team@example.org", [1, 1, 0]),
        ("carol@second.example", [0, 0, 1]),
        ("anyone@second.example", [0, 1, 0]),
    ] {
        let mail = message(SENDER, to, &to.replace(['@', '.'], "-"), "by a made address");
        smtp.deliver(SENDER, to, mail.as_bytes());
        let now = [count(&mut alice), count(&mut bob), count(&mut carol)];
        for (expected, more) in expected.iter_mut().zip(reaches) {
            *expected += more;
        }
        assert_eq!(now, expected, "{to}");
    }
    // Two ways to one mailbox are one message.
    let mail = message(SENDER, ALICE, "twice", "two ways");
    smtp.envelope(SENDER, &[ALICE, "info@example.org", "team@example.org"]);
    assert_eq!(smtp.data(mail.as_bytes()).code, 250);
    assert_eq!(count(&mut alice), expected[0] + 1);

    server.cli(&["alias", "remove", "info@example.org"]);
    has(&refused(&mut smtp, "info@example.org"), 550, "5.1.1");
    server.cli(&["domain", "catch-all", "second.example", "none"]);
    has(&refused(&mut smtp, "anyone@second.example"), 550, "5.1.1");
    server.cli(&["account", "remove", "carol@second.example"]);
    has(&refused(&mut smtp, "carol@second.example"), 550, "5.1.1");
    let listed = server.cli(&["account", "list"]);
    assert!(listed.contains(ALICE) && !listed.contains("carol"), "{listed}");
}

/// The reply to a recipient who has to be refused.
#[track_caller]
fn refused(smtp: &mut Smtp, to: &str) -> Reply {
    smtp.expect("RSET", 250);
    smtp.expect(&format!("MAIL FROM:<{SENDER}>"), 250);
    let reply = smtp.command(&format!("RCPT TO:<{to}>"));
    smtp.expect("RSET", 250);
    reply
}

#[test]
fn a_full_mailbox_takes_no_more() {
    let server = Server::start();
    server.cli(&["account", "quota", ALICE, "100KiB"]);
    let body = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(960);
    let mut smtp = Smtp::exchange(&server);
    let mail = message(SENDER, ALICE, "fits", &body);
    smtp.deliver(SENDER, ALICE, mail.as_bytes());
    let mail = message(SENDER, ALICE, "too-much", &body);
    smtp.expect(&format!("MAIL FROM:<{SENDER}>"), 250);
    let to = smtp.command(&format!("RCPT TO:<{ALICE}>"));
    let reply = if to.code == 250 { smtp.data(mail.as_bytes()) } else { to };
    over_quota(&reply);
    // With a size announced, it is refused before a byte is sent.
    smtp.expect("RSET", 250);
    smtp.expect(&format!("MAIL FROM:<{SENDER}> SIZE={}", mail.len()), 250);
    let reply = smtp.command(&format!("RCPT TO:<{ALICE}>"));
    over_quota(&reply);
    // Others are not held up by it: LMTP tells each recipient's own result.
    let mut lmtp = Smtp::lmtp(&server);
    lmtp.expect(&format!("MAIL FROM:<{SENDER}>"), 250);
    let alice = lmtp.command(&format!("RCPT TO:<{ALICE}>"));
    lmtp.expect(&format!("RCPT TO:<{BOB}>"), 250);
    let first = lmtp.data(mail.as_bytes());
    let bob = if alice.code == 250 {
        over_quota(&first);
        lmtp.reply()
    } else {
        over_quota(&alice);
        first
    };
    assert_eq!(bob.code, 250, "{bob}");
    let mut imap = server.imap(ALICE);
    assert_eq!(count(&mut imap), 1);
    assert_eq!(count(&mut server.imap(BOB)), 1);
    let tag = imap.send(&format!("APPEND INBOX {{{}}}", mail.len()));
    let more = imap.response().text;
    let status = match more.strip_prefix(&format!("{tag} ")) {
        Some(status) => status.to_owned(),
        None => {
            imap.wire().send(format!("{mail}\r\n").as_bytes());
            imap.answer(&tag).status
        }
    };
    assert!(status.starts_with("NO [OVERQUOTA]"), "{status}");
    // Room is room again.
    imap.ok("SELECT INBOX");
    imap.ok("STORE 1 +FLAGS.SILENT (\\Deleted)");
    imap.ok("EXPUNGE");
    smtp.expect("RSET", 250);
    smtp.deliver(SENDER, ALICE, mail.as_bytes());
}

#[track_caller]
fn over_quota(reply: &Reply) {
    let enhanced = reply.lines[0].get(..5).unwrap_or_default();
    let known = [(452, "4.2.2"), (552, "5.2.2"), (552, "4.2.2")];
    assert!(known.contains(&(reply.code, enhanced)), "{reply}");
}
