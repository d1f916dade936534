//! Nodes whose store goes away for a while, and a node that stands still: nothing is lost, and
//! nobody has to start anything again. On FoundationDB, where it is found.

#![cfg(feature = "fdb")]

use std::{thread, time::Duration};

use blackbox::{
    Deadline, PATIENCE, Stopwatch,
    cluster::{Apart, Door},
    imap::Imap,
    message, report,
    server::{ALICE, BOB, PASSWORD},
    smtp::Smtp,
};

/// How long the database is away.
const OUTAGE: Duration = Duration::from_secs(30);

/// How long a sender waits for its 451: five seconds, and a busy machine's share.
const TOLD_WITHIN: Duration = Duration::from_secs(9);

/// Memory that a node may take more while its store is away.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

fn imap(door: &Door) -> Imap {
    let mut imap = Imap::try_login_at(door, ALICE, PASSWORD).expect("the node serves");
    imap.ok("SELECT INBOX");
    imap
}

/// Sends one message on a connection that stays; the code of the first refusal, or of the end.
fn send(smtp: &mut Smtp, id: &str) -> u16 {
    let mail = message(BOB, ALICE, id, "in spite of all");
    for line in [format!("MAIL FROM:<{BOB}>"), format!("RCPT TO:<{ALICE}>")] {
        let reply = smtp.command(&line);
        if reply.code != 250 {
            smtp.expect("RSET", 250);
            return reply.code;
        }
    }
    smtp.data(mail.as_bytes()).code
}

fn count(imap: &mut Imap) -> usize {
    imap.ok("NOOP");
    imap.ok("UID SEARCH ALL").search().len()
}

#[test]
fn an_outage_of_fdb_is_told_and_survived() {
    let Some(mut apart) = Apart::start(2, "") else { return };
    let doors = [door(&apart, 0), door(&apart, 1)];
    let mut smtp: Vec<Smtp> =
        doors.iter().map(|door| Smtp::try_exchange_at(door.smtp).expect("it serves")).collect();
    let mut readers: Vec<Imap> = doors.iter().map(imap).collect();
    let mut idler = imap(&doors[1]);
    let idle = idler.idle();
    for (number, smtp) in smtp.iter_mut().enumerate() {
        assert_eq!(send(smtp, &format!("before-{number}")), 250);
    }
    let memory: Vec<_> = apart.servers.iter().filter_map(|it| it.memory("VmRSS")).collect();

    apart.stores.stop_database();
    let away = Stopwatch::start();
    let mut refusals = 0;
    while away.elapsed() < OUTAGE {
        for (number, smtp) in smtp.iter_mut().enumerate() {
            let asked = Stopwatch::start();
            let code = send(smtp, &format!("away-{refusals}-{number}"));
            assert!(asked.elapsed() < TOLD_WITHIN, "451 took {:?}", asked.elapsed());
            assert_eq!(code, 451, "RFC 5321 §4.2.3: local error in processing");
            refusals += 1;
        }
        for reader in &mut readers {
            let answer = reader.command("STATUS INBOX (MESSAGES)");
            assert!(answer.status.starts_with("NO [UNAVAILABLE]"), "{}", answer.status);
        }
    }
    apart.stores.start_database();

    let back = Deadline::after(PATIENCE);
    let mut sent = 2;
    for (number, smtp) in smtp.iter_mut().enumerate() {
        loop {
            match send(smtp, &format!("after-{number}")) {
                250 => break,
                451 => assert!(!back.is_over(), "the node does not find its store again"),
                code => panic!("{code}"),
            }
        }
        sent += 1;
    }
    idler.wait_for(&format!("{sent} EXISTS"));
    idler.done(&idle);
    for reader in &mut readers {
        assert_eq!(count(reader), sent);
    }
    for (server, before) in apart.servers.iter().zip(&memory) {
        let now = server.memory("VmRSS").expect("it was read before");
        assert!(now < before + GROWTH_BYTES_MAX, "{before} bytes before, {now} after");
    }
    report(&format!(
        "FoundationDB away for {OUTAGE:?}: {refusals} messages refused with 451 and none lost, on \
         the same connections; nodes took {:?} bytes more",
        apart
            .servers
            .iter()
            .zip(&memory)
            .map(|(server, before)| { server.memory("VmRSS").unwrap_or(0).saturating_sub(*before) })
            .collect::<Vec<_>>()
    ));
}

fn door(apart: &Apart, index: usize) -> Door {
    apart.door(index + 1)
}

/// A node that stands still past its time-to-live is declared dead; when it goes on it does so
/// under a new epoch, and its sessions with it.
#[test]
fn a_paused_node_on_fdb_is_declared_dead_and_comes_back() {
    let Some(apart) = Apart::start(2, "time_to_live_ms = 2000\n") else { return };
    let (here, there) = (door(&apart, 0), door(&apart, 1));
    let mut sleeper = imap(&there);
    let idle = sleeper.idle();
    let mut smtp = Smtp::try_exchange_at(here.smtp).expect("it serves");
    assert_eq!(send(&mut smtp, "before"), 250);
    sleeper.wait_for("1 EXISTS");

    apart.servers[1].pause();
    let deadline = Deadline::after(PATIENCE);
    while !apart.servers[0].log().contains("declared dead") {
        assert!(!deadline.is_over(), "nobody declares it dead");
        thread::sleep(Duration::from_millis(50));
    }
    // What comes while it is gone is told to nobody.
    assert_eq!(send(&mut smtp, "meanwhile"), 250);
    apart.servers[1].go_on();
    sleeper.wait_for("2 EXISTS");
    assert!(apart.servers[1].log().contains("this node was declared dead"));
    assert_eq!(send(&mut smtp, "after"), 250);
    sleeper.wait_for("3 EXISTS");
    sleeper.done(&idle);
    let mut beside = Smtp::try_exchange_at(there.smtp).expect("it serves again");
    assert_eq!(send(&mut beside, "from it"), 250);
    report(apart.servers[0].cli(&["fsck", "--speed", "100"]).trim_end());
}
