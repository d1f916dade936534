//! The outbound queue of several nodes that die again and again while mail leaves for many domains,
//! some of which are down: each message arrives once, or twice only where the answer was lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

#[cfg(feature = "fdb")]
use blackbox::cluster::Apart;
use blackbox::{
    Deadline, Stopwatch,
    cluster::{Cluster, DevCluster, Door},
    imap::Imap,
    names::Names,
    report,
    server::{ALICE, PASSWORD},
    smtp::Smtp,
};

const NODES: usize = 3;
const DOMAINS: usize = 1_000;
const MESSAGES: usize = 10_000;

/// The last of them have no server that answers.
const DOMAINS_DOWN: usize = 20;

/// Recipients of one message, each in another domain.
const RECIPIENTS: usize = 5;

/// One in so many messages is taken, and the connection ended without a word.
const SILENT_EVERY: usize = 97;

/// How long the queue may take.
const PATIENCE: Duration = Duration::from_secs(240);

/// A mail server that counts what it takes.
#[derive(Default)]
struct Sink {
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    /// How often it took each copy: the message and its recipient.
    copies: BTreeMap<(String, String), usize>,
    /// Copies of whose taking it said nothing, or after which the connection broke.
    unheard: BTreeMap<(String, String), usize>,
    messages: usize,
}

impl Sink {
    /// Listens; its threads live as long as the test's process.
    fn start() -> (Arc<Self>, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let sink = Arc::new(Self::default());
        let taking = Arc::clone(&sink);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sink = Arc::clone(&taking);
                thread::spawn(move || sink.serve(&stream));
            }
        });
        (sink, port)
    }

    /// One connection, up to its end; what was said last may not have been heard.
    fn serve(&self, stream: &TcpStream) {
        let mut unheard = Vec::new();
        let _over = self.talk(stream, &mut unheard);
        let mut taken = self.taken.lock().expect("nobody panics here");
        for copy in unheard {
            *taken.unheard.entry(copy).or_default() += 1;
        }
    }

    fn talk(
        &self,
        mut stream: &TcpStream,
        unheard: &mut Vec<(String, String)>,
    ) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        let mut say = |line: &str| stream.write_all(format!("{line}\r\n").as_bytes());
        say("220 sink ESMTP")?;
        let mut recipients = Vec::new();
        while let Some(line) = lines.next().transpose()? {
            unheard.clear();
            match line.get(..4).unwrap_or_default() {
                "EHLO" => say("250-sink\r\n250 PIPELINING")?,
                "RCPT" => {
                    let path = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
                    recipients.push(path.expect("a path").0.to_owned());
                    say("250 yes")?;
                }
                "DATA" => {
                    say("354 go on")?;
                    let mut id = String::new();
                    for line in lines.by_ref() {
                        let line = line?;
                        if let Some(found) = line.strip_prefix("Message-ID: <") {
                            found.trim_end_matches('>').clone_into(&mut id);
                        }
                        if line == "." {
                            break;
                        }
                    }
                    let copies = std::mem::take(&mut recipients);
                    *unheard = copies.into_iter().map(|to| (id.clone(), to)).collect();
                    if self.take(unheard).is_multiple_of(SILENT_EVERY) {
                        return Ok(());
                    }
                    say("250 taken")?;
                }
                "QUIT" => return say("221 bye"),
                _ => say("250 yes")?,
            }
        }
        Ok(())
    }

    fn take(&self, copies: &[(String, String)]) -> usize {
        let mut taken = self.taken.lock().expect("nobody panics here");
        for copy in copies {
            *taken.copies.entry(copy.clone()).or_default() += 1;
        }
        taken.messages += 1;
        taken.messages
    }

    fn count(&self) -> usize {
        self.taken.lock().expect("nobody panics here").copies.len()
    }
}

fn domain(number: usize) -> String {
    format!("d{number}.test")
}

/// The recipients of a message: some domains in turn, so that all get as many.
fn recipients(message: usize) -> Vec<String> {
    let first = message * RECIPIENTS;
    (first..first + RECIPIENTS).map(|at| format!("x@{}", domain(at % DOMAINS))).collect()
}

/// So that what is for domains that are down expires while the test runs.
const OUTBOUND: &str = "retry_seconds_min = 1\nretry_seconds_max = 2\nexpire_seconds = 20\n\
                        delay_notice_seconds = 15\n";

/// Submits messages until each is acknowledged by some node; returns those whose fate was unknown
/// at some time, which may be in the queue twice.
fn submit(doors: &Mutex<Vec<Door>>, sender: usize, senders: usize) -> BTreeSet<String> {
    let mut doubtful = BTreeSet::new();
    let mut smtp: Option<Smtp> = None;
    let mut turn = sender;
    for message in (sender..MESSAGES / RECIPIENTS).step_by(senders) {
        let deadline = Deadline::after(PATIENCE);
        loop {
            assert!(!deadline.is_over(), "no node takes message {message}");
            let open = smtp.take().map_or_else(
                || {
                    turn += 1;
                    let doors = doors.lock().expect("nobody panics here");
                    Smtp::try_submissions_at(&doors[turn % doors.len()], ALICE, PASSWORD)
                },
                Ok,
            );
            let Ok(mut open) = open else {
                thread::sleep(Duration::from_millis(50));
                continue;
            };
            match transaction(&mut open, message) {
                Ok(250) => {
                    smtp = Some(open);
                    break;
                }
                Ok(_) => {}
                Err(_) => {
                    doubtful.insert(format!("m{message}@test"));
                }
            }
        }
    }
    doubtful
}

/// The code of the last answer.
fn transaction(smtp: &mut Smtp, message: usize) -> std::io::Result<u16> {
    let mut step = |line: &[u8]| -> std::io::Result<u16> {
        smtp.wire().try_send(line)?;
        Ok(smtp.try_reply()?.code)
    };
    let mut lines = vec![format!("MAIL FROM:<{ALICE}>\r\n")];
    lines.extend(recipients(message).iter().map(|to| format!("RCPT TO:<{to}>\r\n")));
    for line in lines {
        let code = step(line.as_bytes())?;
        if code != 250 {
            return Ok(code);
        }
    }
    match step(b"DATA\r\n")? {
        354 => step(
            format!("From: <{ALICE}>\r\nMessage-ID: <m{message}@test>\r\n\r\nhello\r\n.\r\n")
                .as_bytes(),
        ),
        code => Ok(code),
    }
}

/// Recipients that reports in Alice's INBOX name as failed, with their message's id.
fn reported(door: &Door) -> BTreeSet<(String, String)> {
    let mut imap = Imap::try_login_at(door, ALICE, PASSWORD).expect("the node serves");
    imap.ok("EXAMINE INBOX");
    let mut found = BTreeSet::new();
    if imap.ok("UID SEARCH ALL").search().is_empty() {
        return found;
    }
    for line in &imap.ok("FETCH 1:* (BODY.PEEK[])").untagged {
        let Some(text) = line.literals.first() else { continue };
        let text = String::from_utf8_lossy(text);
        let id = text.split_once("Message-ID: <m").and_then(|(_, rest)| rest.split_once('>'));
        let Some((id, _)) = id else { continue };
        for group in text.split("Final-Recipient: rfc822; ").skip(1) {
            let (recipient, rest) = group.split_once("\r\n").expect("a line");
            if rest.starts_with("Action: failed") {
                found.insert((format!("m{id}"), recipient.to_owned()));
            }
        }
    }
    found
}

/// A domain's server, or where nobody listens.
fn names() -> Names {
    let names = Names::start();
    for number in 0..DOMAINS {
        let name = domain(number);
        let is_down = number >= DOMAINS - DOMAINS_DOWN;
        let address = Ipv4Addr::new(127, 0, 0, if is_down { 200 } else { 1 });
        names.exchange(&name, 10, &format!("mx.{name}"));
        names.address(&format!("mx.{name}"), address);
    }
    names
}

#[test]
fn every_message_leaves_once_whichever_nodes_die() {
    let (sink, port) = Sink::start();
    let names = names();
    let folder = tempfile::TempDir::new().expect("the temporary folder is writable");
    let file = folder.path().join("sections.toml");
    let whole = format!(
        "hostname = \"mx.example.org\"\ndata = \"/nowhere\"\n\
         tls = {{ certificate = \"/c\", key = \"/k\" }}\n{}",
        names.sections(port, OUTBOUND)
    );
    std::fs::write(&file, whole).expect("it is writable");
    let cluster = DevCluster::start(NODES, &["--config", &file.display().to_string()]);
    check(Cluster::Together(cluster), &sink);
}

#[cfg(feature = "fdb")]
#[test]
fn every_message_leaves_once_on_fdb_whichever_nodes_die() {
    let (sink, port) = Sink::start();
    let names = names();
    let Some(apart) = Apart::start(NODES, &names.sections(port, OUTBOUND)) else { return };
    check(Cluster::Apart(apart), &sink);
}

fn check(mut cluster: Cluster, sink: &Sink) {
    let doors = Mutex::new(cluster.doors());
    let clock = Stopwatch::start();
    let expected = MESSAGES - MESSAGES / DOMAINS * DOMAINS_DOWN;
    let (deaths, doubtful) = thread::scope(|scope| {
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                scope.spawn({
                    let doors = &doors;
                    move || submit(doors, sender, 4)
                })
            })
            .collect();
        let deadline = Deadline::after(PATIENCE);
        let mut deaths = 0;
        while sink.count() < expected {
            assert!(!deadline.is_over(), "{} of {expected} have arrived", sink.count());
            thread::sleep(Duration::from_millis(1_000));
            let node = deaths % NODES + 1;
            cluster.kill(node);
            thread::sleep(Duration::from_millis(300));
            cluster.start(node);
            *doors.lock().expect("nobody panics here") = cluster.doors();
            deaths += 1;
        }
        let doubtful: BTreeSet<String> =
            senders.into_iter().flat_map(|sender| sender.join().expect("it sent all")).collect();
        (deaths, doubtful)
    });
    let elapsed = clock.elapsed();

    // What is for domains that are down expires, and its sender is told of each.
    let unreachable: BTreeSet<(String, String)> = (0..MESSAGES / RECIPIENTS)
        .flat_map(|message| {
            let down = recipients(message).into_iter().filter(|to| {
                let number = to.trim_start_matches("x@d").trim_end_matches(".test");
                number.parse::<usize>().expect("a number") >= DOMAINS - DOMAINS_DOWN
            });
            down.map(move |to| (format!("m{message}@test"), to)).collect::<Vec<_>>()
        })
        .collect();
    let deadline = Deadline::after(PATIENCE);
    let mut told = reported(&cluster.door(1));
    while !told.is_superset(&unreachable) {
        assert!(!deadline.is_over(), "{} of {} are told", told.len(), unreachable.len());
        thread::sleep(Duration::from_secs(1));
        told = reported(&cluster.door(1));
    }
    assert_eq!(told.difference(&unreachable).next(), None, "what has arrived did not fail");

    let taken = sink.taken.lock().expect("nobody panics here");
    let (mut twice, mut after_death) = (0, 0);
    for (copy, count) in taken.copies.iter().filter(|(_, count)| **count > 1) {
        if doubtful.contains(&copy.0) {
            // Its sender submitted it again.
            continue;
        }
        let unheard = taken.unheard.get(copy).copied().unwrap_or(0);
        match unheard + 1 >= *count {
            true => twice += 1,
            // The answer was heard by a node that died before it could note it.
            false => after_death += count - 1 - unheard,
        }
    }
    // As many as can be on their way in one node, for each death.
    assert!(after_death <= deaths * 64, "{after_death} came twice without a reason");
    report(&format!(
        "{} copies of {} messages left for {} domains through {NODES} nodes and {deaths} deaths in \
         {elapsed:.0?}; {twice} came twice because the answer was lost, {after_death} because a node \
         died that had heard it; {} were submitted again; {} for {DOMAINS_DOWN} domains that were down \
         were reported\n{}",
        taken.copies.len(),
        MESSAGES / RECIPIENTS,
        DOMAINS - DOMAINS_DOWN,
        doubtful.len(),
        unreachable.len(),
        cluster.fsck(1).trim_end(),
    ));
    assert!(deaths >= 3, "the test was over too soon");
}
