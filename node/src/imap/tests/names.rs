//! Names of mailboxes, LIST and its relatives.

use super::{HELLO, Server};

#[tokio::test]
async fn names_beyond_ascii_in_both_revisions() {
    let server = Server::new().await;
    let (mut old, mut new) = (server.login().await, server.login().await);
    assert_eq!(new.ok("ENABLE IMAP4rev2").await, ["* ENABLED IMAP4rev2"]);
    old.ok("CREATE Entw&APw-rfe/a&-b").await;
    let listed = new.ok(r#"LIST "" "Entw*""#).await;
    assert!(
        listed[0].ends_with("\"Entwürfe\"") && listed[1].ends_with("\"Entwürfe/a&b\""),
        "{listed:?}"
    );
    new.ok("CREATE \"日本語\"").await;
    let listed = old.ok(r#"LIST "" "&ZeVnLIqe-""#).await;
    assert!(
        listed[0].ends_with(" &ZeVnLIqe-") || listed[0].ends_with("\"&ZeVnLIqe-\""),
        "{listed:?}"
    );
    old.ok("SELECT &ZeVnLIqe-").await;
    new.ok("SELECT \"日本語\"").await;
}

#[tokio::test]
async fn the_second_revision_answers_otherwise() {
    let server = Server::new().await;
    server.deliver(HELLO).await;
    let mut client = server.login().await;
    let selected = client.ok("SELECT INBOX").await;
    assert!(selected.contains(&"* 0 RECENT".to_owned()));
    assert!(selected.iter().any(|line| line.starts_with("* OK [UNSEEN 1]")));
    assert!(!selected.iter().any(|line| line.starts_with("* LIST")), "{selected:?}");
    assert_eq!(client.ok("SEARCH ALL").await, ["* SEARCH 1"]);
    client.ok("ENABLE IMAP4rev2").await;
    let selected = client.ok("SELECT INBOX").await;
    assert!(selected[0].starts_with("* OK [CLOSED]"), "{selected:?}");
    assert!(!selected.iter().any(|line| line.contains("RECENT") || line.contains("UNSEEN")));
    assert!(selected.iter().any(|line| line.starts_with("* LIST")), "{selected:?}");
    let found = client.ok("SEARCH ALL").await;
    assert!(found[0].starts_with("* ESEARCH (TAG ") && found[0].ends_with("ALL 1"), "{found:?}");
    let mut other = server.login().await;
    other.ok("SELECT INBOX").await;
    other.ok(r"STORE 1 +FLAGS (\Flagged)").await;
    // RFC 9051 §7.5.2: FETCH responses that nobody asked for name the UID.
    let told = client.ok("NOOP").await;
    assert!(told[0].starts_with("* 1 FETCH (UID 1 "), "{told:?}");
}

#[tokio::test]
async fn lsub_shows_the_way_to_what_is_subscribed_below() {
    let server = Server::new().await;
    let mut client = server.login().await;
    client.ok("CREATE way/down/here").await;
    client.ok("SUBSCRIBE way/down/here").await;
    // RFC 3501 §6.3.9
    let listed = client.ok(r#"LSUB "" "w%""#).await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert!(listed[0].contains(r"\Noselect") && listed[0].ends_with(" way"), "{listed:?}");
    let listed = client.ok(r#"LSUB "" "way/%""#).await;
    assert!(listed.len() == 1 && listed[0].ends_with(" way/down"), "{listed:?}");
    let listed = client.ok(r#"LSUB "" "way*""#).await;
    assert!(listed.len() == 1 && !listed[0].contains("Noselect"), "{listed:?}");
    let listed = client.ok(r#"LIST (SUBSCRIBED RECURSIVEMATCH) "" "way""#).await;
    assert!(listed[0].contains("CHILDINFO") && listed[0].contains("SUBSCRIBED"), "{listed:?}");
    assert!(client.no("SUBSCRIBE nowhere").await.contains("NONEXISTENT"));
    client.ok("UNSUBSCRIBE nowhere").await;
}

#[tokio::test]
async fn a_rename_that_fails_leaves_nothing() {
    let server = Server::new().await;
    let mut client = server.login().await;
    client.ok("CREATE there").await;
    assert!(client.no("RENAME missing x/y/z").await.contains("NONEXISTENT"));
    assert!(client.no("RENAME there there/deep/er").await.contains("CANNOT"));
    for pattern in ["x*", "there/*"] {
        let listed = client.ok(&format!(r#"LIST "" "{pattern}""#)).await;
        assert!(listed.is_empty(), "{listed:?}");
    }
    server.check().await;
}

#[tokio::test]
async fn the_selected_mailbox_can_be_renamed() {
    let server = Server::new().await;
    server.deliver(HELLO).await;
    let mut client = server.login().await;
    client.ok("CREATE work").await;
    client.ok("SELECT INBOX").await;
    client.ok("COPY 1 work").await;
    client.ok("SELECT work").await;
    client.ok("RENAME work done/2026").await;
    let fetched = client.ok("FETCH 1 (FLAGS ENVELOPE)").await;
    assert!(fetched[0].starts_with("* 1 FETCH"), "{fetched:?}");
    client.ok(r"STORE 1 +FLAGS (\Deleted)").await;
    assert_eq!(client.ok("EXPUNGE").await, ["* 1 EXPUNGE"]);
    assert!(client.no("SELECT work").await.contains("NONEXISTENT"));
    server.check().await;
}

#[tokio::test]
async fn a_list_with_status_covers_every_mailbox() {
    let server = Server::new().await;
    let mut client = server.login().await;
    for index in 0..130 {
        client.ok(&format!("CREATE box/{index:03}")).await;
    }
    let listed = client.ok(r#"LIST "" "box/*" RETURN (STATUS (MESSAGES UIDNEXT))"#).await;
    assert_eq!(listed.iter().filter(|line| line.starts_with("* LIST")).count(), 130);
    assert_eq!(listed.iter().filter(|line| line.ends_with("(MESSAGES 0 UIDNEXT 1)")).count(), 130);
}
