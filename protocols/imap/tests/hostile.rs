//! Whatever comes: no panic, no memory without bound, no answer before its command.

use std::time::Duration;

use imap::limits::{INPUT_BYTES_HIGH, OUTPUT_BYTES_HIGH};
use imap::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

fn session(plaintext: PlaintextPolicy) -> Session {
    Session::new(Config { plaintext, ..Config::default() }, Duration::ZERO)
}

/// Answers every call at once, in a way that moves the session on.
fn pump(session: &mut Session) -> Vec<u8> {
    let mut sent = Vec::new();
    while let Some(output) = session.poll_output() {
        let reply = match output {
            Output::Send(bytes) => {
                sent.extend_from_slice(&bytes);
                continue;
            }
            Output::Call(Call::AuthAbort | Call::AppendAbort | Call::IdleBegin) => continue,
            Output::Call(Call::AppendBegin(_) | Call::AppendData(_)) => Reply::AppendReady,
            Output::Call(Call::Authenticate { .. }) => Reply::Challenge("x".into()),
            Output::Call(_) => Reply::Done(Completion::ok()),
            Output::StartTls | Output::WakeAt(_) | Output::Close => continue,
        };
        session.handle_reply(reply);
    }
    sent
}

/// Pieces of syntax, so that random input gets beyond the first word.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "a ",
        "\r\n",
        "\n",
        "\r",
        " ",
        "(",
        ")",
        "{3}\r\n",
        "{3+}\r\n",
        "~{2+}\r\n",
        "{99999}\r\n",
        "{0+}\r\n",
        "{18446744073709551616+}\r\n",
        "\"",
        "\\",
        "*",
        "1:*",
        "$",
        "[",
        "]",
        "<0.1>",
        "a LOGIN u p\r\n",
        "a SELECT INBOX\r\n",
        "a ENABLE IMAP4rev2\r\n",
        "a IDLE\r\n",
        "DONE\r\n",
        "a APPEND x {4+}\r\n",
        "a APPEND ",
        "UID ",
        "FETCH ",
        "SEARCH ",
        "STORE ",
        "LIST ",
        "BODY[",
        "HEADER.FIELDS (",
        "RETURN (",
        "OR NOT ",
        "FLAGS ",
        "AUTHENTICATE PLAIN\r\n",
        "=\r\n",
        "CHARSET UTF-8 ",
        "&AGE-",
        "\u{e9}",
        "1-Feb-1994",
        "a LOGOUT\r\n",
        "a STATUS x (MESSAGES)\r\n",
        "\u{0}",
        "NIL",
        "INBOX",
        "a NOOP\r\n",
        "ID (",
        "CREATE x (USE (\\Sent))\r\n",
    ];
    let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    prop_oneof![9 => select(words), 1 => vec(any::<u8>(), 0..6)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn any_input_is_survived(pieces in vec(piece(), 0..60), login in any::<bool>()) {
        let mut peer = session(PlaintextPolicy::Always);
        if login {
            peer.handle_input(Duration::ZERO, b"l LOGIN u p\r\ns SELECT x\r\n");
        }
        pump(&mut peer);
        for piece in pieces {
            peer.handle_input(Duration::ZERO, &piece);
            let sent = pump(&mut peer);
            prop_assert!(sent.is_empty() || sent.ends_with(b"\r\n"));
            prop_assert!(peer.buffered_len() < INPUT_BYTES_HIGH);
        }
    }

    /// How input is cut never matters.
    #[test]
    fn pieces_make_no_difference(pieces in vec(piece(), 0..40), size in 1usize..9) {
        let whole = pieces.concat();
        let run = |size: usize| {
            let mut peer = session(PlaintextPolicy::Always);
            peer.handle_input(Duration::ZERO, b"l LOGIN u p\r\ns SELECT x\r\n");
            let mut sent = pump(&mut peer);
            for piece in whole.chunks(size) {
                peer.handle_input(Duration::ZERO, piece);
                sent.extend(pump(&mut peer));
            }
            String::from_utf8(sent).expect("no octets of the client's choice")
        };
        prop_assert_eq!(run(size), run(whole.len().max(1)));
    }
}

/// Feeds endless input of one kind, as a driver that heeds back pressure, and never answers calls.
fn check_bounded(plaintext: PlaintextPolicy, start: &str, again: &[u8]) {
    let mut peer = session(plaintext);
    peer.handle_input(Duration::ZERO, start.as_bytes());
    pump(&mut peer);
    let mut fed = 0;
    while peer.wants_input() && fed < 8 * 1024 * 1024 {
        peer.handle_input(Duration::ZERO, again);
        fed += again.len();
        // Nothing is sent: the client does not read.
        assert!(peer.buffered_len() < INPUT_BYTES_HIGH + again.len(), "{start}");
        assert!(peer.output_len() < OUTPUT_BYTES_HIGH + 4096, "{start}");
    }
}

#[test]
fn endless_input_is_bounded() {
    let long = [b'x'; 4096];
    for start in ["", "a ", "a LOGIN {5000}\r\n", "a LOGIN \"", "a AUTHENTICATE PLAIN\r\n"] {
        check_bounded(PlaintextPolicy::Always, start, &long);
    }
    for start in [
        "",
        "a LOGIN u p\r\n",
        "a LOGIN u p\r\na IDLE\r\n",
        "a LOGIN u p\r\na APPEND x {9999999+}\r\n",
    ] {
        check_bounded(PlaintextPolicy::Always, start, &long);
        check_bounded(PlaintextPolicy::Always, start, b"a CAPABILITY\r\n");
        check_bounded(PlaintextPolicy::Always, start, b"a NOOP\r\n");
    }
}

#[test]
fn pipelined_commands_are_all_answered_once_the_client_reads() {
    let mut peer = session(PlaintextPolicy::TlsOnly);
    pump(&mut peer);
    peer.handle_input(Duration::ZERO, &b"a CAPABILITY\r\n".repeat(4000));
    assert!(peer.buffered_len() < INPUT_BYTES_HIGH && !peer.wants_input());
    let sent = pump(&mut peer);
    assert!(peer.wants_input());
    let answers = String::from_utf8(sent).expect("text").matches("a OK ").count();
    assert_eq!((answers, peer.buffered_len()), (4000, 0));
}
