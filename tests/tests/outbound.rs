//! Mail leaves for other servers: two providers with a node each, and what becomes of mail that
//! one of them refuses, cannot take now, or never takes.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener},
    sync::mpsc,
    thread,
    time::Duration,
};

use blackbox::{
    Deadline, PATIENCE,
    imap::Imap,
    message,
    names::Names,
    server::{ALICE, PASSWORD, Server},
    smtp::Smtp,
};

const CAROL: &str = "carol@example.net";

/// A provider of `example.net`, and one of `example.org` that finds it by its name.
struct Two {
    here: Server,
    there: Server,
    names: Names,
}

impl Two {
    fn start(outbound: &str) -> Self {
        let there = Server::start_configured();
        there.cli(&["domain", "add", "example.net"]);
        there.cli(&["alias", "add", CAROL, ALICE]);
        let names = Names::start();
        names.exchange("example.net", 10, "mx.example.net");
        names.address("mx.example.net", Ipv4Addr::LOCALHOST);
        let here = Server::start_shared(&names.sections(there.ports.smtp, outbound));
        Self { here, there, names }
    }

    fn submit(&self, to: &str, mail: &str) {
        let mut smtp = Smtp::submission(&self.here, ALICE, PASSWORD);
        smtp.deliver(ALICE, to, mail.as_bytes());
    }
}

/// Waits for the first message in a mailbox, and reads it.
fn first(imap: &mut Imap) -> String {
    imap.ok("SELECT INBOX");
    let deadline = Deadline::usual();
    while imap.ok("UID SEARCH ALL").search().is_empty() {
        assert!(!deadline.is_over(), "nothing has come");
        imap.ok("NOOP");
    }
    String::from_utf8_lossy(&imap.body(1)).into_owned()
}

#[test]
fn mail_reaches_another_provider_over_tls() {
    let two = Two::start("");
    let mail = message(ALICE, CAROL, "abroad", ".a line with a dot\r\n..and two\r\n");
    two.submit(CAROL, &mail);
    let found = first(&mut two.there.imap(ALICE));
    assert!(found.ends_with(&mail), "{found}");
    assert!(found.contains("with ESMTPS id"), "{found}");
    assert!(found.contains(&format!("<{ALICE}>")), "{found}");
}

#[test]
fn what_is_refused_comes_back_with_the_servers_words() {
    let two = Two::start("");
    let nobody = "nobody@example.net";
    two.submit(nobody, &message(ALICE, nobody, "in vain", "hello\r\n"));
    let report = first(&mut two.here.imap(ALICE));
    for part in [
        "Return-Path: <>\r\n",
        "Final-Recipient: rfc822; nobody@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n",
        "Remote-MTA: dns; mx.example.net\r\nDiagnostic-Code: smtp; 550 5.1.1 ",
        "Subject: black box in vain\r\n",
    ] {
        assert!(report.contains(part), "{part} is not in {report}");
    }
    let nowhere = "x@example.invalid";
    two.submit(nowhere, &message(ALICE, nowhere, "nowhere", "hello\r\n"));
    let mut imap = two.here.imap(ALICE);
    imap.ok("SELECT INBOX");
    let deadline = Deadline::usual();
    while imap.ok("UID SEARCH ALL").search().len() < 2 {
        assert!(!deadline.is_over(), "no second report");
        imap.ok("NOOP");
    }
    let report = String::from_utf8_lossy(&imap.body(2)).into_owned();
    assert!(report.contains("Status: 5.1.2\r\n"), "{report}");
    // Nothing is left in the queue.
    let found = two.here.cli(&["fsck"]);
    assert!(found.contains("0 findings"), "{found}");
}

#[test]
fn what_waits_survives_a_crash_and_leaves_when_the_other_side_is_back() {
    let often = "retry_seconds_min = 1\nretry_seconds_max = 1";
    let mut two = Two::start(often);
    two.there.kill();
    two.there.reap();
    let mails: Vec<String> =
        (0..5).map(|n| message(ALICE, CAROL, &format!("late {n}"), "hello\r\n")).collect();
    for mail in &mails {
        two.submit(CAROL, mail);
    }
    two.here.kill();
    two.here.reap();
    // It listens elsewhere now.
    two.there.restart();
    two.here.configure(&two.names.sections(two.there.ports.smtp, often));
    two.here.restart();
    let mut imap = two.there.imap(ALICE);
    imap.ok("SELECT INBOX");
    let deadline = Deadline::usual();
    while imap.ok("UID SEARCH ALL").search().len() < mails.len() {
        assert!(!deadline.is_over(), "not all have come");
        imap.ok("NOOP");
    }
    assert_eq!(imap.ok("UID SEARCH ALL").search().len(), mails.len());
}

#[test]
fn what_is_never_taken_is_given_up_with_a_report() {
    let two = Two::start(
        "retry_seconds_min = 1\nretry_seconds_max = 1\nexpire_seconds = 4\ndelay_notice_seconds = 1",
    );
    two.there.kill();
    two.submit(CAROL, &message(ALICE, CAROL, "for ever", "hello\r\n"));
    let mut imap = two.here.imap(ALICE);
    let late = first(&mut imap);
    assert!(late.contains("Action: delayed\r\nStatus: 4.4.1\r\n"), "{late}");
    assert!(late.contains("Will-Retry-Until: "), "{late}");
    let deadline = Deadline::usual();
    while imap.ok("UID SEARCH ALL").search().len() < 2 {
        assert!(!deadline.is_over(), "it is not given up");
        imap.ok("NOOP");
    }
    let report = String::from_utf8_lossy(&imap.body(2)).into_owned();
    assert!(report.contains("Action: failed\r\nStatus: 5.4.7\r\n"), "{report}");
}

/// Takes messages, and takes its time to say so: longer than a node needs for its end.
fn slow_sink() -> (u16, mpsc::Receiver<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut say = &stream;
            let mut answer = |line: &[u8]| say.write_all(line);
            let mut in_content = false;
            let _over = answer(b"220 slow\r\n");
            for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                let _gone = match (&*line, in_content) {
                    (".", _) => {
                        in_content = false;
                        tell.send(()).expect("the test listens");
                        thread::sleep(Duration::from_secs(3));
                        answer(b"250 taken\r\n")
                    }
                    (_, true) => Ok(()),
                    ("DATA", _) => {
                        in_content = true;
                        answer(b"354 go on\r\n")
                    }
                    _ => answer(b"250 yes\r\n"),
                };
            }
        }
    });
    (port, told)
}

#[test]
fn a_node_that_is_told_to_stop_hears_and_notes_what_becomes_of_what_it_has_sent() {
    let (port, taken) = slow_sink();
    let names = Names::start();
    names.exchange("example.net", 10, "mx.example.net");
    names.address("mx.example.net", Ipv4Addr::LOCALHOST);
    let mut here = Server::start_shared(&names.sections(port, ""));
    let mut smtp = Smtp::submission(&here, ALICE, PASSWORD);
    smtp.deliver(ALICE, CAROL, message(ALICE, CAROL, "last", "hello\r\n").as_bytes());
    drop(smtp);
    taken.recv_timeout(PATIENCE).expect("it leaves");
    here.terminate();
    assert!(here.wait().success());
    here.restart();
    assert_eq!(here.cli(&["queue", "list", "--json"]), "");
    assert!(taken.try_recv().is_err(), "it came twice");
}
