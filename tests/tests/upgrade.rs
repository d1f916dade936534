//! Stores that earlier releases wrote, opened by this one.
//!
//! `tests/fixtures/store-N.tar.xz` is a data folder that a release of schema N left after
//! `write_store.py` had filled it. Every later release must open each of them, and find what the
//! script put there.

use std::path::{Path, PathBuf};

use blackbox::{
    message,
    server::{ALICE, CONTENT, Server},
    smtp::Smtp,
};

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the fixtures are there")
        .map(|entry| entry.expect("the folder is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "xz"))
        .collect();
    found.sort();
    found
}

/// The body that the script gave a message.
fn body(number: u32) -> String {
    let size = if number == 7 { 300_000 } else { 600 };
    (0..size / 12).map(|line| format!("{number}: line {line}\r\n")).collect()
}

/// What the script left.
fn check_content(server: &Server) {
    let mut imap = server.imap(ALICE);
    let mailboxes = [
        ("INBOX", &[1, 2, 3, 6, 7, 8][..], &[1, 2, 3, 6, 7, 8][..]),
        ("Kept", &[1, 2, 3][..], &[3, 7, 4][..]),
    ];
    for (mailbox, uids, numbers) in mailboxes {
        imap.ok(&format!("SELECT {mailbox}"));
        assert_eq!(imap.ok("UID SEARCH UID 1:8").search(), uids, "{mailbox}");
        for (uid, number) in uids.iter().zip(numbers) {
            let found = String::from_utf8(imap.body(*uid)).expect("the script writes ASCII");
            assert!(found.contains(&format!("Subject: message {number}\r\n")), "{mailbox} {uid}");
            assert!(found.ends_with(&body(*number)), "{mailbox} {uid}");
        }
        let fetched = imap.ok("UID FETCH 1:8 (ENVELOPE BODYSTRUCTURE)");
        assert_eq!(fetched.texts().len(), uids.len(), "{:?}", fetched.texts());
    }
    imap.ok("SELECT INBOX");
    assert_eq!(imap.ok("UID SEARCH SEEN UID 1:8").search(), [1]);
    assert_eq!(imap.ok("UID SEARCH FLAGGED KEYWORD $label UID 1:8").search(), [2]);
}

#[test]
fn stores_of_every_release_open_and_go_on() {
    let fixtures = fixtures();
    assert!(!fixtures.is_empty());
    for fixture in fixtures {
        let mut server = Server::start_on(&fixture);
        check_content(&server);
        let mut smtp = Smtp::exchange(&server);
        let mail = message("bob@example.org", ALICE, "new", CONTENT);
        smtp.deliver("bob@example.org", ALICE, mail.as_bytes());
        let mut imap = server.imap(ALICE);
        imap.ok("SELECT INBOX");
        // UIDs go on after the highest that the script saw.
        assert_eq!(imap.ok("UID SEARCH UID 9:*").search(), [9], "{}", fixture.display());
        imap.ok("UID COPY 2 Kept");
        imap.ok("UID MOVE 3 Kept");
        imap.ok("UID STORE 6 +FLAGS (\\Deleted)");
        imap.ok("EXPUNGE");
        assert_eq!(imap.ok("UID SEARCH ALL").search(), [1, 2, 7, 8, 9]);
        drop(imap);
        server.terminate();
        assert!(server.wait().success());
        server.restart();
        let mut imap = server.imap(ALICE);
        imap.ok("SELECT Kept");
        assert_eq!(imap.ok("UID SEARCH ALL").search(), [1, 2, 3, 4, 5]);
    }
}
