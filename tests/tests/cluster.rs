//! Several nodes on one store: clients work through the death of any, and cannot tell which one
//! serves them.
//!
//! Each test runs on `rookery dev-cluster`, and again, with `fdb` in its name, on a process a node
//! with FoundationDB and S3 where those are found.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

#[cfg(feature = "fdb")]
use blackbox::cluster::Apart;
use blackbox::{
    Deadline, Stopwatch,
    cluster::{Cluster, DevCluster, Door},
    imap::{Imap, number_after},
    message, program, report,
    server::{ALICE, BOB, PASSWORD},
    smtp::{Smtp, stuffed},
};

const NODES: usize = 3;

/// Clients that deliver at once.
const SENDERS: usize = 6;

/// How long clients go on trying to find a node that serves.
const RECONNECT: Duration = Duration::from_secs(60);

fn together() -> Cluster {
    Cluster::Together(DevCluster::start(NODES, &[]))
}

/// What senders know.
#[derive(Debug, Default)]
struct Sent {
    begun: Mutex<BTreeSet<String>>,
    acknowledged: Mutex<BTreeSet<String>>,
    reconnects: AtomicUsize,
}

impl Sent {
    fn count(&self) -> usize {
        self.acknowledged.lock().expect("nobody panics here").len()
    }
}

/// Calls `attempt` with one door after the other until it succeeds.
fn at_some_door<T>(
    doors: &Mutex<Vec<Door>>,
    first: usize,
    mut attempt: impl FnMut(&Door) -> std::io::Result<T>,
) -> T {
    let deadline = Deadline::after(RECONNECT);
    let mut turn = first;
    loop {
        let door = {
            let doors = doors.lock().expect("nobody panics here");
            doors[turn % doors.len()].clone()
        };
        match attempt(&door) {
            Ok(done) => return done,
            Err(error) => assert!(!deadline.is_over(), "no node serves: {error}"),
        }
        turn += 1;
    }
}

/// One message; the code of the answer to the final dot.
fn transaction(smtp: &mut Smtp, id: &str) -> std::io::Result<u16> {
    let mail = message(BOB, ALICE, id, "through whichever node");
    let mut step = |line: &[u8]| -> std::io::Result<u16> {
        smtp.wire().try_send(line)?;
        Ok(smtp.try_reply()?.code)
    };
    for (line, wanted) in
        [(format!("MAIL FROM:<{BOB}>\r\n"), 250), (format!("RCPT TO:<{ALICE}>\r\n"), 250)]
    {
        let code = step(line.as_bytes())?;
        if code != wanted {
            return Ok(code);
        }
    }
    match step(b"DATA\r\n")? {
        354 => step(&stuffed(mail.as_bytes())),
        code => Ok(code),
    }
}

/// Delivers numbered messages, by whichever node is there, until it is told to stop.
fn deliver(doors: &Mutex<Vec<Door>>, sender: usize, sent: &Sent, stop: &AtomicBool) {
    let connect = |turn| at_some_door(doors, turn, |door| Smtp::try_exchange_at(door.smtp));
    let mut smtp = connect(sender);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // A message whose fate is unknown is not sent again: the next one is another.
        let id = format!("s{sender}-{number}");
        sent.begun.lock().expect("nobody panics here").insert(id.clone());
        match transaction(&mut smtp, &id) {
            Ok(250) => {
                sent.acknowledged.lock().expect("nobody panics here").insert(id);
            }
            // A temporary failure is told; the connection goes on unless it is 421.
            Ok(code) if (400..500).contains(&code) && code != 421 => {}
            Ok(421) | Err(_) => {
                sent.reconnects.fetch_add(1, Ordering::Relaxed);
                smtp = connect(sender + number);
            }
            Ok(code) => panic!("{id}: {code}"),
        }
    }
}

/// Looks at the mailbox again and again: UIDs appear in ascending order and do not go.
fn observe(doors: &Mutex<Vec<Door>>, stop: &AtomicBool) -> usize {
    let mut looks = 0;
    let mut known: BTreeSet<u32> = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let mut imap = at_some_door(doors, looks, |door| Imap::try_login_at(door, ALICE, PASSWORD));
        let look = |imap: &mut Imap| -> std::io::Result<BTreeSet<u32>> {
            imap.try_command("EXAMINE INBOX")?;
            let lines = imap.try_command("UID SEARCH RETURN (ALL) ALL")?;
            let all = lines.iter().find_map(|line| line.text.split_once("ALL "));
            Ok(all.map(|(_, ranges)| numbers(ranges)).unwrap_or_default())
        };
        while let Ok(seen) = look(&mut imap) {
            looks += 1;
            assert!(seen.is_superset(&known), "messages went away");
            let highest = known.last().copied().unwrap_or(0);
            let late: Vec<_> = seen.difference(&known).filter(|uid| **uid < highest).collect();
            assert!(late.is_empty(), "{late:?} appeared after {highest}");
            known = seen;
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    looks
}

/// The numbers of a sequence set such as `1:3,7`.
fn numbers(set: &str) -> BTreeSet<u32> {
    let number = |text: &str| text.trim().parse::<u32>().expect("a number");
    set.split(',')
        .flat_map(|part| match part.split_once(':') {
            Some((first, last)) => number(first)..=number(last),
            None => number(part)..=number(part),
        })
        .collect()
}

/// How often each message is in Alice's INBOX; UIDs ascend.
fn inbox(door: &Door) -> BTreeMap<String, usize> {
    let mut imap = Imap::try_login_at(door, ALICE, PASSWORD).expect("the node serves");
    imap.ok("EXAMINE INBOX");
    let fetched = imap.ok("UID FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])");
    let (mut messages, mut last) = (BTreeMap::new(), 0);
    for line in fetched.untagged.iter().filter(|line| !line.literals.is_empty()) {
        let uid = number_after(&line.text, "UID ");
        assert!(uid > last, "{uid} after {last}");
        last = uid;
        let text = String::from_utf8_lossy(&line.literals[0]).into_owned();
        let id = text.split_once('<').and_then(|(_, rest)| rest.split_once('@'));
        let (id, _) = id.unwrap_or_else(|| panic!("no id in {text:?}"));
        *messages.entry(id.to_owned()).or_insert(0) += 1;
    }
    messages
}

fn check_deaths(mut cluster: Cluster, messages: usize, pause: Duration) {
    let doors = Mutex::new(cluster.doors());
    let (sent, stop) = (Sent::default(), AtomicBool::new(false));
    let clock = Stopwatch::start();
    let (deaths, looks) = thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (doors, sent, stop) = (&doors, &sent, &stop);
            scope.spawn(move || deliver(doors, sender, sent, stop));
        }
        let observer = scope.spawn(|| observe(&doors, &stop));
        let mut deaths = 0;
        // A failure here lets the others come to their end.
        let _stopper = OnDrop(|| stop.store(true, Ordering::Relaxed));
        while sent.count() < messages {
            thread::sleep(pause);
            let node = deaths % NODES + 1;
            cluster.kill(node);
            thread::sleep(pause / 2);
            cluster.start(node);
            *doors.lock().expect("nobody panics here") = cluster.doors();
            deaths += 1;
        }
        stop.store(true, Ordering::Relaxed);
        (deaths, observer.join().expect("the order held"))
    });
    let elapsed = clock.elapsed();
    let begun = sent.begun.into_inner().expect("nobody panics here");
    let acknowledged = sent.acknowledged.into_inner().expect("nobody panics here");
    let held = inbox(&cluster.door(1));
    for (id, count) in &held {
        assert!(begun.contains(id), "{id} was never sent");
        assert_eq!(*count, 1, "{id} is there {count} times");
    }
    for id in &acknowledged {
        assert!(held.contains_key(id), "{id} was acknowledged and is lost");
    }
    let fsck = cluster.fsck(1);
    report(&format!(
        "{} of {} messages acknowledged in {elapsed:.0?} through {NODES} nodes and {deaths} \
         deaths, {} reconnects: each there once; {} more were committed before their reply was \
         lost; {looks} looks found UIDs ascending\n{}",
        acknowledged.len(),
        begun.len(),
        sent.reconnects.into_inner(),
        held.len() - acknowledged.len(),
        fsck.trim_end(),
    ));
    assert!(deaths >= 3, "the test was over too soon");
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn what_is_acknowledged_is_there_once_whichever_nodes_die() {
    check_deaths(together(), 10_000, Duration::from_secs(2));
}

#[cfg(feature = "fdb")]
#[test]
fn what_is_acknowledged_on_fdb_is_there_once_whichever_nodes_die() {
    let Some(apart) = Apart::start(NODES, "") else { return };
    check_deaths(Cluster::Apart(apart), 10_000, Duration::from_secs(3));
}

/// How long idling clients take to learn of deliveries, so many by each node, by whether they came
/// in at the same node.
fn check_idle(cluster: &Cluster, ways: &str, rounds: usize, other_median_max: Duration) {
    let doors = cluster.doors();
    let (tell, told) = mpsc::channel();
    let clock = Stopwatch::start();
    thread::scope(|scope| {
        for (at, door) in doors.iter().enumerate() {
            let tell = tell.clone();
            let mut imap = Imap::try_login_at(door, ALICE, PASSWORD).expect("the node serves");
            imap.ok("SELECT INBOX");
            let tag = imap.idle();
            scope.spawn(move || {
                let last = NODES * rounds;
                let mut seen = 0;
                while seen < last {
                    let line = imap.wait_for("EXISTS").text;
                    let exists = line.split(' ').nth(1).and_then(|number| number.parse().ok());
                    let exists: usize = exists.expect("a number before EXISTS");
                    for number in seen..exists {
                        tell.send((at, number, clock.elapsed())).expect("the test listens");
                    }
                    seen = exists;
                }
                imap.done(&tag);
            });
        }
        let mut smtp: Vec<Smtp> = doors
            .iter()
            .map(|door| Smtp::try_exchange_at(door.smtp).expect("the node serves"))
            .collect();
        let mut delivered = Vec::new();
        let mut latencies: BTreeMap<bool, Vec<Duration>> = BTreeMap::new();
        for number in 0..NODES * rounds {
            let node = number % NODES;
            let code = transaction(&mut smtp[node], &format!("wake-{number}"));
            assert_eq!(code.expect("the node serves"), 250);
            delivered.push((node, clock.elapsed()));
            // All three have it before the next one, so that each is a wake-up of its own.
            for _ in 0..NODES {
                let (at, number, seen) = told.recv_timeout(RECONNECT).expect("each client learns");
                let (node, sent) = delivered[number];
                latencies.entry(at == node).or_default().push(seen.saturating_sub(sent));
            }
        }
        for (same, mut found) in latencies {
            found.sort_unstable();
            let at = |percent: usize| found[(found.len() - 1) * percent / 100];
            let place = if same { "the same node" } else { "another node" };
            report(&format!(
                "IDLE, {ways}, {place}: median {:.2?}, 90 % {:.2?}, 99 % {:.2?}, worst {:.2?} of {}",
                at(50),
                at(90),
                at(99),
                at(100),
                found.len(),
            ));
            assert!(same || at(50) < other_median_max, "{:?}", at(50));
            assert!(at(100) < RECONNECT / 10, "{:?}", at(100));
        }
    });
}

#[test]
fn idle_on_every_node_learns_of_deliveries_on_every_other() {
    for (way, ways, rounds, median_max) in [
        ("mesh", "by datagram", 20, Duration::from_millis(100)),
        ("watch", "by the watch", 20, Duration::from_millis(500)),
        ("poll", "by looking", 4, Duration::from_millis(1_500)),
    ] {
        let cluster = Cluster::Together(DevCluster::start(NODES, &["--wakeups", way]));
        check_idle(&cluster, ways, rounds, median_max);
    }
}

#[cfg(feature = "fdb")]
#[test]
fn idle_on_fdb_learns_of_deliveries_on_every_other_node() {
    for (way, ways, rounds, median_max) in [
        ("mesh", "FoundationDB, by datagram", 20, Duration::from_millis(100)),
        ("watch", "FoundationDB, by the watch", 20, Duration::from_millis(500)),
        ("poll", "FoundationDB, by looking", 4, Duration::from_millis(1_500)),
    ] {
        let Some(apart) = Apart::start(NODES, &format!("wakeups = {way:?}\n")) else { return };
        check_idle(&Cluster::Apart(apart), ways, rounds, median_max);
    }
}

/// A name that leads to all nodes, in another order each time, as DNS round robin does.
fn resolve(name: &str, nodes: &[Door], first: usize, port: impl Fn(&Door) -> SocketAddr) -> String {
    let all = (0..nodes.len()).map(|turn| port(&nodes[(first + turn) % nodes.len()]).ip());
    let addresses: Vec<String> = all.map(|ip| ip.to_string()).collect();
    format!("{name}:{}:{}", port(&nodes[0]).port(), addresses.join(","))
}

/// A client that knows one name, and is no code of ours, works through the death of any node: it
/// takes the next address where one refuses.
#[test]
fn curl_finds_a_node_by_one_name_whichever_dies() {
    const NAME: &str = "localhost";
    let Some(curl) = program::find("curl") else { return };
    let mut cluster = together();
    let doors = cluster.doors();
    let command = |first: usize, port: fn(&Door) -> SocketAddr| {
        let mut command = Command::new(&curl);
        command.args(["--silent", "--show-error", "--max-time", "60", "--insecure"]);
        command.args(["--resolve", &resolve(NAME, &doors, first, port)]);
        command
    };
    for (turn, victim) in (1..=NODES).chain(1..=NODES).enumerate() {
        cluster.kill(victim);
        // The name gives the dead node's address first.
        let id = format!("t{turn}");
        let mut send = command(victim - 1, |door| door.smtp);
        send.args(["--mail-from", BOB, "--mail-rcpt", ALICE, "--upload-file", "-"]);
        send.arg(format!("smtp://{NAME}:{}", doors[0].smtp.port()));
        program::succeed(&mut send, message(BOB, ALICE, &id, "by name").as_bytes());
        let mut read = command(victim - 1, |door| door.imaps);
        read.args(["--user", &format!("{ALICE}:{PASSWORD}")]);
        read.arg(format!("imaps://{NAME}:{}/INBOX;MAILINDEX={}", doors[0].imaps.port(), turn + 1));
        let shown = program::succeed(&mut read, b"");
        assert!(shown.contains(&id), "{shown}");
        cluster.start(victim);
    }
    report(&cluster.fsck(1));
}

/// Clients at work while every node is drained and started again, one after the other.
fn check_rolling_restart(mut cluster: Cluster) {
    let doors = Mutex::new(cluster.doors());
    let stop = AtomicBool::new(false);
    let sent = Sent::default();
    let (readers_done, longest) = thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (doors, sent, stop) = (&doors, &sent, &stop);
            scope.spawn(move || deliver_politely(doors, sender, sent, stop));
        }
        let reader = scope.spawn(|| read_politely(&doors, &stop));
        let _stopper = OnDrop(|| stop.store(true, Ordering::Relaxed));
        let mut longest = Duration::ZERO;
        for node in 1..=NODES {
            wait_until(|| sent.count() > node * 100);
            let clock = Stopwatch::start();
            cluster.drain(node);
            longest = longest.max(clock.elapsed());
            cluster.start(node);
            *doors.lock().expect("nobody panics here") = cluster.doors();
        }
        let until = sent.count() + 100;
        wait_until(|| sent.count() > until);
        stop.store(true, Ordering::Relaxed);
        (reader.join().expect("no client saw an error"), longest)
    });
    assert!(longest < Duration::from_secs(30), "{longest:?}");
    let acknowledged = sent.acknowledged.into_inner().expect("nobody panics here");
    let held = inbox(&cluster.door(1));
    assert_eq!(held.keys().collect::<Vec<_>>(), acknowledged.iter().collect::<Vec<_>>());
    assert!(held.values().all(|count| *count == 1));
    report(&format!(
        "rolling restart of {NODES} nodes: {} messages, each there once, {readers_done} reads, no \
         error at any client; the longest drain took {longest:.1?}",
        held.len()
    ));
}

fn wait_until(reached: impl Fn() -> bool) {
    let deadline = Deadline::usual();
    while !reached() {
        assert!(!deadline.is_over(), "the clients do not get on");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Delivers; a node may only say goodbye between two messages, and in its protocol's words.
fn deliver_politely(doors: &Mutex<Vec<Door>>, sender: usize, sent: &Sent, stop: &AtomicBool) {
    let connect = |turn| at_some_door(doors, turn, |door| Smtp::try_exchange_at(door.smtp));
    let mut smtp = connect(sender);
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = format!("s{sender}-{number}");
        match transaction(&mut smtp, &id) {
            Ok(250) => {
                sent.acknowledged.lock().expect("nobody panics here").insert(id);
                number += 1;
            }
            Ok(421) => smtp = connect(sender + number),
            Ok(code) => panic!("{id}: {code}"),
            // The goodbye was read as the answer to MAIL, or the connection was closed after it.
            Err(error) => panic!("{id}: {error}"),
        }
    }
}

/// Reads; a node may say BYE, and then the command was not done.
fn read_politely(doors: &Mutex<Vec<Door>>, stop: &AtomicBool) -> usize {
    let mut reads = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut imap = at_some_door(doors, reads, |door| Imap::try_login_at(door, ALICE, PASSWORD));
        loop {
            imap.wire().try_send(b"n NOOP\r\n").unwrap_or(());
            let line = match imap.try_response() {
                Ok(line) => line.text,
                Err(error) => panic!("cut off without a word: {error}"),
            };
            if line.starts_with("* BYE") {
                break;
            }
            assert!(line.starts_with("n OK") || line.starts_with("* "), "{line}");
            reads += 1;
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    reads
}

#[test]
fn a_rolling_restart_costs_no_client_an_error() {
    check_rolling_restart(together());
}

#[cfg(feature = "fdb")]
#[test]
fn a_rolling_restart_on_fdb_costs_no_client_an_error() {
    let Some(apart) = Apart::start(NODES, "") else { return };
    check_rolling_restart(Cluster::Apart(apart));
}
