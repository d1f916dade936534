//! Messages of almost 50 MB go in and out, and the server's memory does not grow by them.
//!
//! What is measured is the peak of the process's resident memory, on a server that has seen nothing
//! but one login, whose password check takes 19 MiB for a moment.

use blackbox::{
    message, noise, report,
    server::{ALICE, BOB, Server},
    smtp::Smtp,
};

/// Bytes of the message: below the default bound of 50 MiB, with room for added fields.
const MESSAGE_BYTES: usize = 50_000_000;

/// How much the server's resident memory may grow while the message passes: less than half of it.
/// Two to seven megabytes are usual; the allocator takes and gives back four at a time, and on a
/// busy machine more of them are out at once.
const GROWTH_MAX: u64 = 20_000_000;

/// Clients that send a large message at once.
const AT_ONCE: usize = 4;

/// How much it may grow while they do: a fifth of what is under way.
const GROWTH_AT_ONCE_MAX: u64 = 40_000_000;

/// Runs `pass`, and tells how much the server's memory grew meanwhile; it may by `growth_max`
/// bytes.
fn bounded<T>(server: &Server, what: &str, growth_max: u64, pass: impl FnOnce() -> T) -> T {
    server.reset_peak();
    let before = server.memory("VmRSS");
    let value = pass();
    match (before, server.memory("VmHWM")) {
        (Some(before), Some(peak)) => {
            let growth = peak.saturating_sub(before);
            report(&format!(
                "{what}: resident {:.1} MB before, {:.1} MB at its peak, {:.1} MB growth",
                before as f64 / 1e6,
                peak as f64 / 1e6,
                growth as f64 / 1e6
            ));
            assert!(growth < growth_max, "{what}: {growth} bytes");
        }
        _ => report(&format!("skipped: no /proc here, so {what} is not measured")),
    }
    value
}

#[test]
fn a_50_mb_message_needs_no_50_mb_of_memory() {
    let server = Server::start();
    let mail = message(BOB, ALICE, "large", &noise(MESSAGE_BYTES));
    let mut imap = server.imap(ALICE);
    imap.ok("SELECT INBOX");
    let new = 1;

    bounded(&server, "50 MB in by SMTP", GROWTH_MAX, || {
        Smtp::exchange(&server).deliver(BOB, ALICE, mail.as_bytes());
    });
    imap.ok("NOOP");
    let body = bounded(&server, "50 MB out by IMAP", GROWTH_MAX, || imap.body(new));
    assert!(body.ends_with(mail.as_bytes()), "the message is not what was sent");
    let shown = imap.ok(&format!("UID FETCH {new} (RFC822.SIZE)"));
    assert!(shown.find(&format!("RFC822.SIZE {}", body.len())).is_some(), "{shown:?}");
    bounded(&server, "50 MB in by APPEND", GROWTH_MAX, || {
        imap.append("INBOX", "\\Seen", mail.as_bytes());
    });
    let body = bounded(&server, "the same out by IMAP", GROWTH_MAX, || imap.body(new + 1));
    assert!(body == mail.as_bytes(), "the message is not what was appended");
    let part = imap.ok(&format!("UID FETCH {} (BODY.PEEK[]<49000000.1000>)", new + 1));
    let part = &part.untagged[0].literals[0];
    assert!(part == &mail.as_bytes()[49_000_000..49_001_000]);

    // None of them ends before all are there: what is not committed takes no memory either.
    let mut clients = Vec::new();
    let what = format!("{AT_ONCE} times 50 MB in at once");
    bounded(&server, &what, GROWTH_AT_ONCE_MAX, || {
        for number in 0..AT_ONCE {
            let mut smtp = Smtp::exchange(&server);
            smtp.envelope(BOB, &[ALICE]);
            smtp.expect("DATA", 354);
            smtp.wire().send(format!("X-Number: {number}\r\n").as_bytes());
            smtp.wire().send(mail.as_bytes());
            clients.push(smtp);
        }
        for smtp in &mut clients {
            smtp.wire().send(b".\r\n");
            let reply = smtp.reply();
            assert_eq!(reply.code, 250, "{reply}");
        }
    });
}
