//! Several IMAP sessions on one mailbox: what each learns, and when (RFC 9051 §5.2, §7.5.1;
//! RFC 2180; RFC 7162; RFC 2177).

use std::time::Duration;

use blackbox::{
    Stopwatch,
    imap::{Answer, Imap, number_after},
    message, report,
    server::{ALICE, BOB, PASSWORD, Server},
    smtp::Smtp,
};

/// How soon an idling client has to know: far below the poll that is the net below lost wake-ups.
const WAKE_UP_MAX: Duration = Duration::from_secs(5);

/// A server, and a mailbox of so many messages that two sessions have selected.
fn two_sessions(messages: u32) -> (Server, Imap, Imap) {
    let server = Server::start();
    let mut one = server.imap(ALICE);
    one.ok("CREATE box");
    for number in 1..=messages {
        let mail = message(BOB, ALICE, &format!("m{number}"), "shared");
        one.append("box", "", mail.as_bytes());
    }
    one.ok("SELECT box");
    let mut two = server.imap(ALICE);
    let selected = two.ok("SELECT box");
    assert!(selected.texts().contains(&format!("{messages} EXISTS").as_str()), "{selected:?}");
    (server, one, two)
}

#[track_caller]
fn says_nothing_of(answer: &Answer, word: &str) {
    assert!(!answer.texts().iter().any(|text| text.contains(word)), "{answer:?}");
}

#[test]
fn an_idling_client_is_woken_by_mail_flags_and_expunges() {
    let server = Server::start();
    let mut idling = server.imap(ALICE);
    idling.ok("SELECT INBOX");
    let tag = idling.idle();
    let mut smtp = Smtp::lmtp(&server);
    let mut times = Vec::new();
    for number in 1..=5 {
        let mail = message(BOB, ALICE, &format!("wake-{number}"), "wake up");
        smtp.deliver(BOB, ALICE, mail.as_bytes());
        let watch = Stopwatch::start();
        idling.wait_for(&format!("* {number} EXISTS"));
        times.push(watch.elapsed());
    }
    let worst = times.iter().max().expect("there are five");
    assert!(*worst < WAKE_UP_MAX, "{times:?}");
    report(&format!("IDLE wake-up after the delivery's 250: {times:?}"));

    let mut other = server.imap(ALICE);
    other.ok("SELECT INBOX");
    other.ok("STORE 2 +FLAGS (\\Flagged)");
    let told = idling.wait_for("* 2 FETCH");
    assert!(told.text.contains("\\Flagged"), "{told:?}");
    other.ok("STORE 3 +FLAGS.SILENT (\\Deleted)");
    other.ok("EXPUNGE");
    idling.wait_for("* 3 EXPUNGE");
    idling.done(&tag);
    assert_eq!(idling.ok("UID SEARCH ALL").search(), [1, 2, 4, 5]);
}

#[test]
fn a_client_that_polls_learns_at_its_next_command() {
    let (server, mut one, mut two) = two_sessions(2);
    one.ok("STORE 1 +FLAGS (\\Answered)");
    let told = two.ok("NOOP");
    let line = told.find("1 FETCH").unwrap_or_else(|| panic!("{told:?}"));
    assert!(line.text.contains("\\Answered"), "{line:?}");
    let mail = message(BOB, ALICE, "third", "new");
    one.append("box", "", mail.as_bytes());
    assert!(two.ok("NOOP").texts().contains(&"3 EXISTS"));
    assert!(two.body(3).ends_with(mail.as_bytes()));
    // Its own change is told to it once.
    let told = two.ok("STORE 3 +FLAGS (\\Seen)");
    assert_eq!(told.texts().iter().filter(|text| text.starts_with("3 FETCH")).count(), 1);
    says_nothing_of(&two.ok("NOOP"), "FETCH");
    // Another mailbox's changes are none of this one's.
    let mut elsewhere = server.imap(ALICE);
    elsewhere.append("INBOX", "", mail.as_bytes());
    assert_eq!(two.ok("NOOP").texts(), Vec::<&str>::new());
}

#[test]
fn an_expunge_moves_no_number_under_a_command_that_uses_them() {
    let (_server, mut one, mut two) = two_sessions(5);
    one.ok("STORE 2 +FLAGS.SILENT (\\Deleted)");
    one.ok("EXPUNGE");
    // RFC 9051 §7.5.1: no EXPUNGE in the answer to FETCH, STORE or SEARCH.
    let shown = two.command("FETCH 1:5 (UID)");
    says_nothing_of(&shown, "EXPUNGE");
    for (number, uid) in [(1, 1), (3, 3), (4, 4), (5, 5)] {
        let line = format!("{number} FETCH (UID {uid})");
        assert!(shown.texts().contains(&line.as_str()), "{line} in {shown:?}");
    }
    // RFC 2180 §4.1.2, with RFC 5530's code: what is gone is not made up.
    let gone = two.command("FETCH 2 BODY.PEEK[]");
    says_nothing_of(&gone, "EXPUNGE");
    assert!(gone.status.starts_with("NO [EXPUNGEISSUED]"), "{gone:?}");
    let stored = two.command("STORE 3 +FLAGS (\\Flagged)");
    says_nothing_of(&stored, "EXPUNGE");
    assert!(stored.status.starts_with("OK"), "{stored:?}");
    says_nothing_of(&two.ok("SEARCH ALL"), "EXPUNGE");
    let told = two.ok("NOOP");
    assert!(told.texts().contains(&"2 EXPUNGE"), "{told:?}");
    assert_eq!(two.ok("SEARCH ALL").search(), [1, 2, 3, 4]);
    assert_eq!(two.ok("UID SEARCH FLAGGED").search(), [3]);
    // A UID that is gone is no error (RFC 9051 §6.4.9).
    assert_eq!(two.ok("UID FETCH 2 (FLAGS)").texts(), Vec::<&str>::new());
}

#[test]
fn a_message_that_both_expunge_goes_once() {
    let (_server, mut one, mut two) = two_sessions(3);
    one.ok("STORE 1:3 +FLAGS.SILENT (\\Deleted)");
    two.ok("NOOP");
    one.ok("UID EXPUNGE 2");
    two.ok("EXPUNGE");
    let told: Vec<String> = one.ok("NOOP").texts().into_iter().map(str::to_owned).collect();
    let expunged = told.iter().filter(|text| text.ends_with(" EXPUNGE")).count();
    assert_eq!(expunged, 2, "{told:?}");
    for session in [&mut one, &mut two] {
        let status = session.ok("STATUS INBOX (MESSAGES)");
        assert!(status.find("MESSAGES 0").is_some(), "{status:?}");
        assert_eq!(session.ok("SEARCH ALL").search(), Vec::<u32>::new());
    }
}

#[test]
fn modseqs_grow_and_guard() {
    let (_server, mut one, mut two) = two_sessions(3);
    let selected = one.ok("SELECT box (CONDSTORE)");
    let highest = number_after(&selected.texts().join("\n"), "HIGHESTMODSEQ");
    let modseq = |session: &mut Imap, uid: u32| {
        let answer = session.ok(&format!("UID FETCH {uid} (MODSEQ)"));
        number_after(&answer.find("MODSEQ").expect("it is asked for").text, "MODSEQ")
    };
    let before: Vec<u64> = (1..=3).map(|uid| modseq(&mut one, uid)).collect();
    assert!(before.is_sorted() && before[0] < before[2] && before[2] <= highest, "{before:?}");

    two.ok("UID STORE 2 +FLAGS (\\Flagged)");
    // RFC 7162 §3.1.3: a change that was not seen is not overwritten.
    let guarded = one.command(&format!("UID STORE 1:3 (UNCHANGEDSINCE {highest}) +FLAGS (kept)"));
    assert!(guarded.status.contains("[MODIFIED 2]"), "{guarded:?}");
    assert_eq!(one.ok("UID SEARCH KEYWORD kept").search(), [1, 3]);
    let changed = one.ok(&format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {highest})"));
    assert_eq!(changed.texts().iter().filter(|text| text.contains("FETCH (")).count(), 3);
    let now = modseq(&mut one, 3);
    assert!(now > highest);
    // RFC 7162 §3.1.4.1: only what changed after.
    two.ok("NOOP");
    two.ok("UID STORE 1 -FLAGS (kept)");
    let changed = one.ok(&format!("UID FETCH 1:* (UID) (CHANGEDSINCE {now})"));
    let lines = changed.texts().iter().filter(|text| text.starts_with("1 FETCH (")).count();
    assert!(lines > 0, "{changed:?}");
    says_nothing_of(&changed, "2 FETCH");
    says_nothing_of(&changed, "3 FETCH");
    let found = one.ok(&format!("SEARCH MODSEQ {}", now + 1));
    let found = found.find("SEARCH").expect("there is one").text.clone();
    assert!(found.starts_with("SEARCH 1 (MODSEQ "), "{found}");
    let status = one.ok("STATUS box (HIGHESTMODSEQ)");
    let status = number_after(&status.find("STATUS").expect("it is told").text, "HIGHESTMODSEQ");
    assert_eq!(status, modseq(&mut one, 1));
    // A STORE that changes nothing moves nothing.
    let same = modseq(&mut one, 1);
    one.ok("UID STORE 1 -FLAGS (kept)");
    assert_eq!(modseq(&mut one, 1), same);
}

#[test]
fn one_persons_mail_is_not_anothers() {
    let (server, mut one, _two) = two_sessions(1);
    let mut bob = Imap::login(&server, BOB, PASSWORD);
    assert!(bob.command("SELECT box").status.starts_with("NO"));
    bob.append("INBOX", "", b"Subject: Bob's\r\n\r\nhis\r\n");
    bob.ok("CREATE bobs");
    let listed = one.ok("LIST \"\" *");
    says_nothing_of(&listed, "bobs");
    assert!(one.ok("STATUS INBOX (MESSAGES)").find("MESSAGES 0").is_some());
}

#[test]
fn nothing_is_said_in_clear() {
    let server = Server::start();
    let (mut plain, greeting) = Imap::connect_plain(&server).expect("the server accepts");
    let offered = plain.ok("CAPABILITY").texts().join(" ");
    for text in [&greeting, &offered] {
        assert!(text.contains("STARTTLS") && text.contains("LOGINDISABLED"), "{text}");
        assert!(!text.contains("AUTH=PLAIN") && !text.contains("AUTH=LOGIN"), "{text}");
    }
    let refused = plain.command(&format!("LOGIN {ALICE} {PASSWORD}"));
    assert!(refused.status.starts_with("NO [PRIVACYREQUIRED]"), "{refused:?}");
    let refused = plain.command("AUTHENTICATE PLAIN");
    assert!(refused.status.starts_with("NO"), "{refused:?}");
}

#[test]
fn what_is_sent_before_the_handshake_is_not_carried_over() {
    let server = Server::start();
    let (mut plain, _) = Imap::connect_plain(&server).expect("the server accepts");
    // RFC 9051 §6.2.1: in one packet, so that it lies in the server's buffer.
    plain.wire().send(b"a STARTTLS\r\nb CAPABILITY\r\nc NOOP\r\n");
    let begun = plain.response().text;
    assert!(begun.starts_with("a OK"), "{begun}");
    let mut secure = plain.start_tls(&server);
    // An answer to b or c would come first, and have another tag.
    secure.ok("NOOP");
    secure.ok(&format!("LOGIN {ALICE} {PASSWORD}"));
}
