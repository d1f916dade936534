//! Greeting, capabilities, STARTTLS, login, ENABLE, LOGOUT.

use bytes::Bytes;
use imap::response::*;
use imap::*;

use crate::peer::*;

#[test]
fn before_login() {
    let clear = Config { tls: TlsState::Available, ..Config::default() };
    let calls = check_after(
        &clear,
        plain,
        "",
        "a CAPABILITY
b LOGIN u p
c AUTHENTICATE PLAIN
d SELECT INBOX
e FETCH 1 FLAGS
f NOOP
g ID (\"name\" \"x\")
h ENABLE IMAP4rev2
i XYZZY
+ nonsense

j STARTTLS",
        "* CAPABILITY IMAP4rev1 IMAP4rev2 LITERAL+ ENABLE ID SASL-IR STARTTLS LOGINDISABLED
a OK CAPABILITY completed
b NO [PRIVACYREQUIRED] Passwords are taken only over TLS
c NO [PRIVACYREQUIRED] Passwords are taken only over TLS
d BAD This command is not valid before login
e BAD This command needs a selected mailbox
f OK NOOP completed
* ID NIL
g OK ID completed
h BAD This command is not valid before login
i BAD unknown command
* BAD expected a tag
* BAD expected a tag
j OK Begin TLS negotiation now
<TLS>",
    );
    assert_eq!(calls, []);
}

#[test]
fn what_was_sent_before_the_handshake_is_dropped() {
    let clear = Config { tls: TlsState::Available, ..Config::default() };
    let mut peer = Peer::new(clear, plain);
    peer.input(b"a STARTTLS\r\nb LOGIN u p\r\n");
    assert!(!peer.session.wants_input());
    peer.input(b"c LOGIN u p\r\n");
    let info = TlsInfo { channel_binding: ChannelBinding::Available };
    peer.session.handle_tls_established(START, info);
    peer.input(b"d LOGIN u p\r\n");
    assert_eq!(peer.run.calls.len(), 1);
    assert!(peer.run.output.contains("d OK [CAPABILITY "), "{}", peer.run.output);
    assert_eq!(peer.session.phase(), Phase::Authenticated);
}

fn sasl(call: &Call) -> Vec<Reply> {
    match call {
        Call::Authenticate { initial: None, .. } => vec![Reply::Challenge(Bytes::new())],
        Call::Authenticate { initial: Some(_), .. } => vec![Reply::Challenge("r=1".into())],
        Call::AuthResponse(secret) if secret.expose() == b"\0tim\0tanstaaftanstaaf" => {
            vec![Reply::Done(Completion::ok().with_code(ResponseCode::Alert))]
        }
        Call::AuthAbort => vec![],
        _ => vec![Reply::Done(Completion::no("No").with_code(ResponseCode::AuthenticationFailed))],
    }
}

#[test]
fn sasl_exchanges() {
    let mut config = config();
    config.mechanisms = vec!["PLAIN".into(), "SCRAM-SHA-256".into(), "SCRAM-SHA-256-PLUS".into()];
    check_after(
        &config,
        sasl,
        "",
        "a authenticate plain
*
b AUTHENTICATE SCRAM-SHA-256 bg==
!!
c AUTHENTICATE SCRAM-SHA-256 =
eA==
d AUTHENTICATE SCRAM-SHA-256-PLUS
e AUTHENTICATE PLAIN
AHRpbQB0YW5zdGFhZnRhbnN0YWFm
f AUTHENTICATE PLAIN",
        "+ 
a BAD The client gave up
+ cj0x
b BAD the SASL response is not valid base64
+ cj0x
c NO [AUTHENTICATIONFAILED] No
d NO [CANNOT] This SASL mechanism is not available
+ 
e OK [ALERT] AUTHENTICATE completed
f BAD This command is not valid after login",
    );
}

#[test]
fn guessing_ends_the_connection() {
    let mut peer = Peer::new(config(), sasl);
    for _ in 0..limits::AUTH_FAILURES_MAX {
        assert!(!peer.run.closed);
        peer.input(b"a LOGIN {1+}\r\nu \"p\\\"q\"\r\n");
    }
    assert!(peer.run.closed);
    assert!(peer.run.output.ends_with("* BYE Too many failed logins\r\n"));
    assert_eq!(
        peer.run.calls[0],
        Call::Login { user: "u".into(), password: Secret::new(b"p\"q".to_vec()) }
    );
}

#[test]
fn logout() {
    let mut peer = Peer::new(config(), plain);
    peer.input(b"a LOGOUT\r\nb NOOP\r\n");
    assert_eq!(peer.run.output, "* BYE Logging out\r\na OK LOGOUT completed\r\n");
    assert!(peer.run.closed);
}

#[test]
fn nonsense_ends_the_connection() {
    let mut peer = Peer::new(config(), plain);
    for _ in 0..limits::BAD_COMMANDS_MAX {
        assert!(!peer.run.closed);
        peer.input(b"GET / HTTP/1.1\r\n");
    }
    assert!(peer.run.output.ends_with("* BYE Too many bad commands\r\n"));
}

#[test]
fn greeting_and_capabilities_after_login() {
    let mut session = Session::new(config(), START);
    let greeting = "* OK [CAPABILITY IMAP4rev1 IMAP4rev2 SASL-IR AUTH=PLAIN] IMAP server ready\r\n";
    assert_eq!(session.poll_output(), Some(Output::Send(greeting.into())));
    assert_eq!(session.poll_output(), Some(Output::WakeAt(START + limits::PREAUTH_TIMEOUT)));
    assert_eq!(session.poll_output(), None);
    check_after(
        &config(),
        plain,
        "",
        "a LOGIN u p",
        "a OK [CAPABILITY IMAP4rev1 IMAP4rev2 CONDSTORE APPENDLIMIT=1000] LOGIN completed",
    );
}

#[test]
fn enabling() {
    check(
        plain,
        "a ENABLE CONDSTORE utf8=accept QRESYNC
b ENABLE CONDSTORE
c ENABLE
d UNSELECT
e CHECK",
        "* OK [HIGHESTMODSEQ 90060115205545359] CONDSTORE enabled
* ENABLED CONDSTORE
a OK ENABLE completed
* ENABLED CONDSTORE
b OK ENABLE completed
c BAD expected a space and further arguments
d OK UNSELECT completed
e BAD This command needs a selected mailbox",
    );
}
