use super::*;

const GREETED: &str = "> connect
    S: 220 mx.example ESMTP ready
    C: EHLO c
    S: 250-mx.example
    S: 250-PIPELINING
    S: 250-SIZE 1000
    S: 250-8BITMIME
    S: 250-BINARYMIME
    S: 250-CHUNKING
    S: 250-SMTPUTF8
    S: 250-DSN
    S: 250-ENHANCEDSTATUSCODES
    S: 250-AUTH PLAIN LOGIN SCRAM-SHA-256-PLUS
    S: 250 HELP";

fn check_auth(script: &str) {
    check(&submission(), &format!("{GREETED}\n{script}"));
}

#[test]
fn plain_with_initial_response() {
    check_auth(
        "C: MAIL FROM:<s@y>
         S: 530 5.7.0 Authentication required
         C: auth plain AHVzZXIAcGFzcw==
         > auth PLAIN '\\x00user\\x00pass'
         S: 235 2.7.0 Authentication successful
         C: AUTH PLAIN AHVzZXIAcGFzcw==
         S: 503 5.5.1 Bad sequence of commands
         C: MAIL FROM:<stranger@y>
         > mail <stranger@y>
         S: 553 5.7.1 Sender address not owned by user
         C: MAIL FROM:<s@y> AUTH=<>
         > mail <s@y>
         S: 250 2.1.0 Sender OK
         C: RCPT TO:<r@x>
         > rcpt <r@x>
         S: 250 2.1.5 Recipient OK
         C: DATA
         > begin ESMTPSA c
         S: 354 Start mail input; end with <CRLF>.<CRLF>
         C: .
         > end
         S: 250 2.0.0 Message accepted as q1",
    );
}

#[test]
fn exchanges() {
    check_auth(
        "C: AUTH LOGIN
         > auth LOGIN
         S: 334 VXNlcj8=
         C: dXNlcg==
         > auth response 'user'
         S: 334 UGFzc3dvcmQ/
         C: cGFzcw==
         > auth response 'pass'
         S: 235 2.7.0 Authentication successful",
    );
    check_auth(
        "C: AUTH SCRAM-SHA-256-PLUS =
         > auth SCRAM-SHA-256-PLUS ''
         S: 334 ZW1wdHk=
         C:
         > auth response ''
         S: 334 ZW1wdHk=
         C: *
         > auth abort
         S: 501 5.7.0 Authentication aborted
         C: AUTH PLAIN
         > auth PLAIN
         S: 334 \nC: !!!
         > auth abort
         S: 501 5.5.2 Cannot decode base64
         C: AUTH PLAIN YnVzeQ==
         > auth PLAIN 'busy'
         S: 454 4.7.0 Temporary authentication failure
         C: AUTH PLAIN bWlzbWF0Y2g=
         > auth PLAIN 'mismatch'
         S: 454 4.7.0 Temporary authentication failure
         C: MAIL FROM:<s@y>
         S: 530 5.7.0 Authentication required",
    );
}

#[test]
fn errors() {
    check_auth(
        "C: AUTH
         S: 501 5.5.4 Invalid arguments
         C: AUTH GSSAPI
         S: 504 5.5.4 Unrecognized authentication mechanism
         C: AUTH SCRAM-SHA-256
         S: 504 5.5.4 Unrecognized authentication mechanism
         C: AUTH PLAIN AHVz
         > auth PLAIN '\\x00us'
         S: 535 5.7.8 Authentication credentials invalid
         C: AUTH PLAIN AHVzZ
         S: 501 5.5.2 Cannot decode base64
         C: AUTH PLAIN AHVz
         > auth PLAIN '\\x00us'
         S: 535 5.7.8 Authentication credentials invalid
         C: AUTH PLAIN AHVz
         > auth PLAIN '\\x00us'
         S: 535 5.7.8 Authentication credentials invalid
         S: 421 4.7.0 mx.example too many errors, closing connection
         X:",
    );
    check(
        &submission(),
        "> connect\nS: 220 mx.example ESMTP ready\nC: AUTH PLAIN\nS: 503 5.5.1 Bad sequence of commands",
    );
    check_message(&exchange(), "<s@y>", "C: AUTH PLAIN\nS: 502 5.5.1 Command not implemented");
}

#[test]
fn plus_needs_channel_binding() {
    let mut info = tls_info();
    info.channel_binding = ChannelBinding::Absent;
    let config = Config { tls: TlsState::Active(info), ..submission() };
    let script = GREETED.replace(" SCRAM-SHA-256-PLUS", "");
    check(
        &config,
        &format!(
            "{script}\nC: AUTH SCRAM-SHA-256-PLUS\nS: 504 5.5.4 Unrecognized authentication mechanism"
        ),
    );
}

#[test]
fn long_lines() {
    let mut session = Session::new(submission());
    let mut run = Run::default();
    run.serve(&mut session);
    run.feed(&mut session, b"EHLO c\r\nAUTH PLAIN\r\n");
    let most = "A".repeat(AUTH_LINE_OCTETS_MAX - 4);
    run.sent.clear();
    run.feed(&mut session, format!("{most}==\r\nAUTH PLAIN\r\n").as_bytes());
    assert_eq!(run.sent, b"501 5.5.2 Cannot decode base64\r\n334 \r\n");
    run.sent.clear();
    run.feed(&mut session, format!("{most}AAAA\r\n").as_bytes());
    assert_eq!(run.sent, b"500 5.5.6 Authentication exchange line is too long\r\n");
    run.sent.clear();
    let initial = "A".repeat(8000);
    run.feed(&mut session, format!("AUTH PLAIN {initial}\r\n").as_bytes());
    assert_eq!(run.sent, b"535 5.7.8 Authentication credentials invalid\r\n");
}

#[test]
fn starttls() {
    let config = Config { tls: TlsState::Available, ..submission() };
    let before = GREETED.replace("250-AUTH PLAIN LOGIN SCRAM-SHA-256-PLUS", "250-STARTTLS");
    let after = GREETED.split_once("ready\n").expect("a greeting").1;
    check(
        &config,
        &format!(
            "{before}
             C: AUTH PLAIN AHVzZXIAcGFzcw==
             S: 538 5.7.11 Encryption required for authentication
             C: MAIL FROM:<s@y>
             S: 530 5.7.0 Must issue a STARTTLS command first
             C: STARTTLS x
             S: 501 5.5.4 Invalid arguments
             C: STARTTLS
             S: 220 2.0.0 Ready to start TLS
             C: RSET
             C: NOOP
             T:
             C: MAIL FROM:<s@y>
             S: 503 5.5.1 Bad sequence of commands
             {after}
             C: STARTTLS
             S: 503 5.5.1 Bad sequence of commands"
        ),
    );
    check_message(&exchange(), "<s@y>", "C: STARTTLS\nS: 502 5.5.1 Command not implemented");
}

#[test]
fn debug_shows_no_secret() {
    let mut session = Session::new(submission());
    let mut run = Run::default();
    run.serve(&mut session);
    run.feed(&mut session, b"EHLO c\r\nAUTH PLAIN\r\nc2VjcmV0");
    let shown = format!("{session:?}");
    assert!(shown.contains("Submission") && !shown.contains("c2Vj") && !shown.contains("99, 50"));
}
