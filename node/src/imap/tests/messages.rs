//! Messages and their parts on the way in and out.

use super::{HELLO, Server};

/// A multipart with a base64 part and a message that is a multipart itself.
const NESTED: &str = "Subject: outer\nMIME-Version: 1.0\n\
    Content-Type: multipart/mixed; boundary=a\n\n\
    --a\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n\
    AAECAwQFBgcICQ==\n--a\nContent-Type: message/rfc822\n\n\
    Subject: inner\nMIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=b\n\n\
    --b\nContent-Type: text/plain\n\none\n--b\nContent-Type: text/html\nX-Mark: 1\n\n<p>two</p>\n\
    --b--\n--a--\n";

async fn check(server: &Server, item: &str, expected: &str) {
    let mut client = server.login().await;
    client.ok("SELECT INBOX").await;
    let fetched = client.ok(&format!("FETCH 1 {item}")).await;
    assert!(fetched[0].contains(expected), "{item}: {fetched:?}");
}

#[tokio::test]
async fn parts_of_nested_messages_are_found() {
    let server = Server::new().await;
    server.deliver(NESTED).await;
    for (item, expected) in [
        ("BODY.PEEK[2.HEADER.FIELDS (SUBJECT)]", "{18}\r\nSubject: inner\r\n\r\n"),
        ("BODY.PEEK[2.1]", "BODY[2.1] {3}\r\none"),
        ("BODY.PEEK[2.2.MIME]", "{38}\r\nContent-Type: text/html\r\nX-Mark: 1\r\n\r\n"),
        ("BODY.PEEK[2.2]<3.3>", "BODY[2.2]<3> {3}\r\ntwo"),
        ("BODY.PEEK[1.MIME]", "Content-Transfer-Encoding: base64\r\n\r\n"),
        ("BODY.PEEK[2.TEXT]<0.5>", "BODY[2.TEXT]<0> {5}\r\n--b\r\n"),
        ("BODY.PEEK[3]", "BODY[3] NIL"),
        ("BODY.PEEK[2.1]<9.9>", "BODY[2.1]<9> {0}\r\n"),
        ("BINARY.SIZE[1]", "BINARY.SIZE[1] 10"),
        ("BINARY.PEEK[1]", "BINARY[1] ~{10}\r\n\u{0}\u{1}\u{2}"),
        ("BINARY.PEEK[1]<4.3>", "BINARY[1]<4> "),
        ("BINARY.PEEK[1]<4.3>", "\u{4}\u{5}\u{6}"),
        ("BINARY.PEEK[2.2]", "<p>two</p>"),
    ] {
        check(&server, item, expected).await;
    }
    server.check().await;
}

#[tokio::test]
async fn a_large_message_comes_back_as_it_went_in() {
    let server = Server::new().await;
    let mut client = server.login().await;
    let mut message = b"Subject: large\r\n\r\n".to_vec();
    let mut line = 0;
    while message.len() < 5 << 20 {
        message.extend_from_slice(format!("line {line} of a message that is large\r\n").as_bytes());
        line += 1;
    }
    let done = client.append(&message).await;
    assert!(done.starts_with("OK [APPENDUID "), "{done}");
    client.ok("SELECT INBOX").await;
    let whole = client.ok("FETCH 1 BODY.PEEK[]").await;
    let text = String::from_utf8(message).unwrap();
    assert!(whole[0].contains(&text), "{} bytes came", whole[0].len());
    // Across the ends of stored chunks.
    for at in [131_072 - 7, 3 * 131_072 - 1, 4_000_000] {
        let part = client.ok(&format!("FETCH 1 BODY.PEEK[]<{at}.300000>")).await;
        let end = (at + 300_000).min(text.len());
        assert!(part[0].contains(&text[at..end]), "at {at}");
    }
}

/// A FETCH whose last piece lies just below what is written in one go must not take the next
/// command for a fault.
#[tokio::test]
async fn commands_that_wait_behind_a_large_answer_are_served() {
    let server = Server::new().await;
    let mut client = server.login().await;
    let mut message = b"Subject: x\r\n\r\n".to_vec();
    message.resize(300_000, b'x');
    client.append(&message).await;
    client.ok("SELECT INBOX").await;
    for length in (crate::limits::WRITE_BACKLOG_BYTES - 70)..crate::limits::WRITE_BACKLOG_BYTES {
        client.send(format!("f FETCH 1 BODY.PEEK[]<0.{length}>\r\nn NOOP\r\n").as_bytes()).await;
        assert!(client.line().await.starts_with("* 1 FETCH"));
        assert!(client.line().await.starts_with("f OK"));
        assert!(client.line().await.starts_with("n OK"));
    }
}

#[tokio::test]
async fn an_append_to_the_selected_mailbox_is_announced() {
    let server = Server::new().await;
    let mut client = server.login().await;
    client.ok("SELECT INBOX").await;
    client.send(b"p APPEND INBOX {5+}\r\nhello\r\n").await;
    assert_eq!(client.line().await, "* 1 EXISTS");
    assert!(client.line().await.starts_with("p OK [APPENDUID "));
    let status = client.ok("STATUS INBOX (MESSAGES UIDNEXT)").await;
    assert_eq!(status, ["* STATUS INBOX (MESSAGES 1 UIDNEXT 2)"]);
    client.send(b"p APPEND Nowhere {5}\r\n").await;
    assert!(client.line().await.starts_with("p NO [TRYCREATE]"));
}

#[tokio::test]
async fn many_single_numbers_are_one_transaction() {
    let server = Server::new().await;
    for _ in 0..40 {
        server.deliver(HELLO).await;
    }
    let mut client = server.login().await;
    client.ok("SELECT INBOX").await;
    let odd: Vec<String> = (1..40).step_by(2).map(|uid: u32| uid.to_string()).collect();
    let before = server.services.db.counts().transactions_committed;
    let stored = client.ok(&format!(r"UID STORE {} +FLAGS (\Seen)", odd.join(","))).await;
    assert_eq!(stored.len(), 20);
    let commits = server.services.db.counts().transactions_committed - before;
    assert!(commits <= 8, "{commits} commits for one STORE");
    server.check().await;
}

/// Its transactions overlap; what is told and kept is whole and in order.
#[tokio::test]
async fn a_store_of_many_is_told_whole_and_in_order() {
    let server = Server::new().await;
    for _ in 0..5 {
        server.deliver(HELLO).await;
    }
    let mut client = server.login().await;
    client.ok("SELECT INBOX").await;
    let mut count = 5;
    while count <= 2 * crate::limits::EMAILS_PER_STORE {
        client.ok("COPY 1:* INBOX").await;
        count *= 2;
    }
    let before = server.services.db.counts().transactions_committed;
    let stored = client.ok(r"STORE 1:* +FLAGS (\Flagged)").await;
    let expected = (1..=count).map(|number| format!(r"* {number} FETCH (FLAGS (\Flagged))"));
    assert_eq!(stored, expected.collect::<Vec<_>>());
    let commits = server.services.db.counts().transactions_committed - before;
    assert_eq!(commits, count.div_ceil(crate::limits::EMAILS_PER_STORE) as u64);
    assert_eq!(client.ok("SEARCH UNFLAGGED").await, ["* SEARCH"]);
    server.check().await;
}

#[tokio::test]
async fn searches_at_the_edges() {
    let server = Server::new().await;
    let mut client = server.login().await;
    client.ok("SELECT INBOX").await;
    assert_eq!(client.ok("SEARCH ALL").await, ["* SEARCH"]);
    assert_eq!(client.ok("UID SEARCH UID 1:*").await, ["* SEARCH"]);
    let (_, done) = client.command("FETCH 1:* FLAGS").await;
    assert!(done.starts_with("BAD"), "{done}");
    client.ok("UID FETCH 1:* FLAGS").await;
    for _ in 0..4 {
        server.deliver(HELLO).await;
    }
    client.ok("NOOP").await;
    client.ok(r"UID STORE 2 +FLAGS.SILENT (\Deleted)").await;
    client.ok("EXPUNGE").await;
    for (query, expected) in [
        ("SEARCH UID 100:*", "* SEARCH 3"),
        ("SEARCH UID 2", "* SEARCH"),
        ("UID SEARCH 2:3 NOT UID 3", "* SEARCH 4"),
        ("UID SEARCH OR UID 1 3", "* SEARCH 1 4"),
        ("SEARCH NOT 2", "* SEARCH 1 3"),
        // RFC 9051 §6.4.4: the day is 7 February where it was sent, whatever it is elsewhere.
        ("SEARCH SENTON 7-Feb-1994", "* SEARCH 1 2 3"),
        ("SEARCH SENTBEFORE 8-Feb-1994", "* SEARCH 1 2 3"),
        ("SEARCH SENTSINCE 8-Feb-1994", "* SEARCH"),
    ] {
        assert_eq!(client.ok(query).await, [expected], "{query}");
    }
    // RFC 5182 §2.1: what was saved stays where a SEARCH is BAD.
    client.ok("UID SEARCH RETURN (SAVE) UID 3").await;
    let (_, done) = client.command("SEARCH RETURN (SAVE) 9").await;
    assert!(done.starts_with("BAD"), "{done}");
    assert_eq!(client.ok("UID FETCH $ UID").await.len(), 1);
    assert_eq!(client.ok("SEARCH $").await, ["* SEARCH 2"]);
}

#[tokio::test]
async fn copies_into_the_selected_mailbox_and_back() {
    let server = Server::new().await;
    for _ in 0..3 {
        server.deliver(HELLO).await;
    }
    let mut client = server.login().await;
    client.ok("SELECT INBOX").await;
    let (untagged, done) = client.command("COPY 3,1 INBOX").await;
    assert_eq!(untagged.last().map(String::as_str), Some("* 5 EXISTS"), "{untagged:?}");
    assert!(done.contains(" 1,3 4:5]"), "{done}");
    let (untagged, done) = client.command("UID MOVE 5,2,99 Archive").await;
    assert!(untagged[0].contains("[COPYUID ") && untagged[0].contains(" 2,5 1:2]"), "{untagged:?}");
    assert_eq!(untagged[1..], ["* 5 EXPUNGE", "* 2 EXPUNGE"]);
    assert!(done.starts_with("OK"), "{done}");
    let (untagged, done) = client.command("UID COPY 99 Archive").await;
    assert!(untagged.is_empty() && done.starts_with("OK") && !done.contains("COPYUID"), "{done}");
    server.check().await;
}
