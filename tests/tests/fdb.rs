//! A node on FoundationDB and S3, as its users see it.

#![cfg(feature = "fdb")]

use blackbox::{
    imap::number_after,
    message, program, report,
    server::{ALICE, BOB, Server},
    shared::SharedStores,
    smtp::Smtp,
};

/// Messages that are sent one after the other before the server is killed.
const MESSAGES: usize = 40;

#[test]
fn mail_on_fdb_and_s3_survives_the_node() {
    let Some(stores) = SharedStores::start() else { return };
    let mut server = Server::start_shared(&stores.config());
    let mut idler = server.imap(ALICE);
    idler.ok("SELECT INBOX");
    idler.idle();
    let mut sent = Vec::new();
    let mut smtp = Smtp::exchange(&server);
    for number in 0..MESSAGES {
        // Of all sizes: one request to S3, several, and a multipart upload.
        let size = if number == 7 { 6_000_000 } else { number * number * 400 };
        let mail =
            message(BOB, ALICE, &format!("m{number}"), &"0123456789abcd\r\n".repeat(size / 16));
        smtp.envelope(BOB, &[ALICE, BOB]);
        let reply = smtp.data(mail.as_bytes());
        assert_eq!(reply.code, 250, "{reply}");
        sent.push(mail);
    }
    idler.wait_for(&format!("{MESSAGES} EXISTS"));
    assert_eq!(
        stores.bucket().objects().len(),
        MESSAGES,
        "one object a message, for two recipients"
    );
    server.kill();
    server.reap();
    server.restart();
    for user in [ALICE, BOB] {
        let mut imap = server.imap(user);
        imap.ok("SELECT INBOX");
        let uids = imap.ok("UID SEARCH ALL").search();
        assert_eq!(uids.len(), MESSAGES, "{user}");
        for (uid, mail) in uids.iter().zip(&sent) {
            assert!(imap.body(*uid).ends_with(mail.as_bytes()), "{user}: {uid}");
        }
    }
    let mut imap = server.imap(ALICE);
    imap.ok("CREATE Kept");
    imap.ok("SELECT INBOX");
    imap.ok("UID STORE 1:20 +FLAGS (\\Flagged)");
    imap.ok("UID MOVE 2:3 Kept");
    imap.ok("UID COPY 4 Kept");
    imap.ok("UID STORE 5 +FLAGS (\\Deleted)");
    imap.ok("EXPUNGE");
    assert_eq!(imap.ok("UID SEARCH FLAGGED").search().len(), 17);
    imap.ok("SELECT Kept");
    assert_eq!(imap.ok("UID SEARCH FLAGGED").search(), [1, 2, 3]);
    report(&server.cli(&["fsck", "--speed", "100"]));
}

/// The cluster was made anew, or is another one: nobody's mail is taken for garbage.
#[test]
fn another_cluster_does_not_get_the_bucket() {
    let (Some(stores), Some(others)) = (SharedStores::start(), SharedStores::start()) else {
        return;
    };
    let server = Server::start_shared(&stores.config());
    let mail = message(BOB, ALICE, "kept", "");
    Smtp::exchange(&server).deliver(BOB, ALICE, mail.as_bytes());
    let sections = others.config();
    let (cluster, _) = sections.split_once("[blobs]").expect("it names both");
    let stranger = Server::stopped(&format!("{cluster}{}", stores.bucket().config()));
    let refused = program::run(&mut stranger.cli_command(&["fsck", "--repair"]), b"");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(told.contains("belongs to store"), "{told}");
    // Several nodes of the right one do.
    report(&server.cli(&["fsck", "--repair"]));
    assert_eq!(stores.bucket().marks().len(), 1);
}

/// After `fdbrestore` UIDs are given out again: mail programs must see other mailboxes.
#[test]
fn mailboxes_of_a_restored_fdb_store_get_new_uidvalidities() {
    let Some(stores) = SharedStores::start() else { return };
    let mut server = Server::start_shared(&stores.config());
    let uid_validity = |server: &Server| {
        let status = server.imap(ALICE).ok("STATUS INBOX (UIDVALIDITY MESSAGES)");
        let line = status.find("UIDVALIDITY").expect("it was asked for").text.clone();
        (number_after(&line, "UIDVALIDITY"), number_after(&line, "MESSAGES"))
    };
    Smtp::exchange(&server).deliver(BOB, ALICE, message(BOB, ALICE, "kept", "").as_bytes());
    let before = uid_validity(&server);
    let renew = ["renew-uid-validity", "--days", "2"];
    let refused = program::run(&mut server.cli_command(&renew), b"");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("run on the store"), "{told}");
    server.kill();
    server.reap();
    report(&server.cli(&renew));
    server.restart();
    let after = uid_validity(&server);
    assert!(after.0 > before.0 && after.1 == before.1, "{before:?}, {after:?}");
    report(&server.cli(&["fsck", "--speed", "100"]));
}
