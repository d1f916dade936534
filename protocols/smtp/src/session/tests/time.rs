use super::*;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Outputs until the session waits, without those in `Call`.
fn drain(session: &mut Session) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(output) = session.poll_output() {
        seen.push(match output {
            Output::Send(octets) => String::from_utf8_lossy(&octets).trim_end().to_owned(),
            Output::Call(call) => format!("> {}", render(&call)),
            Output::StartTls => "tls".to_owned(),
            Output::WakeAt(at) => format!("wake {}", at.as_secs()),
            Output::Close => "close".to_owned(),
        });
    }
    seen
}

fn greeted() -> Session {
    let mut session = Session::new(exchange());
    assert_eq!(drain(&mut session), ["> connect", "wake 3600"]);
    session.handle_reply(secs(1), Reply::Accepted);
    assert_eq!(drain(&mut session), ["220 mx.example ESMTP ready", "wake 301"]);
    session
}

fn feed(session: &mut Session, now: u64, input: &str) {
    assert_eq!(session.handle_input(secs(now), input.as_bytes()), input.len());
}

const TIMED_OUT: &str = "421 4.4.2 mx.example timeout, closing connection";

#[test]
fn a_silent_peer_is_cut_off() {
    let mut session = greeted();
    session.handle_timeout(secs(300));
    assert!(drain(&mut session).is_empty());
    session.handle_timeout(secs(301));
    assert_eq!(drain(&mut session), [TIMED_OUT, "close"]);
    session.handle_timeout(secs(900));
    feed(&mut session, 901, "NOOP\r\n");
    session.handle_shutdown(secs(902));
    session.handle_eof(secs(903));
    assert!(drain(&mut session).is_empty());
}

#[test]
fn only_whole_commands_restart_the_clock() {
    let mut session = greeted();
    feed(&mut session, 100, "NOOP\r\n");
    assert_eq!(drain(&mut session), ["250 2.0.0 OK"]);
    session.handle_timeout(secs(301));
    assert_eq!(drain(&mut session), ["wake 400"]);
    feed(&mut session, 399, "NOO");
    session.handle_timeout(secs(400));
    assert_eq!(drain(&mut session), [TIMED_OUT, "close"]);
}

fn in_data() -> Session {
    let mut session = greeted();
    feed(&mut session, 2, "EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<r@x>\r\nDATA\r\n");
    for _ in 0..3 {
        session.handle_reply(secs(2), Reply::Accepted);
    }
    assert!(drain(&mut session).last().is_some_and(|sent| sent.contains("354 ")));
    session
}

#[test]
fn content_restarts_the_clock() {
    let mut session = in_data();
    feed(&mut session, 200, "x");
    session.handle_timeout(secs(302));
    assert_eq!(drain(&mut session), ["wake 500"]);
    session.handle_timeout(secs(500));
    assert_eq!(drain(&mut session), [TIMED_OUT, "close"]);
}

#[test]
fn a_session_ends_though_the_peer_drips() {
    let mut session = in_data();
    for now in (2..3600).step_by(200) {
        feed(&mut session, now, "x");
        session.handle_timeout(secs(now));
        assert!(!session.is_closed(), "{now}");
    }
    session.handle_timeout(secs(3600));
    assert_eq!(drain(&mut session).last().map(String::as_str), Some("close"));
}

#[test]
fn the_outcome_of_a_call_is_told_before_the_end() {
    let mut session = in_data();
    feed(&mut session, 3, ".\r\nNOOP\r\n");
    assert_eq!(drain(&mut session), ["> end"]);
    assert!(!session.wants_input());
    session.handle_timeout(secs(3600));
    assert!(drain(&mut session).is_empty());
    session
        .handle_reply(secs(3601), Reply::MessageAccepted { id: QueueId::new("i").expect("valid") });
    assert_eq!(drain(&mut session), ["250 2.0.0 Message accepted as i", TIMED_OUT, "close"]);
}

const SHUTTING_DOWN: &str = "421 4.3.2 mx.example shutting down";

#[test]
fn shutdown_waits_for_a_place_between_commands() {
    let mut session = greeted();
    session.handle_shutdown(secs(2));
    assert_eq!(drain(&mut session), [SHUTTING_DOWN, "close"]);

    let mut session = in_data();
    session.handle_shutdown(secs(3));
    assert!(drain(&mut session).is_empty());
    feed(&mut session, 4, ".\r\nNOOP\r\n");
    session.handle_reply(secs(5), Reply::MessageAccepted { id: QueueId::new("i").expect("valid") });
    let seen = drain(&mut session);
    assert_eq!(seen, ["> end", "250 2.0.0 Message accepted as i", SHUTTING_DOWN, "close"]);

    let mut session = Session::new(exchange());
    session.handle_shutdown(secs(0));
    session.handle_reply(secs(0), Reply::Accepted);
    let seen = drain(&mut session);
    assert_eq!(seen, ["> connect", "wake 3600", SHUTTING_DOWN, "close"]);
}

#[test]
fn a_handshake_ends_without_a_word() {
    let starting = || {
        let mut session = Session::new(Config { tls: TlsState::Available, ..exchange() });
        session.handle_reply(secs(0), Reply::Accepted);
        feed(&mut session, 1, "EHLO c\r\nSTARTTLS\r\n");
        assert_eq!(drain(&mut session).last().map(String::as_str), Some("tls"));
        assert!(!session.wants_input());
        session
    };
    let mut session = starting();
    session.handle_timeout(secs(301));
    assert_eq!(drain(&mut session), ["close"]);
    let mut session = starting();
    session.handle_shutdown(secs(2));
    assert_eq!(drain(&mut session), ["close"]);
    let mut session = starting();
    session.handle_eof(secs(2));
    assert_eq!(drain(&mut session), ["close"]);
}

#[test]
fn a_refused_connection_is_closed() {
    for (refusal, reply) in [
        (Refusal::PolicyRejected, "554 5.7.1 Rejected by policy"),
        (Refusal::RateLimited, "421 4.7.1 mx.example Too much mail, try again later"),
    ] {
        let mut session = Session::new(exchange());
        session.handle_reply(secs(0), Reply::Refused(refusal));
        assert_eq!(drain(&mut session)[2..], [reply, "close"]);
    }
}

#[test]
fn early_talkers() {
    for (policy, replies) in [
        (EarlyTalkers::Serve, "220 mx.example ESMTP ready\r\n250 2.0.0 OK\r\n"),
        (EarlyTalkers::Refuse, "554 5.5.0 Protocol error: talked before the greeting\r\n"),
    ] {
        let mut session = Session::new(Config { early_talkers: policy, ..exchange() });
        assert!(session.wants_input());
        feed(&mut session, 0, "NOOP\r\n");
        assert!(session.talked_early() && !session.wants_input());
        let mut run = Run::default();
        run.serve(&mut session);
        assert_eq!(String::from_utf8_lossy(&run.sent), replies);
    }
    let mut session = Session::new(Config { early_talkers: EarlyTalkers::Refuse, ..exchange() });
    session.handle_reply(secs(0), Reply::Accepted);
    feed(&mut session, 1, "NOOP\r\n");
    assert!(!session.talked_early() && !session.is_closed());
}
