//! A backup of a running server, restored elsewhere.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use blackbox::{
    imap::Imap,
    message, program, report,
    server::{ALICE, BOB, Server},
    smtp::Smtp,
};

/// Longer than what is kept in one piece.
const LARGE_BYTES: usize = 700_000;

/// Every mailbox's UIDVALIDITY.
fn validities(imap: &mut Imap) -> BTreeMap<String, u32> {
    let listed = imap.ok("LIST \"\" * RETURN (STATUS (UIDVALIDITY))");
    let status = listed.texts().into_iter().filter_map(|text| {
        let (name, number) = text.strip_prefix("STATUS ")?.split_once(" (UIDVALIDITY ")?;
        Some((name.to_owned(), number.strip_suffix(')')?.parse().ok()?))
    });
    status.collect()
}

#[test]
fn a_backup_of_a_busy_server_is_one_moment_of_it() {
    let mut server = Server::start();
    let mut client = server.imap(ALICE);
    client.ok("CREATE Kept");
    let mut shown = validities(&mut client);
    let large = message(BOB, ALICE, "large", &"0123456789abcd\r\n".repeat(LARGE_BYTES / 16));
    Smtp::exchange(&server).deliver(BOB, ALICE, large.as_bytes());
    let file = server.data().join("mail.backup");
    let name = file.to_str().expect("a temporary path is text").to_owned();
    let (sent, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let before = std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut smtp = Smtp::exchange(&server);
            while !ended.load(Ordering::Relaxed) {
                let number = sent.load(Ordering::Relaxed);
                let mail = message(BOB, ALICE, &format!("n{number}"), "");
                // Both or none of them is in the backup.
                smtp.envelope(BOB, &[ALICE, BOB]);
                let reply = smtp.data(mail.as_bytes());
                assert_eq!(reply.code, 250, "{reply}");
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
        while sent.load(Ordering::Relaxed) < 20 {
            std::thread::yield_now();
        }
        let before = sent.load(Ordering::Relaxed);
        report(&server.cli(&["backup", &name]));
        ended.store(true, Ordering::Relaxed);
        before
    });
    let after = sent.load(Ordering::Relaxed);
    // A client sees one name with another UIDVALIDITY after the backup.
    client.ok("DELETE Kept");
    client.ok("CREATE Kept");
    for (name, validity) in validities(&mut client) {
        let highest = shown.entry(name).or_default();
        *highest = validity.max(*highest);
    }
    drop(client);
    let refused = program::run(&mut server.cli_command(&["backup", &name]), b"");
    assert_eq!(refused.status.code(), Some(1), "a backup overwrites nothing");

    let elsewhere = tempfile::TempDir::new().expect("the temporary folder is writable");
    let data = elsewhere.path().join("data");
    let restore = |file: &std::path::Path| {
        let mut command = std::process::Command::new(program::rookery());
        command.arg("restore").arg(file).arg("--data").arg(&data);
        command
    };
    // One that was cut off restores nothing.
    let whole = std::fs::read(&file).expect("the backup is there");
    let cut = elsewhere.path().join("cut");
    std::fs::write(&cut, &whole[..whole.len() - 1]).expect("the folder is writable");
    assert_eq!(program::run(&mut restore(&cut), b"").status.code(), Some(1));
    report(&program::succeed(&mut restore(&file), b""));
    let again = program::run(&mut restore(&file), b"");
    assert_eq!(again.status.code(), Some(1), "a restore overwrites nothing");

    server.terminate();
    assert!(server.wait().success());
    server.restart_on(&data);
    report(&server.cli(&["fsck", "--speed", "100"]));
    let mut imap = server.imap(ALICE);
    // UIDs that the original gave out since the backup are given out again: under another number.
    let restored = validities(&mut imap);
    assert_eq!(restored.keys().collect::<Vec<_>>(), shown.keys().collect::<Vec<_>>());
    for (name, validity) in restored {
        assert!(validity > shown[&name], "{name}: {validity} is not above {}", shown[&name]);
    }
    imap.ok("SELECT INBOX");
    let held = imap.ok("UID SEARCH ALL").search();
    assert!((before + 1..=after + 1).contains(&held.len()), "{before} {} {after}", held.len());
    assert!(imap.body(1).ends_with(large.as_bytes()));
    for (number, uid) in held[1..].iter().enumerate() {
        assert!(
            imap.body(*uid).ends_with(message(BOB, ALICE, &format!("n{number}"), "").as_bytes())
        );
    }
    let mut other = server.imap(BOB);
    other.ok("SELECT INBOX");
    assert_eq!(other.ok("UID SEARCH ALL").search().len(), held.len() - 1);
    // It goes on: the restored store takes mail, with UIDs above.
    Smtp::exchange(&server).deliver(BOB, ALICE, message(BOB, ALICE, "new", "").as_bytes());
    imap.ok("NOOP");
    assert_eq!(imap.ok("UID SEARCH ALL").search().len(), held.len() + 1);
}
