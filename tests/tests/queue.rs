//! Mail that waits for other servers: an administrator looks at it, holds it, lets it go, takes it
//! out; and senders say when it is to leave and when to come back.

use std::{net::Ipv4Addr, time::Duration};

use blackbox::{
    Deadline, Stopwatch,
    imap::Imap,
    message,
    names::Names,
    program,
    server::{ALICE, BOB, PASSWORD, Server},
    smtp::Smtp,
};
use serde_json::Value;

/// At the provider that can be reached.
const CAROL: &str = "carol@example.net";

/// At a domain whose server cannot be found until it is given an address.
const DAVE: &str = "dave@late.example";

/// Nothing is tried a second time by itself.
const ONCE: &str = "retry_seconds_min = 3600\nretry_seconds_max = 3600";

/// A provider, and one that it sends to.
struct Two {
    here: Server,
    there: Server,
    names: Names,
}

impl Two {
    fn start() -> Self {
        Self::start_with("")
    }

    fn start_with(outbound: &str) -> Self {
        let there = Server::start_configured();
        for (domain, address) in [("example.net", CAROL), ("late.example", DAVE)] {
            there.cli(&["domain", "add", domain]);
            there.cli(&["alias", "add", address, ALICE]);
        }
        let names = Names::start();
        names.exchange("example.net", 10, "mx.example.net");
        names.address("mx.example.net", Ipv4Addr::LOCALHOST);
        names.exchange("late.example", 10, "mx.late.example");
        let outbound = format!("{ONCE}\n{outbound}");
        let here = Server::start_shared(&names.sections(there.ports.smtp, &outbound));
        Self { here, there, names }
    }

    fn submit(&self, from: &str, to: &str, subject: &str) {
        let mut smtp = Smtp::submission(&self.here, from, PASSWORD);
        smtp.deliver(from, to, message(from, to, subject, "hello\r\n").as_bytes());
    }

    /// `rookery queue ARGUMENTS --json`: its lines.
    #[track_caller]
    fn queue(&self, arguments: &[&str]) -> Vec<Value> {
        let arguments = [&["queue"], arguments, &["--json"]].concat();
        let printed = self.here.cli(&arguments);
        printed.lines().map(|line| serde_json::from_str(line).expect("a row is JSON")).collect()
    }

    /// Asks again and again until what is listed is in these states.
    #[track_caller]
    fn reach(&self, list: &[&str], expected: &[&str]) -> Vec<Value> {
        let deadline = Deadline::usual();
        loop {
            let rows = self.queue(&[&["list"], list].concat());
            if rows.iter().map(|row| text(row, "state")).eq(expected.iter().copied()) {
                return rows;
            }
            assert!(!deadline.is_over(), "{rows:?} is not {expected:?}");
        }
    }
}

#[track_caller]
fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_else(|| panic!("{field} of {row}"))
}

/// Waits for so many messages in a mailbox, and reads the last.
#[track_caller]
fn wait_for(imap: &mut Imap, count: usize) -> String {
    imap.ok("SELECT INBOX");
    let deadline = Deadline::usual();
    while imap.ok("UID SEARCH ALL").search().len() < count {
        assert!(!deadline.is_over(), "nothing has come");
        imap.ok("NOOP");
    }
    let last = u32::try_from(count).expect("few messages");
    String::from_utf8_lossy(&imap.body(last)).into_owned()
}

#[test]
fn what_waits_is_listed_shown_and_counted() {
    let two = Two::start();
    two.submit(ALICE, DAVE, "one");
    two.submit(BOB, "x@late.example", "two");
    let rows = two.reach(&[], &["deferred", "deferred"]);
    assert_eq!(rows[0]["domain"], "late.example");
    assert!(text(&rows[0], "error").contains("mx.late.example"), "{rows:?}");
    let of_alice = two.queue(&["list", "--sender", ALICE]);
    let [row] = &of_alice[..] else { panic!("{of_alice:?}") };
    let id = text(row, "id");
    assert_eq!((row["recipients"].as_u64(), row["tries"].as_u64()), (Some(1), Some(1)));
    assert_eq!(two.queue(&["list", "--id", id]), of_alice);
    for none in [["--older-than", "1h"], ["--domain", "example.net"], ["--state", "held"]] {
        assert_eq!(two.queue(&[&["list"], &none[..]].concat()), [] as [Value; 0]);
    }
    assert_eq!(two.queue(&["list", "--older-than", "0s", "--sender", "@example.org"]).len(), 2);

    let shown = &two.queue(&["show", id])[0];
    let share = &shown["shares"][0];
    assert_eq!((text(shown, "sender"), text(share, "domain")), (ALICE, "late.example"));
    assert_eq!(text(&share["recipients"][0], "address"), DAVE);
    assert_eq!(text(&share["recipients"][0], "status"), "4.4.1");
    let counted = &two.queue(&["stats"])[0];
    assert_eq!((&counted["messages"]["count"], &counted["deferred"]), (&2.into(), &2.into()));
    assert_eq!(text(&counted["top"][0], "domain"), "late.example");

    let table = two.here.cli(&["queue", "list", "--limit", "1"]);
    assert!(table.starts_with("ID ") && table.contains("and more"), "{table}");
    assert!(two.here.cli(&["queue", "show", id]).contains(DAVE));
    let unknown = "0".repeat(32);
    let output = program::run(&mut two.here.cli_command(&["queue", "show", &unknown]), b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no message"));
}

#[test]
fn what_is_held_stays_through_a_restart_until_it_is_released() {
    let mut two = Two::start();
    two.here.cli(&["queue", "hold", "--domain", "example.net"]);
    two.submit(ALICE, CAROL, "one");
    two.reach(&[], &["held"]);
    two.here.kill();
    two.here.reap();
    // The store alone, without a server.
    let rows = two.queue(&["list", "--state", "held"]);
    assert_eq!((rows.len(), &rows[0]["due_ms"]), (1, &Value::Null));
    two.here.restart();
    two.submit(ALICE, CAROL, "two");
    two.here.cli(&["queue", "retry", "--all"]);
    let rows = two.reach(&[], &["held", "held"]);
    assert!(rows.iter().all(|row| row["tries"] == 0), "{rows:?}");
    let counted = &two.queue(&["stats"])[0];
    assert_eq!((&counted["held"], &counted["held_domains"][0]), (&2.into(), &"example.net".into()));
    two.here.cli(&["queue", "release", "--domain", "example.net"]);
    wait_for(&mut two.there.imap(ALICE), 2);
    two.reach(&[], &[]);
    assert!(two.here.cli(&["fsck"]).contains("0 findings"));
}

#[test]
fn orders_about_a_domain_reach_all_of_many_messages() {
    const MANY: usize = 250;
    let two = Two::start();
    two.here.cli(&["queue", "hold", "--domain", "example.net"]);
    let mut smtp = Smtp::submission(&two.here, ALICE, PASSWORD);
    let submit = |smtp: &mut Smtp| {
        for number in 0..MANY {
            let mail = message(ALICE, CAROL, &format!("number {number}"), "hello\r\n");
            smtp.deliver(ALICE, CAROL, mail.as_bytes());
        }
    };
    submit(&mut smtp);
    let counted = &two.queue(&["stats"])[0];
    assert_eq!(counted["held"], MANY);
    two.here.cli(&["queue", "cancel", "--domain", "example.net"]);
    two.reach(&["--limit", "1"], &[]);
    submit(&mut smtp);
    two.here.cli(&["queue", "release", "--domain", "example.net"]);
    let mut imap = two.there.imap(ALICE);
    wait_for(&mut imap, MANY);
    two.reach(&["--limit", "1"], &[]);
    assert_eq!(imap.ok("UID SEARCH ALL").search().len(), MANY);
    assert!(two.here.cli(&["fsck"]).contains("0 findings"));
}

#[test]
fn a_message_alone_is_held_and_released() {
    let two = Two::start();
    two.submit(ALICE, DAVE, "one");
    let rows = two.reach(&[], &["deferred"]);
    let id = text(&rows[0], "id");
    two.here.cli(&["queue", "hold", id]);
    two.reach(&[], &["held"]);
    two.names.address("mx.late.example", Ipv4Addr::LOCALHOST);
    // It stays where others go.
    two.submit(ALICE, DAVE, "two");
    two.here.cli(&["queue", "flush"]);
    let found = wait_for(&mut two.there.imap(ALICE), 1);
    assert!(found.contains("Subject: black box two\r\n"), "{found}");
    two.reach(&[], &["held"]);
    two.here.cli(&["queue", "release", id]);
    let found = wait_for(&mut two.there.imap(ALICE), 2);
    assert!(found.contains("Subject: black box one\r\n"), "{found}");
}

#[test]
fn what_is_retried_leaves_as_soon_as_it_can() {
    let two = Two::start();
    for subject in ["one", "two", "three"] {
        two.submit(ALICE, DAVE, subject);
    }
    two.reach(&[], &["deferred"; 3]);
    two.names.address("mx.late.example", Ipv4Addr::LOCALHOST);
    two.here.cli(&["queue", "retry", "--domain", "late.example"]);
    wait_for(&mut two.there.imap(ALICE), 3);
    two.reach(&[], &[]);
    assert!(two.here.cli(&["fsck"]).contains("0 findings"));
}

#[test]
fn what_is_cancelled_is_gone_and_its_sender_hears_of_it_where_that_is_asked_for() {
    let two = Two::start();
    for subject in ["one", "two"] {
        two.submit(ALICE, DAVE, subject);
    }
    two.submit(BOB, DAVE, "three");
    let rows = two.reach(&["--sender", ALICE], &["deferred", "deferred"]);
    two.reach(&[], &["deferred"; 3]);
    let (first, second) = (text(&rows[0], "id"), text(&rows[1], "id"));
    two.here.cli(&["queue", "cancel", first]);
    two.reach(&["--sender", ALICE], &["deferred"]);
    two.here.cli(&["queue", "cancel", "--notify", second]);
    let report = wait_for(&mut two.here.imap(ALICE), 1);
    for part in ["Action: failed\r\nStatus: 5.7.1\r\n", "an administrator has cancelled"] {
        assert!(report.contains(part), "{part} is not in {report}");
    }
    two.here.cli(&["queue", "cancel", "--domain", "late.example"]);
    two.reach(&[], &[]);
    let mut imap = two.here.imap(BOB);
    imap.ok("SELECT INBOX");
    assert!(imap.ok("UID SEARCH ALL").search().is_empty(), "nobody is told of a silent one");
    assert!(two.here.cli(&["fsck"]).contains("0 findings"));
}

#[test]
fn a_message_leaves_when_its_sender_wants_it_to() {
    let two = Two::start();
    let mut smtp = Smtp::submission(&two.here, ALICE, PASSWORD);
    let offered = smtp.expect("EHLO client.blackbox.test", 250).lines.join("\n");
    for extension in ["FUTURERELEASE 2592000 ", "DELIVERBY 2", "MT-PRIORITY", "REQUIRETLS"] {
        assert!(offered.contains(extension), "{extension} is not in {offered}");
    }
    let watch = Stopwatch::start();
    smtp.expect(&format!("MAIL FROM:<{ALICE}> HOLDFOR=4"), 250);
    smtp.expect(&format!("RCPT TO:<{CAROL}>"), 250);
    let reply = smtp.data(message(ALICE, CAROL, "later", "hello\r\n").as_bytes());
    assert_eq!(reply.code, 250, "{reply}");
    two.reach(&[], &["future"]);
    wait_for(&mut two.there.imap(ALICE), 1);
    assert!(watch.elapsed() >= Duration::from_secs(4), "{:?}", watch.elapsed());
}

#[test]
fn a_message_reaches_mailboxes_here_when_its_sender_wants_it_to() {
    let two = Two::start();
    two.here.cli(&["alias", "add", "team@example.org", BOB]);
    two.here.cli(&["alias", "add", "away@example.org", CAROL]);
    two.here.cli(&["alias", "add", "gone@example.org", BOB]);
    let mut smtp = Smtp::submission(&two.here, ALICE, PASSWORD);
    let watch = Stopwatch::start();
    smtp.expect(&format!("MAIL FROM:<{ALICE}> HOLDFOR=4"), 250);
    smtp.expect("RCPT TO:<nobody@example.org>", 550);
    smtp.expect(&format!("RCPT TO:<{BOB}> NOTIFY=SUCCESS"), 250);
    for address in ["team", "away", "gone"] {
        smtp.expect(&format!("RCPT TO:<{address}@example.org>"), 250);
    }
    let reply = smtp.data(message(ALICE, BOB, "later", "hello\r\n").as_bytes());
    assert_eq!(reply.code, 250, "{reply}");
    two.reach(&[], &["future"]);
    // Who gets it is what the addresses mean when it leaves.
    two.here.cli(&["alias", "remove", "gone@example.org"]);
    let mut bob = two.here.imap(BOB);
    let held = wait_for(&mut bob, 1);
    assert!(watch.elapsed() >= Duration::from_secs(4), "{:?}", watch.elapsed());
    assert!(held.starts_with(&format!("Return-Path: <{ALICE}>\r\n")), "{held}");
    wait_for(&mut two.there.imap(ALICE), 1);
    let mut alice = two.here.imap(ALICE);
    wait_for(&mut alice, 2);
    two.reach(&[], &[]);
    // Two addresses lead to him, and he has one copy.
    assert_eq!(bob.ok("UID SEARCH ALL").search().len(), 1);
    let reports = [1, 2].map(|uid| String::from_utf8_lossy(&alice.body(uid)).into_owned()).concat();
    for (action, address) in [("delivered", BOB), ("failed", "gone@example.org")] {
        let fields = format!("Final-Recipient: rfc822; {address}\r\nAction: {action}\r\n");
        assert!(reports.contains(&fields), "{fields} is not in {reports}");
    }
}

#[test]
fn a_message_that_is_late_comes_back_when_its_sender_wants_it_to() {
    let two = Two::start();
    let mut smtp = Smtp::submission(&two.here, ALICE, PASSWORD);
    for (by, to, subject) in [("3;R", DAVE, "late"), ("300;R", CAROL, "in time")] {
        smtp.expect(&format!("MAIL FROM:<{ALICE}> BY={by} MT-PRIORITY=3"), 250);
        smtp.expect(&format!("RCPT TO:<{to}>"), 250);
        let reply = smtp.data(message(ALICE, to, subject, "hello\r\n").as_bytes());
        assert_eq!(reply.code, 250, "{reply}");
    }
    let report = wait_for(&mut two.here.imap(ALICE), 1);
    assert!(report.contains("Action: failed\r\nStatus: 5.4.7\r\n"), "{report}");
    assert!(report.contains("Subject: black box late\r\n"), "{report}");
    wait_for(&mut two.there.imap(ALICE), 1);
    smtp.expect(&format!("MAIL FROM:<{ALICE}> BY=1;R"), 501);
}

#[test]
fn a_message_that_is_late_goes_on_and_its_sender_hears_of_it_when_that_is_asked_for() {
    let two = Two::start();
    let mut smtp = Smtp::submission(&two.here, ALICE, PASSWORD);
    smtp.expect(&format!("MAIL FROM:<{ALICE}> BY=3;N"), 250);
    smtp.expect(&format!("RCPT TO:<{DAVE}>"), 250);
    let reply = smtp.data(message(ALICE, DAVE, "late", "hello\r\n").as_bytes());
    assert_eq!(reply.code, 250, "{reply}");
    let mut imap = two.here.imap(ALICE);
    let report = wait_for(&mut imap, 1);
    for part in ["Action: delayed\r\nStatus: 4.4.7\r\n", "\r\nWill-Retry-Until: "] {
        assert!(report.contains(part), "{part} is not in {report}");
    }
    two.reach(&[], &["deferred"]);
    two.names.address("mx.late.example", Ipv4Addr::LOCALHOST);
    two.here.cli(&["queue", "retry", "--domain", "late.example"]);
    wait_for(&mut two.there.imap(ALICE), 1);
    two.reach(&[], &[]);
    // The next server knows of the time, so nobody is told that it does not.
    assert_eq!(imap.ok("UID SEARCH ALL").search().len(), 1);
}

#[test]
fn a_message_that_requires_tls_comes_back_without_its_text_where_no_server_is_proven() {
    let two = Two::start();
    let mut smtp = Smtp::submission(&two.here, ALICE, PASSWORD);
    smtp.expect(&format!("MAIL FROM:<{ALICE}> REQUIRETLS RET=FULL"), 250);
    smtp.expect(&format!("RCPT TO:<{CAROL}>"), 250);
    let reply = smtp.data(message(ALICE, CAROL, "secret", "the text\r\n").as_bytes());
    assert_eq!(reply.code, 250, "{reply}");
    let report = wait_for(&mut two.here.imap(ALICE), 1);
    for part in ["Action: failed\r\nStatus: 5.7.30\r\n", "Subject: black box secret\r\n"] {
        assert!(report.contains(part), "{part} is not in {report}");
    }
    assert!(!report.contains("the text"), "{report}");
    // Others go there all the same.
    two.submit(ALICE, CAROL, "open");
    let found = wait_for(&mut two.there.imap(ALICE), 1);
    assert!(found.contains("Subject: black box open\r\n"), "{found}");
}

#[test]
fn a_domain_gets_no_more_in_a_minute_than_is_set() {
    let two = Two::start_with("messages_per_minute_per_domain = 40");
    two.here.cli(&["queue", "hold", "--domain", "example.net"]);
    for subject in ["one", "two", "three", "four"] {
        two.submit(ALICE, CAROL, subject);
    }
    two.reach(&[], &["held"; 4]);
    let watch = Stopwatch::start();
    two.here.cli(&["queue", "release", "--domain", "example.net"]);
    wait_for(&mut two.there.imap(ALICE), 4);
    let (elapsed, least) = (watch.elapsed(), Duration::from_millis(3 * 1_500));
    assert!(elapsed >= least, "{elapsed:?} is less than {least:?}");
}
