use std::sync::{Arc, Mutex};

use crate::testing::{Fake, Peer, errors};

/// What the server says to a command; `None` for what [`serve`] says by itself.
type Script = fn(&str, u64) -> Option<&'static str>;

const HELLO: &str = "250-fake\n250-PIPELINING\n250 8BITMIME\n";

/// Without pipelining.
const PLAIN: &str = "250 fake\n";

/// A server that takes everything but what the script refuses. LMTP where it is greeted so.
async fn serve(
    mut peer: Peer,
    connection: u64,
    hello: &str,
    script: Script,
    seen: Seen,
) -> Option<()> {
    peer.say(script("greeting", connection).unwrap_or("220 fake\n")).await?;
    let mut is_lmtp = false;
    let mut recipients = 0;
    let mut has_sender = false;
    loop {
        let line = peer.line().await?;
        seen.lock().unwrap().push(line.clone());
        let verb = line.split([' ', ':']).next().unwrap_or_default();
        let said = script(&line, connection);
        match (verb, said) {
            (_, Some("drop")) => return None,
            (_, Some("hang")) => return peer.silence().await,
            ("DATA", None) if has_sender => {
                peer.say("354 go\n").await?;
                let mut message = String::new();
                loop {
                    let line = peer.line().await?;
                    if line == "." {
                        break;
                    }
                    message += &format!("{line}\n");
                }
                seen.lock().unwrap().push(message);
                let replies = if is_lmtp { recipients } else { 1 };
                recipients = 0;
                for number in 0..replies {
                    let end = if number == 0 { "first dot" } else { "dot" };
                    match script(end, connection) {
                        Some("drop") => return None,
                        said => peer.say(said.unwrap_or("250 taken\n")).await?,
                    }
                }
            }
            (_, Some(said)) => peer.say(said).await?,
            ("EHLO" | "LHLO", None) => {
                is_lmtp = verb == "LHLO";
                peer.say(hello).await?;
            }
            ("RCPT" | "DATA", None) if !has_sender => peer.say("503 5.5.1 MAIL first\n").await?,
            ("RCPT", None) => {
                recipients += 1;
                peer.say("250 ok\n").await?;
            }
            ("QUIT", None) => return peer.say("221 bye\n").await,
            ("MAIL" | "RSET", None) => {
                has_sender = verb == "MAIL";
                recipients = 0;
                peer.say("250 ok\n").await?;
            }
            (other, None) => panic!("{other}"),
        }
    }
}

type Seen = Arc<Mutex<Vec<String>>>;

async fn fake(hello: &'static str, script: Script) -> (Fake, Seen) {
    let seen = Seen::default();
    let shared = Arc::clone(&seen);
    let serve = move |peer, number| serve(peer, number, hello, script, Arc::clone(&shared));
    (Fake::start(serve).await, seen)
}

const TO: &str = "--to u{n}@example.org --size 1KB";

#[tokio::test]
async fn messages_are_sent_and_counted() {
    let (fake, seen) = fake(HELLO, |_, _| None).await;
    let report = fake.bench(&format!("smtp {TO} --count 20 -c 4 --recipients 5")).await;
    assert_eq!((report.operations, report.items, errors(&report)), (20, 20, vec![]));
    assert_eq!((report.connections.asked, report.connections.opened), (4, 4));
    assert_eq!(report.bytes, 20 * 1003);
    let latency = serde_json::to_value(report.latency_ms).unwrap();
    assert!(latency["p50"].as_f64() <= latency["max"].as_f64());
    let seen = seen.lock().unwrap();
    let mut sent: Vec<_> = seen.iter().filter(|line| line.starts_with("Message-ID")).collect();
    sent.sort_unstable();
    sent.dedup();
    assert_eq!(sent.len(), 20, "every message is another");
    for n in 1..=5 {
        let rcpt = format!("RCPT TO:<u{n}@example.org>");
        assert_eq!(seen.iter().filter(|line| **line == rcpt).count(), 4, "{rcpt}");
    }
    assert_eq!(seen.iter().filter(|line| *line == "QUIT").count(), 4);
}

#[tokio::test]
async fn lmtp_counts_each_recipient() {
    let script: Script = |line, _| (line == "first dot").then_some("552 5.2.2 full\n");
    let (fake, _) = fake(HELLO, script).await;
    let more = "--count 10 -c 1 --recipients 9 --rcpts-per-message 3 --order random";
    let report = fake.bench(&format!("lmtp {TO} {more}")).await;
    assert_eq!((report.operations, report.items), (10, 20));
    assert_eq!(errors(&report), [("5xx", 10)]);
    assert_eq!(report.errors[0].first, "552 5.2.2 full");
}

#[tokio::test]
async fn without_pipelining_commands_go_one_by_one() {
    let (fake, seen) = fake(PLAIN, |_, _| None).await;
    let report = fake.bench(&format!("smtp {TO} --count 5 -c 1 --rcpts-per-message 2")).await;
    assert_eq!((report.operations, errors(&report)), (5, vec![]));
    assert!(seen.lock().unwrap().iter().any(|line| line.starts_with("RCPT TO:<u1@")));
}

#[tokio::test]
async fn refusals_leave_the_connection_usable() {
    let check = async |script: Script, operations: u64, expected: &[(&str, u64)]| {
        for hello in [HELLO, PLAIN] {
            let (fake, _) = fake(hello, script).await;
            let report = fake.bench(&format!("smtp {TO} --count 6 -c 1 --recipients 2")).await;
            assert_eq!((report.operations, errors(&report)), (operations, expected.to_vec()));
            assert_eq!(report.connections.opened, 1);
        }
    };
    check(|line, _| line.contains("<u1@").then_some("450 later\n"), 3, &[("4xx", 3)]).await;
    check(|line, _| line.starts_with("MAIL").then_some("550 no\n"), 0, &[("5xx", 6)]).await;
    check(|line, _| line.starts_with("DATA").then_some("451 no\n"), 0, &[("4xx", 6)]).await;
    check(|line, _| (line == "first dot").then_some("554 no\n"), 0, &[("5xx", 6)]).await;
}

#[tokio::test]
async fn a_lost_connection_is_opened_again() {
    let check = async |script: Script, kind: &str| {
        let (fake, _) = fake(HELLO, script).await;
        let report = fake.bench(&format!("smtp {TO} --count 6 -c 1 --timeout 0.5")).await;
        assert_eq!((report.operations, errors(&report)), (5, vec![(kind, 1)]));
    };
    // Only the first connection's server misbehaves.
    check(|line, n| (n == 0 && line.starts_with("DATA")).then_some("drop"), "closed").await;
    check(|line, n| (n == 0 && line == "first dot").then_some("drop"), "closed").await;
    check(|line, n| (n == 0 && line.starts_with("MAIL")).then_some("hang"), "timeout").await;
    check(|line, n| (n == 0 && line.starts_with("MAIL")).then_some("what?\n"), "protocol").await;
    check(|line, n| (n == 0 && line.starts_with("MAIL")).then_some("421 bye\n"), "4xx").await;
}

#[tokio::test]
async fn a_server_that_takes_nobody_ends_the_run() {
    let check = async |script: Script, kind: &str| {
        let (fake, _) = fake(HELLO, script).await;
        let report = fake.bench(&format!("lmtp {TO} --count 6 -c 2 --timeout 0.3")).await;
        assert_eq!((report.operations, errors(&report)), (0, vec![(kind, 6)]), "3 tries each");
        assert_eq!(report.connections.opened, 0);
        assert!(report.verdict(100).is_err());
    };
    check(|line, _| (line == "greeting").then_some("554 busy\n"), "5xx").await;
    check(|line, _| (line == "greeting").then_some("HTTP/1.1 400\n"), "protocol").await;
    check(|line, _| (line == "greeting").then_some(""), "timeout").await;
    check(|line, _| line.starts_with("LHLO").then_some("502 no LMTP\n"), "5xx").await;
}

#[tokio::test]
async fn replies_and_lines_without_an_end_are_errors() {
    for endless in ["250-more\r\n", "x"] {
        let fake = Fake::start(move |mut peer: Peer, _| async move {
            let text = endless.repeat(8192);
            loop {
                peer.say(&text).await?;
            }
        })
        .await;
        let report = fake.bench(&format!("smtp {TO} --count 1 -c 1")).await;
        assert_eq!((report.operations, errors(&report)), (0, vec![("protocol", 3)]));
    }
}

#[tokio::test]
async fn nobody_listens() {
    let (fake, _) = fake(HELLO, |_, _| None).await;
    let nobody = fake.gone();
    let report = nobody.bench(&format!("smtp {TO} --count 6 -c 1")).await;
    assert_eq!((report.operations, errors(&report)), (0, vec![("connect", 3)]));
}

#[tokio::test]
async fn the_measured_time_ends() {
    let (fake, _) = fake(HELLO, |_, _| None).await;
    let report = fake.bench(&format!("smtp {TO} -c 2 --duration 0.2 --warm-up 0.1")).await;
    assert!(report.operations > 0 && report.elapsed_seconds >= 0.1, "{report:?}");
    assert_eq!(errors(&report), []);
}

#[tokio::test]
async fn logins_are_refused_and_taken() {
    let hello = "250-fake\n250 AUTH PLAIN\n";
    let with = format!("smtp {TO} --count 1 -c 1 --user tim --password tanstaaftanstaaf");
    let taken: Script =
        |line, _| (line == "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm").then_some("235 welcome\n");
    let (server, _) = fake(hello, taken).await;
    assert_eq!(server.bench(&with).await.operations, 1);
    let (server, _) = fake(hello, |line, _| line.starts_with("AUTH").then_some("535 no\n")).await;
    assert_eq!(errors(&server.bench(&with).await), [("login", 3)]);
    let (server, _) = fake(HELLO, |_, _| None).await;
    let report = server.bench(&with).await;
    assert_eq!(errors(&report), [("login", 3)]);
    assert!(report.errors[0].first.contains("is offered"), "{report:?}");
}
