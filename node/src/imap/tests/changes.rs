//! What sessions are told of each other's changes.

use super::{HELLO, Server};

async fn mailbox_of(messages: usize) -> Server {
    let server = Server::new().await;
    for _ in 0..messages {
        server.deliver(HELLO).await;
    }
    server
}

#[tokio::test]
async fn a_fetch_that_marks_as_seen_tells_what_another_session_set() {
    let server = mailbox_of(1).await;
    let (mut first, mut second) = (server.login().await, server.login().await);
    first.ok("SELECT INBOX (CONDSTORE)").await;
    second.ok("SELECT INBOX").await;
    second.ok(r"STORE 1 +FLAGS (\Flagged)").await;
    let fetched = first.ok("FETCH 1 (FLAGS MODSEQ BODY[TEXT])").await;
    assert_eq!(fetched.len(), 1, "{fetched:?}");
    assert!(fetched[0].contains(r"\Flagged") && fetched[0].contains(r"\Seen"), "{fetched:?}");
    // The MODSEQ is that of the flags: nothing changed since.
    let modseq = modseq_of(&fetched[0]);
    let since = first.ok(&format!("FETCH 1 FLAGS (CHANGEDSINCE {modseq})")).await;
    assert!(since.is_empty(), "{since:?}");
    // RFC 7162 §3.2: flags that are told unasked come with their MODSEQ.
    first.ok(r"STORE 1 -FLAGS (\Seen)").await;
    let fetched = first.ok("FETCH 1 BODY[TEXT]").await;
    assert!(fetched.len() == 1 && fetched[0].contains("MODSEQ ("), "{fetched:?}");
    server.check().await;
}

fn modseq_of(line: &str) -> u64 {
    let (_, behind) = line.split_once("MODSEQ (").expect("MODSEQ");
    behind.split(')').next().and_then(|number| number.parse().ok()).expect("a number")
}

#[tokio::test]
async fn a_silent_store_still_tells_what_others_did() {
    let server = mailbox_of(2).await;
    let (mut first, mut second) = (server.login().await, server.login().await);
    first.ok("SELECT INBOX").await;
    second.ok("SELECT INBOX").await;
    second.ok(r"STORE 1 +FLAGS (\Flagged)").await;
    // RFC 9051 §6.4.6: changes from outside are told in spite of .SILENT.
    let told = first.ok(r"STORE 1:2 +FLAGS.SILENT (\Answered)").await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("* 1 FETCH") && told[0].contains(r"\Flagged"), "{told:?}");
    assert!(first.ok("NOOP").await.is_empty());
    server.check().await;
}

#[tokio::test]
async fn concurrent_stores_lose_nothing() {
    let server = mailbox_of(3).await;
    let (mut first, mut second) = (server.login().await, server.login().await);
    first.ok("SELECT INBOX").await;
    second.ok("SELECT INBOX").await;
    for round in 0..5 {
        let (a, b) =
            (format!("STORE 1:3 +FLAGS (a{round})"), format!("STORE 1:3 +FLAGS (b{round})"));
        tokio::join!(first.ok(&a), second.ok(&b));
    }
    let flags = first.ok("FETCH 1:3 FLAGS").await;
    for line in &flags[flags.len() - 3..] {
        for round in 0..5 {
            assert!(line.contains(&format!("a{round}")) && line.contains(&format!("b{round}")));
        }
    }
    server.check().await;
}

#[tokio::test]
async fn uids_that_are_gone_are_no_error() {
    let server = mailbox_of(3).await;
    let (mut first, mut second) = (server.login().await, server.login().await);
    first.ok("SELECT INBOX").await;
    second.ok("SELECT INBOX").await;
    first.ok(r"STORE 2 +FLAGS.SILENT (\Deleted)").await;
    first.ok("EXPUNGE").await;
    // RFC 9051 §6.4.9
    let stored = second.ok(r"UID STORE 1:3 +FLAGS (\Seen)").await;
    assert_eq!(stored.iter().filter(|line| line.contains("FETCH")).count(), 2, "{stored:?}");
    assert_eq!(stored.last().map(String::as_str), Some("* 2 EXPUNGE"));
    first.ok(r"STORE 1 +FLAGS.SILENT (\Deleted)").await;
    first.ok("EXPUNGE").await;
    let fetched = second.ok("UID FETCH 1:3 ENVELOPE").await;
    assert_eq!(fetched.len(), 2, "{fetched:?}");
    assert!(fetched[0].contains("UID 3") && fetched[1] == "* 1 EXPUNGE", "{fetched:?}");
    server.check().await;
}

#[tokio::test]
async fn a_copy_does_all_or_nothing() {
    let server = mailbox_of(3).await;
    let (mut first, mut second) = (server.login().await, server.login().await);
    first.ok("SELECT INBOX").await;
    second.ok("SELECT INBOX").await;
    first.ok(r"STORE 2 +FLAGS.SILENT (\Deleted)").await;
    first.ok("EXPUNGE").await;
    // RFC 9051 §6.4.7, RFC 2180 §4.4: NO means that nothing was copied.
    assert!(second.no("COPY 1:3 Archive").await.contains("EXPUNGEISSUED"));
    let status = second.ok("STATUS Archive (MESSAGES)").await;
    assert_eq!(status[0], "* STATUS Archive (MESSAGES 0)");
    let (_, done) = second.command("UID COPY 3,1 Archive").await;
    assert!(done.contains("[COPYUID ") && done.contains(" 1,3 "), "{done}");
    server.check().await;
}

#[tokio::test]
async fn an_idling_session_sees_messages_go() {
    let server = mailbox_of(3).await;
    let (mut first, mut second) = (server.login().await, server.login().await);
    first.ok("SELECT INBOX").await;
    second.ok("SELECT INBOX").await;
    second.send(b"i IDLE\r\n").await;
    assert!(second.line().await.starts_with('+'));
    first.ok(r"UID STORE 1,3 +FLAGS.SILENT (\Deleted)").await;
    for sequence in [1, 3] {
        let line = second.line().await;
        assert!(line.starts_with(&format!(r"* {sequence} FETCH (FLAGS (\Deleted")), "{line}");
    }
    first.ok("CLOSE").await;
    assert_eq!(second.line().await, "* 3 EXPUNGE");
    assert_eq!(second.line().await, "* 1 EXPUNGE");
    second.send(b"DONE\r\n").await;
    assert!(second.line().await.starts_with("i OK"));
    assert!(second.ok("NOOP").await.is_empty());
    server.check().await;
}

#[tokio::test]
async fn a_mailbox_that_another_session_deleted_can_be_left() {
    let server = mailbox_of(0).await;
    let (mut first, mut second) = (server.login().await, server.login().await);
    first.ok("CREATE gone").await;
    for client in [&mut first, &mut second] {
        client.ok("SELECT gone").await;
    }
    let mut third = server.login().await;
    third.ok("DELETE gone").await;
    first.ok("CLOSE").await;
    first.ok("SELECT INBOX").await;
    // RFC 2180 §3.3: a session that stays in it is ended at the next chance.
    let (untagged, done) = second.command("NOOP").await;
    assert!(done.starts_with("OK"), "{untagged:?} {done}");
    assert!(second.line().await.starts_with("* BYE"));
    server.check().await;
}

#[tokio::test]
async fn changedsince_tells_what_changed_with_its_modseq() {
    let server = mailbox_of(4).await;
    let mut client = server.login().await;
    client.ok("SELECT INBOX (CONDSTORE)").await;
    let stored = client.ok(r"UID STORE 2 +FLAGS (\Flagged)").await;
    let modseq = modseq_of(&stored[0]);
    client.ok(r"STORE 3 +FLAGS (\Draft)").await;
    let changed = client.ok(&format!("UID FETCH 1:* FLAGS (CHANGEDSINCE {modseq})")).await;
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert!(changed[0].starts_with("* 3 FETCH (UID 3 ") && modseq_of(&changed[0]) > modseq);
    let found = client.ok(&format!("SEARCH RETURN (MIN) MODSEQ {modseq}")).await;
    // RFC 4731 §3.2: with MIN alone the MODSEQ is that message's.
    assert!(
        found[0].contains("MIN 2") && found[0].contains(&format!("MODSEQ {modseq}")),
        "{found:?}"
    );
    let found = client.ok(&format!("SEARCH RETURN (ALL) MODSEQ {modseq}")).await;
    assert!(found[0].contains("ALL 2:3") && !found[0].contains(&format!("MODSEQ {modseq}")));
}

#[tokio::test]
async fn a_node_that_stops_ends_a_client_with_many_commands_waiting() {
    let server = mailbox_of(1).await;
    let mut client = server.login().await;
    server.stop.stop();
    client.send(&b"x NOOP\r\n".repeat(500)).await;
    let mut answered = 0;
    loop {
        let line = client.line().await;
        if line.starts_with("* BYE") {
            break;
        }
        answered += 1;
    }
    assert!(answered <= 1, "{answered} commands were served after the stop");
}
