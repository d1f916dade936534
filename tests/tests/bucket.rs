//! A node whose messages' bytes are in a bucket, as its users see it.

use std::{path::Path, thread, time::Duration};

use blackbox::{
    Stopwatch, message, program, report,
    server::{ALICE, BOB, Server},
    shared::Bucket,
    smtp::Smtp,
};

/// How long a sender may be kept waiting by a service that hangs: a minute, and a busy machine's
/// share.
const TOLD_WITHIN: Duration = Duration::from_secs(85);

/// A server on the bucket with a message of each size.
fn server_with_mail(bucket: &Bucket, sizes: &[usize]) -> Server {
    let server = Server::start_shared(&bucket.config());
    let mut smtp = Smtp::exchange(&server);
    for (number, size) in sizes.iter().enumerate() {
        let body = "0123456789abcd\r\n".repeat(size / 16);
        smtp.deliver(BOB, ALICE, message(BOB, ALICE, &format!("m{number}"), &body).as_bytes());
    }
    drop(smtp);
    server
}

fn stop(server: &mut Server) {
    server.terminate();
    assert!(server.wait().success());
}

/// What the server says that does not start.
fn refusal(server: &Server) -> String {
    let output = program::run(&mut server.command(), b"");
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success(), "it starts: {told}");
    told
}

fn name(path: &Path) -> String {
    path.file_name().expect("it is a file").to_string_lossy().into_owned()
}

/// A service that takes requests and says nothing: whoever sends mail is told to come again long
/// before it gives up (RFC 5321 §4.5.3.2.6: ten minutes), and so is whoever appends.
#[test]
fn a_bucket_that_hangs_is_told_within_the_senders_patience() {
    let bucket = Bucket::start();
    let server = server_with_mail(&bucket, &[100]);
    let mut imap = server.imap(ALICE);
    let mut senders = [(0, Smtp::exchange(&server)), (6_000_000, Smtp::exchange(&server))];
    for (_, smtp) in &mut senders {
        smtp.envelope(BOB, &[ALICE]);
    }
    bucket.hang();
    let watch = Stopwatch::start();
    thread::scope(|threads| {
        for (size, smtp) in &mut senders {
            threads.spawn(move || {
                let body = "0123456789abcd\r\n".repeat(*size / 16);
                let reply = smtp.data(message(BOB, ALICE, "late", &body).as_bytes());
                assert_eq!(reply.code, 451, "{size}: {reply}");
                assert!(reply.lines[0].starts_with("4.3.0"), "{size}: {reply}");
            });
        }
        threads.spawn(|| {
            let answer = imap.try_append("INBOX", "", message(BOB, ALICE, "copy", "").as_bytes());
            assert!(answer.status.starts_with("NO [UNAVAILABLE]"), "{}", answer.status);
        });
    });
    let took = watch.elapsed();
    assert!(took < TOLD_WITHIN, "{took:?}");
    report(&format!("an S3 service that hangs is told after {took:?}"));
    bucket.go_on();
    // The same sessions go on.
    for (_, smtp) in &mut senders {
        smtp.deliver(BOB, ALICE, message(BOB, ALICE, "again", "").as_bytes());
    }
    imap.append("INBOX", "", message(BOB, ALICE, "copy", "").as_bytes());
    imap.ok("SELECT INBOX");
    assert_eq!(imap.ok("UID SEARCH ALL").search().len(), 4);
}

#[test]
fn another_stores_bucket_is_refused_and_left_alone() {
    let bucket = Bucket::start();
    let mut server = server_with_mail(&bucket, &[100]);
    let before = (bucket.objects(), bucket.marks());
    assert_eq!((before.0.len(), before.1.len()), (1, 1));
    let id = name(&before.1[0]).replace("rookery-store-", "");
    let stranger = Server::stopped(&bucket.config());
    for told in [
        refusal(&stranger),
        String::from_utf8_lossy(
            &program::run(&mut stranger.cli_command(&["fsck", "--repair"]), b"").stderr,
        )
        .into_owned(),
    ] {
        for words in ["bucket \"mail\" with prefix \"test/\"", &id, "of its own"] {
            assert!(told.contains(words), "no {words} in {told}");
        }
    }
    assert_eq!((bucket.objects(), bucket.marks()), before);
    // Its own store starts again and again.
    stop(&mut server);
    server.restart();
    let mut imap = server.imap(ALICE);
    imap.ok("SELECT INBOX");
    assert_eq!(imap.ok("UID SEARCH ALL").search(), [1]);
}

#[test]
fn a_bucket_whose_mark_is_lost_waits_for_a_person() {
    let bucket = Bucket::start();
    let mut server = server_with_mail(&bucket, &[100]);
    stop(&mut server);
    let mark = bucket.marks().remove(0);
    std::fs::remove_file(&mark).expect("it is there");
    let told = refusal(&server);
    assert!(told.contains("has no mark") && told.contains(&name(&mark)), "{told}");
    std::fs::write(&mark, b"").expect("the folder is writable");
    server.restart();
    server.cli(&["fsck", "--speed", "100"]);
}

/// What the bucket holds is looked at, whatever the node has in its cache.
#[test]
fn a_byte_that_is_another_in_the_bucket_is_found() {
    let bucket = Bucket::start();
    let server = server_with_mail(&bucket, &[100, 700_000]);
    let mut imap = server.imap(ALICE);
    imap.ok("SELECT INBOX");
    let before = [1, 2].map(|uid| imap.body(uid));
    let objects = bucket.objects();
    let [small, large] = &objects[..] else { panic!("{objects:?}") };
    let check = |arguments: &[&str]| {
        let output = program::run(&mut server.cli_command(arguments), b"");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), told.matches("blob_damaged").count())
    };
    assert_eq!(check(&["fsck", "--bytes", "--json"]), (Some(0), 0));
    let right = std::fs::read(large).expect("it is there");
    let mut wrong = right.clone();
    // Behind what a check looks at without being asked for the bytes.
    wrong[600_000] ^= 1;
    std::fs::write(large, &wrong).expect("it is writable");
    assert_eq!(check(&["fsck", "--json"]), (Some(0), 0));
    assert_eq!(check(&["fsck", "--bytes", "--json"]), (Some(1), 1));
    let mut changed = std::fs::read(small).expect("it is there");
    changed[50] ^= 1;
    std::fs::write(small, changed).expect("it is writable");
    assert_eq!(check(&["fsck", "--bytes", "--json"]), (Some(1), 2));
    // The node has them still.
    assert_eq!([1, 2].map(|uid| imap.body(uid)), before);
}
