//! A message of almost 50 MB goes in and out, and the server's memory does not grow by it.

use blackbox::{
    message, report,
    server::{ALICE, BOB, Server},
    smtp::Smtp,
};

/// Bytes of the message: below the default bound of 50 MiB, with room for added fields.
const MESSAGE_BYTES: usize = 50_000_000;

/// How much the server's resident memory may grow while the message passes: half of it would be
/// a copy of it somewhere.
const GROWTH_MAX: u64 = 24_000_000;

/// Text that does not compress, in lines of 76 characters.
fn noise(bytes: usize) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut text = String::with_capacity(bytes + 80);
    while text.len() < bytes {
        for _ in 0..76 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push(char::from(alphabet[(state >> 58) as usize]));
        }
        text.push_str("\r\n");
    }
    text
}

/// Runs `pass`, and tells and bounds by how much the server's memory grew meanwhile.
fn bounded<T>(server: &Server, what: &str, pass: impl FnOnce() -> T) -> T {
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
            assert!(growth < GROWTH_MAX, "{what}: {growth} bytes");
        }
        _ => report(&format!("skipped: no /proc here, so {what} is not measured")),
    }
    value
}

#[test]
fn a_50_mb_message_needs_no_50_mb_of_memory() {
    let server = Server::start();
    let mail = message(BOB, ALICE, "large", &noise(MESSAGE_BYTES));
    // What every first message needs is not this one's.
    for number in 0..20 {
        let small = message(BOB, ALICE, &format!("small-{number}"), &noise(20_000));
        Smtp::exchange(&server).deliver(BOB, ALICE, small.as_bytes());
    }
    let mut imap = server.imap(ALICE);
    imap.ok("SELECT INBOX");
    assert!(!imap.body(1).is_empty());

    bounded(&server, "50 MB in by SMTP", || {
        Smtp::exchange(&server).deliver(BOB, ALICE, mail.as_bytes());
    });
    let body = bounded(&server, "50 MB out by IMAP", || imap.body(21));
    assert!(body.ends_with(mail.as_bytes()), "the message is not what was sent");
    let shown = imap.ok("UID FETCH 21 (RFC822.SIZE)");
    assert!(shown.find(&format!("RFC822.SIZE {}", body.len())).is_some(), "{shown:?}");
    bounded(&server, "50 MB in by APPEND", || {
        imap.append("INBOX", "\\Seen", mail.as_bytes());
    });
    let body = bounded(&server, "50 MB out by IMAP again", || imap.body(22));
    assert!(body == mail.as_bytes(), "the message is not what was appended");
    let part = imap.ok("UID FETCH 22 (BODY.PEEK[]<49000000.1000>)");
    let part = &part.untagged[0].literals[0];
    assert!(part == &mail.as_bytes()[49_000_000..49_001_000]);
}
