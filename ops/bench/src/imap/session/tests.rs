use crate::testing::{Fake, Peer, errors};

/// How the server behaves; what is `None` is as it should be.
#[derive(Debug, Clone, Copy, Default)]
struct Behaviour {
    greeting: Option<&'static str>,
    capability: Option<&'static str>,
    login: Option<&'static str>,
    /// The answer to any command of the workload, with `{tag}` for its tag.
    work: Option<&'static str>,
    /// On the first connection alone.
    only_first: Option<&'static str>,
}

const CAPABILITY: &str = "IMAP4rev1 LITERAL+ IDLE";

async fn serve(mut peer: Peer, number: u64, with: Behaviour) -> Option<()> {
    peer.say(with.greeting.unwrap_or("* OK fake\n")).await?;
    loop {
        let line = peer.line().await?;
        let (tag, command) = line.split_once(' ').expect("commands have a tag");
        let ok = format!("{tag} OK done\n");
        let verb = command.split(' ').next().unwrap_or_default();
        let misbehaves = match verb {
            "CAPABILITY" | "LOGIN" | "SELECT" | "LOGOUT" => None,
            _ if number == 0 => with.only_first.or(with.work),
            _ => with.work,
        };
        match (verb, misbehaves) {
            (_, Some("drop")) => return None,
            (_, Some("hang")) => return peer.silence().await,
            (_, Some(said)) => peer.say(&said.replace("{tag}", tag)).await?,
            ("CAPABILITY", _) => {
                let list = with.capability.unwrap_or(CAPABILITY);
                peer.say(&format!("* CAPABILITY {list}\n{ok}")).await?;
            }
            ("LOGIN", _) => {
                assert_eq!(command, r#"LOGIN "u1" "a \"secret\"""#);
                peer.say(&with.login.unwrap_or(&ok).replace("{tag}", tag)).await?;
            }
            ("SELECT", _) => peer.say(&format!("* 3 EXISTS\n* FLAGS (\\Seen)\n{ok}")).await?,
            ("FETCH", _) if command.contains("BODY") => {
                // What looks like an answer of ours stands in a literal.
                let body = format!("{tag} BAD inside\n");
                // On the wire a line end has two bytes.
                let one = format!("BODY[] {{{}}}\n{body}", body.len() + 1);
                peer.say(&format!("* 1 FETCH ({one} X {one})\n* 2 FETCH (BODY[] \"\")\n")).await?;
                peer.say(&ok).await?;
            }
            ("FETCH", _) => peer.say(&format!("* 1 FETCH (X)\n* 2 FETCH (X)\n{ok}")).await?,
            ("SEARCH", _) => peer.say(&format!("* SEARCH 1 2 3\n{ok}")).await?,
            ("STORE", _) => peer.say(&format!("* 1 FETCH (FLAGS ())\n{ok}")).await?,
            ("APPEND", _) => {
                let (_, counted) = command.rsplit_once('{').expect("a literal follows");
                let digits = counted.trim_end_matches(['}', '+']);
                if !counted.contains('+') {
                    peer.say("+ go\n").await?;
                }
                let message = peer.take(digits.parse().expect("a length")).await?;
                assert!(message.starts_with(b"Message-ID: <"));
                assert_eq!(peer.line().await?, "");
                peer.say(&ok).await?;
            }
            ("IDLE", _) => {
                peer.say("+ idling\n* 4 EXISTS\n").await?;
                assert_eq!(peer.line().await?, "DONE");
                peer.say(&ok).await?;
            }
            ("LOGOUT", _) => return peer.say(&format!("* BYE\n{ok}")).await,
            (other, _) => panic!("{other}"),
        }
    }
}

async fn bench(with: Behaviour, arguments: &str) -> crate::report::Report {
    let fake = Fake::start(move |peer, number| serve(peer, number, with)).await;
    fake.bench_with(arguments, &["--user", "u{n}", "--password", "a \"secret\""]).await
}

#[tokio::test]
async fn every_workload_is_counted() {
    let check = async |workload: &str, items: u64| {
        let arguments = format!("imap --workload {workload} --count 20 -c 2 --timeout 20");
        let report = bench(Behaviour::default(), &arguments).await;
        assert_eq!((report.operations, errors(&report)), (20, vec![]), "{workload}");
        assert_eq!(report.items, items, "{workload}");
        assert_eq!(report.connections.opened, 2);
    };
    check("fetch-flags", 40).await;
    check("fetch-envelope", 40).await;
    check("fetch-body", 40).await;
    check("fetch-body --set one", 40).await;
    check("store", 20).await;
    check("search --search SUBJECT", 60).await;
    check("select", 60).await;
    check("append --size 8KB", 20).await;
    // Of ten: two lists of flags, two of envelopes, three bodies, two STOREs and a SEARCH.
    check("mixed", 2 * (7 * 2 + 2 + 3)).await;
}

#[tokio::test]
async fn literals_wait_where_they_must() {
    for capability in ["IMAP4rev1", "IMAP4rev2 LITERAL-"] {
        let with = Behaviour { capability: Some(capability), ..Behaviour::default() };
        for size in ["1KB", "8KB"] {
            let append = format!("imap --workload append --count 3 -c 1 --size {size}");
            let report = bench(with, &append).await;
            assert_eq!((report.operations, errors(&report)), (3, vec![]), "{capability} {size}");
        }
    }
}

#[tokio::test]
async fn idle_sessions_hold_until_the_end() {
    let report =
        bench(Behaviour::default(), "imap --workload idle -c 3 --duration 0.2 --timeout 20").await;
    assert_eq!((report.operations, report.items, errors(&report)), (3, 3, vec![]));
    assert!(report.elapsed_seconds >= 0.2, "{report:?}");
}

#[tokio::test]
async fn refusals_leave_the_connection_usable() {
    let check = async |work: &'static str, kind: &str, opened: u64| {
        let with = Behaviour { work: Some(work), ..Behaviour::default() };
        let report = bench(with, "imap --workload fetch-flags --count 4 -c 1").await;
        assert_eq!((report.operations, errors(&report)), (0, vec![(kind, 4)]), "{work}");
        assert_eq!(report.connections.opened, opened);
    };
    check("{tag} NO later\n", "no", 1).await;
    check("{tag} BAD what\n", "bad", 1).await;
}

#[tokio::test]
async fn a_lost_connection_is_opened_again() {
    let check = async |misbehaves: &'static str, kind: &str| {
        let with = Behaviour { only_first: Some(misbehaves), ..Behaviour::default() };
        let arguments = "imap --workload fetch-flags --count 4 -c 1 --timeout 0.5";
        let report = bench(with, arguments).await;
        assert_eq!((report.operations, errors(&report)), (3, vec![(kind, 1)]), "{misbehaves}");
    };
    check("drop", "closed").await;
    check("hang", "timeout").await;
    check("* 1 FETCH (BODY[] {1000000}\n", "timeout").await;
    check("garbage\n", "protocol").await;
    check("{tag} WHAT\n", "protocol").await;
    check("+ go\n", "protocol").await;
}

#[tokio::test]
async fn a_server_that_takes_nobody_ends_the_run() {
    let check = async |with: Behaviour, kind: &str| {
        let report = bench(with, "imap --workload select --count 4 -c 1 --timeout 0.5").await;
        assert_eq!((report.operations, errors(&report)), (0, vec![(kind, 3)]), "{with:?}");
    };
    let good = Behaviour::default();
    check(Behaviour { greeting: Some("* BYE full\n"), ..good }, "protocol").await;
    check(Behaviour { greeting: Some("220 smtp\n"), ..good }, "protocol").await;
    check(Behaviour { greeting: Some(""), login: Some(""), ..good }, "timeout").await;
    check(Behaviour { login: Some("{tag} NO wrong password\n"), ..good }, "login").await;
    check(Behaviour { capability: Some("IMAP4rev1 LOGINDISABLED"), ..good }, "login").await;
}

#[tokio::test]
async fn noise_without_an_end_is_an_error() {
    let fake = Fake::start(|mut peer: Peer, _| async move {
        peer.say("* OK fake\n").await?;
        let noise = "* CAPABILITY NOISE\n".repeat(2000);
        loop {
            peer.say(&noise).await?;
        }
    })
    .await;
    let user = ["--user", "u", "--password", "p"];
    let report = fake.bench_with("imap --workload select --count 1 -c 1", &user).await;
    assert_eq!((report.operations, errors(&report)), (0, vec![("protocol", 3)]));
}
