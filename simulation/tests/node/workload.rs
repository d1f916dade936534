//! Clients that deliver while the store fails in every way that it can, and the proof of P1.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use env::Env;
use kv::{FaultHandle, Faults, Probability, Reach};
use simulation::{Event, Simulation, Trace};

use crate::{
    client::{Client, Greeting, Reply},
    world::{Held, LMTP, SMTP, USERS, World},
};

const CLIENTS: u8 = 6;
const MESSAGES_PER_CLIENT: u64 = 10;

/// What a client knows of one copy of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// 250: it must be there once.
    Accepted,
    /// The client would try again: it may be there once, where the commit's result was unknown.
    Refused,
}

/// One attempt; its token is used for no other.
struct Sent {
    token: String,
    message: String,
    copies: Vec<(&'static str, Told)>,
}

/// Delivers, checks what came of it, and returns the trace of the whole.
pub(crate) async fn deliver_through_faults(
    simulation: &Simulation,
    mut world: World,
) -> Vec<Event> {
    let trace = Trace::new(world.env.clone());
    let before = world.db.counts();
    let trouble = {
        let (env, faults) = (world.env.clone(), world.db.faults());
        world.env.spawn("trouble", trouble(env, faults))
    };
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let env = simulation.machine(Ipv4Addr::new(203, 0, 113, number).into());
        clients.push(env.spawn("client", client(env.clone(), number, trace.clone())));
    }
    let mut sent = Vec::new();
    for client in clients {
        sent.extend(client.await.expect("no client panics"));
    }
    trouble.await.expect("trouble does not panic");
    let counts = world.db.counts() - before;
    assert!(counts.commit_unknown > 0 && counts.conflicts > 0, "there was no trouble: {counts:?}");
    let held = world.messages().await;
    check_exactly_once(&sent, &held);
    for Held { user, row, bytes } in &held {
        trace.note(format!("{user} {row:?} {}", String::from_utf8_lossy(bytes)));
    }
    world.take_node().drain().await;
    trace.note("drained");
    trace.events()
}

/// Chance all the time, and twice no store at all.
async fn trouble(env: Env, faults: FaultHandle) {
    faults.set(Faults {
        conflict: Probability::per_million(150_000),
        commit_unknown: Probability::per_million(150_000),
        too_old: Probability::per_million(5_000),
        slow_read: Probability::per_million(20_000),
        slow_read_max: Duration::from_millis(300),
        ..Faults::default()
    });
    for (calm, reach) in [(20, Reach::CutOff), (30, Reach::RepliesLost)] {
        env.sleep(Duration::from_secs(calm)).await;
        faults.update(|faults| faults.reach = reach);
        env.sleep(Duration::from_secs(25)).await;
        faults.update(|faults| faults.reach = Reach::Connected);
    }
    env.sleep(Duration::from_secs(120)).await;
    faults.clear();
}

async fn client(env: Env, number: u8, trace: Trace) -> Vec<Sent> {
    let mut sent = Vec::new();
    for message in 0..MESSAGES_PER_CLIENT {
        env.sleep(Duration::from_millis(env.random_below(20_000))).await;
        let token = format!("c{number}m{message}");
        let greeting = if number.is_multiple_of(2) { Greeting::Ehlo } else { Greeting::Lhlo };
        sent.push(deliver(&env, token, greeting, &trace).await);
    }
    sent
}

async fn deliver(env: &Env, token: String, greeting: Greeting, trace: &Trace) -> Sent {
    let to = if greeting == Greeting::Lhlo { LMTP } else { SMTP };
    let mut client = Client::open(env, to, greeting).await;
    let note = |reply: &Reply| trace.note(format!("{token} {}", reply.text));
    let users: &[&str] = match env.random_below(3) {
        0 => &USERS[..1],
        1 => &USERS[1..],
        _ => &USERS,
    };
    let message = message(env, &token);
    let mut copies = Vec::new();
    let mut accepted = Vec::new();
    note(&client.command("MAIL FROM:<sender@remote.test>").await);
    for user in users {
        let reply = client.command(&format!("RCPT TO:<{user}>")).await;
        note(&reply);
        if reply.code == 250 { accepted.push(*user) } else { copies.push((*user, Told::Refused)) }
    }
    if !accepted.is_empty() {
        client.expect("DATA", 354).await;
        client.send(&stuffed(&message)).await;
        // RFC 2033 §4.2: LMTP answers for each recipient, SMTP for all.
        let mut last = None;
        for user in accepted {
            if last.is_none() || greeting == Greeting::Lhlo {
                let reply = client.reply().await.expect("a reply to the message");
                note(&reply);
                last = Some(reply);
            }
            let code = last.as_ref().map(|reply| reply.code);
            let told = if code == Some(250) { Told::Accepted } else { Told::Refused };
            copies.push((user, told));
        }
    }
    client.expect("QUIT", 221).await;
    Sent { token, message, copies }
}

/// From a line to more than a stream holds at once, with dots where they hurt.
fn message(env: &Env, token: &str) -> String {
    let lines = if env.random_below(10) == 0 { 4_000 } else { env.random_below(50) };
    let mut text = format!(
        "From: <sender@remote.test>\r\nMessage-ID: <{token}@remote.test>\r\n\
         Subject: {token}\r\n\r\n.\r\n"
    );
    for line in 0..lines {
        text.push_str(&format!(".{line} {:016x}\r\n", env.random_below(u64::MAX)));
    }
    text
}

/// RFC 5321 §4.5.2: a leading dot is doubled, and a lone one ends the message; its CRLF is the
/// sender's.
fn stuffed(message: &str) -> String {
    format!("{}.", message.replace("\r\n.", "\r\n.."))
}

/// P1: what was acknowledged is there once, and nothing is there twice.
fn check_exactly_once(sent: &[Sent], held: &[Held]) {
    let mut found: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for one in held {
        let sent = sent
            .iter()
            .find(|sent| one.bytes.ends_with(sent.message.as_bytes()))
            .unwrap_or_else(|| panic!("nobody sent what {} has at {}", one.user, one.row.uid));
        *found.entry((&sent.token, one.user)).or_default() += 1;
    }
    let mut accepted = 0;
    for one in sent {
        for (user, told) in &one.copies {
            let copies = found.remove(&(one.token.as_str(), *user)).unwrap_or(0);
            match told {
                Told::Accepted => assert_eq!(copies, 1, "{} to {user}: acknowledged", one.token),
                Told::Refused => assert!(copies <= 1, "{} to {user}: {copies}", one.token),
            }
            accepted += usize::from(*told == Told::Accepted);
        }
    }
    assert_eq!(found, BTreeMap::new(), "nobody gets what was not sent to them");
    assert!(accepted > 0, "nothing was accepted, so nothing was shown");
}
