use proptest::prelude::*;

use super::*;
use crate::limits::{BUFFERED_OCTETS_MAX, CONTENT_CHUNK_OCTETS};

fn large() -> Config {
    let mut config = exchange();
    config.limits.message_octets_max = 1024 * 1024;
    config
}

/// Sends `input` cut as `sizes` say, over and over.
fn feed_cut(run: &mut Run, session: &mut Session, input: &[u8], sizes: &[usize]) {
    let mut rest = input;
    for &size in sizes.iter().cycle() {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        run.feed(session, piece);
        rest = after;
        if rest.is_empty() {
            return;
        }
    }
}

fn begun(mail: &str) -> (Session, Run) {
    let mut session = Session::new(large());
    let mut run = Run::default();
    run.serve(&mut session);
    let beginning = format!("EHLO c\r\nMAIL FROM:<s@y>{mail}\r\nRCPT TO:<r@x>\r\n");
    run.feed(&mut session, beginning.as_bytes());
    (session, run)
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::sample::select(vec![
            "EHLO c",
            "HELO c",
            "LHLO c",
            "MAIL FROM:<s@y>",
            "RCPT TO:<r@x>",
            "DATA",
            "RSET",
            "BDAT 3",
            "BDAT 9 LAST",
            "BDAT 0 LAST",
            "AUTH PLAIN",
            "AUTH LOGIN dXNlcg==",
            "*",
            "NOOP",
            "STARTTLS",
            "\r\n",
            "\r\n",
            "\r\n",
            "\r\n.\r\n",
            ".",
            "\n",
            "\r",
            " ",
            " BODY=BINARYMIME",
            " SMTPUTF8",
            " SIZE=5",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..8),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn hostile_input_neither_panics_nor_grows(
        words in prop::collection::vec(word(), 0..80),
        sizes in prop::collection::vec(1usize..40, 1..5),
        role in prop::sample::select(vec![Role::Exchange, Role::Submission, Role::Lmtp]),
    ) {
        let config = Config { role, ..submission() };
        let mut cut = (Session::new(config.clone()), Run::default());
        let mut whole = (Session::new(config), Run::default());
        let input = words.concat();
        cut.1.serve(&mut cut.0);
        whole.1.serve(&mut whole.0);
        feed_cut(&mut cut.1, &mut cut.0, &input, &sizes);
        whole.1.feed(&mut whole.0, &input);
        prop_assert_eq!(cut.1.sent, whole.1.sent);
        prop_assert_eq!(cut.1.calls, whole.1.calls);
        prop_assert_eq!(cut.1.closed, whole.1.closed);
    }

    #[test]
    fn data_arrives_as_sent(
        lines in prop::collection::vec("[.a\u{e4}]{0,6}", 0..400),
        repeat in 1usize..60,
        sizes in prop::collection::vec(1usize..70_000, 1..5),
    ) {
        let content = lines.iter().map(|line| format!("{line}\r\n")).collect::<String>().repeat(repeat);
        let stuffed: String = content.split_inclusive("\r\n")
            .map(|line| if line.starts_with('.') { format!(".{line}") } else { line.to_owned() })
            .collect();
        let (mut session, mut run) = begun("");
        feed_cut(&mut run, &mut session, format!("DATA\r\n{stuffed}.\r\n").as_bytes(), &sizes);
        prop_assert_eq!(&run.driver.content, content.as_bytes());
        prop_assert!(run.sent.ends_with(b"250 2.0.0 Message accepted as q1\r\n"));
    }

    #[test]
    fn bdat_arrives_as_sent(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..8),
        repeat in 1usize..40,
        sizes in prop::collection::vec(1usize..70_000, 1..5),
    ) {
        let (mut session, mut run) = begun(" BODY=BINARYMIME");
        let (mut input, mut content) = (Vec::new(), Vec::new());
        for chunk in &chunks {
            let chunk = chunk.repeat(repeat);
            input.extend_from_slice(format!("BDAT {}\r\n", chunk.len()).as_bytes());
            input.extend_from_slice(&chunk);
            content.extend_from_slice(&chunk);
        }
        input.extend_from_slice(b"BDAT 0 LAST\r\n");
        feed_cut(&mut run, &mut session, &input, &sizes);
        prop_assert_eq!(run.driver.content, content);
        prop_assert!(run.sent.ends_with(b"250 2.0.0 Message accepted as q1\r\n"));
    }
}

#[test]
fn content_comes_in_full_chunks() {
    let (mut session, mut run) = begun("");
    let line = [b"x".repeat(998), b"\r\n".to_vec()].concat();
    let content = line.repeat(200);
    run.feed(&mut session, b"DATA\r\n");
    feed_cut(&mut run, &mut session, &content, &[1460]);
    run.feed(&mut session, b".\r\n");
    let lengths: Vec<_> = run.calls.iter().filter(|call| call.starts_with("data ")).collect();
    assert_eq!(lengths.len(), content.len().div_ceil(CONTENT_CHUNK_OCTETS));
    assert_eq!(run.driver.content, content);
}

/// A driver that never takes outputs away, and one that never answers.
#[test]
fn a_lazy_driver_costs_no_memory() {
    for input in ["NOOP\r\n", "EHLO c\r\n", "HELP\r\n", "BDAT 0\r\n", "RCPT TO:<r@x>\r\n", "x"] {
        let mut config = large();
        config.limits.recipients_max = 1;
        config.limits.idle_commands_max = u32::MAX;
        config.limits.errors_max = u32::MAX;
        let mut session = Session::new(config);
        let mut run = Run::default();
        run.serve(&mut session);
        run.feed(&mut session, b"EHLO c\r\nMAIL FROM:<s@y>\r\nRCPT TO:<r@x>\r\n");
        if input.starts_with("BDAT") {
            run.feed(&mut session, b"BDAT 1\r\nx");
        }
        let flood = input.repeat(10_000);
        for _ in 0..20 {
            let _ = session.handle_input(Duration::ZERO, flood.as_bytes());
            assert!(session.buffered_len() <= BUFFERED_OCTETS_MAX, "{input:?}");
        }
        run.serve(&mut session);
        assert!(session.wants_input(), "{input:?}");
    }
}
