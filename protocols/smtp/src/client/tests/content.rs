use super::*;
use crate::limits::{CHUNKS_UNANSWERED_MAX, CONTENT_CHUNK_OCTETS};

fn chunking() -> Settings {
    Settings { chunking: Chunking::IfOffered, ..settings() }
}

const BEGUN: &str = "! begin <s@y> <r@x>
     C: MAIL FROM:<s@y>
     C: RCPT TO:<r@x>
     C: DATA
     S: 250 ok
     S: 250 ok
     S: 354 go
     > content Data [0]";

fn check_data(script: &str) {
    check_ready(settings, "PIPELINING", &format!("{BEGUN}\n{script}"));
}

#[test]
fn dots_are_doubled_across_pieces() {
    check_data(
        "! content .\\r\\n..a\\r\\n\n! content .b.\\r\n! content \\n\n! content .\n! finish\nC: ..\nC: ...a\nC: ..b.\nC: ..\nC: .",
    );
}

#[test]
fn a_last_line_is_ended() {
    check_data("! content x\n! finish\nC: x\nC: .");
    check_data("! content x\\r\\n\n! finish\nC: x\nC: .");
    check_data("! content x\\r\n! finish\nc: x\\r\\r\\n.\\r\\n");
    check_data("! finish\nC: .");
}

#[test]
fn nothing_goes_behind_the_end() {
    check_data(
        "! finish
         C: .
         ! content y
         ! finish
         S: 250 ok
         > answered accepted 250 ok
         ! content y
         ! finish",
    );
}

/// Whoever writes knows which octets the server may take the message with.
#[test]
fn only_the_end_is_said_to_be_one() {
    let check = |settings: Settings, offered: &str, pieces: usize, expected: &[(&str, bool)]| {
        let mut run = Run::new(settings);
        run.feed(format!("220 mx\r\n250-mx\r\n250-PIPELINING\r\n250 {offered}\r\n").as_bytes());
        run.client.begin(run.now, transaction("<s@y> <r@x>")).expect("possible");
        let go: &[u8] = if offered == "CHUNKING" { b"" } else { b"354 go\r\n" };
        run.feed(&[b"250 ok\r\n250 ok\r\n", go].concat());
        for _ in 0..pieces {
            run.client.content(run.now, Bytes::from_static(b"hello\r\n"));
        }
        run.client.finish(run.now);
        let mut written = Vec::new();
        while let Some(output) = run.client.poll_output() {
            match output {
                Output::Send(octets) => written.push((octets, false)),
                Output::SendEnd(octets) => written.push((octets, true)),
                _ => {}
            }
        }
        let shown: Vec<_> = written
            .iter()
            .map(|(octets, is_end)| (std::str::from_utf8(octets).expect("text"), *is_end))
            .collect();
        assert_eq!(shown, expected);
    };
    check(settings(), "HELP", 1, &[("hello\r\n", false), (".\r\n", true)]);
    check(settings(), "HELP", 0, &[(".\r\n", true)]);
    check(chunking(), "CHUNKING", 2, &[("BDAT 14 LAST\r\nhello\r\nhello\r\n", true)]);
}

/// Whatever a server takes for a line's end: none but the end's own dot stands alone.
#[test]
fn bare_line_endings_make_no_end() {
    for text in
        ["a\n.\nb", "a\n.\r\nb", "a\r.\rb", "a\r.\r\nb", "\n.\r\n", ".\n.\r.\r\n.", "a\r\r\n.\r"]
    {
        for cut in 0..=text.len() {
            let mut run = Run::new(settings());
            run.feed(b"220 mx\r\n250-mx\r\n250 PIPELINING\r\n");
            run.client.begin(run.now, transaction("<s@y> <r@x>")).expect("possible");
            run.feed(b"250 ok\r\n250 ok\r\n354 go\r\n");
            run.sent.clear();
            let (first, second) = text.split_at(cut);
            run.client.content(run.now, Bytes::copy_from_slice(first.as_bytes()));
            run.client.content(run.now, Bytes::copy_from_slice(second.as_bytes()));
            run.client.finish(run.now);
            run.drain();
            let sent = String::from_utf8(run.sent.clone()).expect("ASCII");
            let content = sent.strip_suffix(".\r\n").expect("an end");
            let lone = content.split(['\r', '\n']).any(|line| line == ".");
            assert!(!lone, "{text:?} cut at {cut}: {sent:?}");
        }
    }
}

#[test]
fn binary_content_goes_in_chunks() {
    check_ready(
        settings,
        "BINARYMIME,CHUNKING",
        "! begin <s@y> <r@x> binary
         C: MAIL FROM:<s@y> BODY=BINARYMIME
         S: 250 ok
         C: RCPT TO:<r@x>
         S: 250 ok
         > content Chunks [0]
         ! content .\\n
         ! content .\\r\\n
         ! finish
         C: BDAT 5 LAST
         c: .\\n.\\r\\n
         S: 250 got it
         > answered accepted 250 got it",
    );
    check_ready(
        chunking,
        "CHUNKING",
        "! begin <s@y> <r@x>
         C: MAIL FROM:<s@y>
         S: 250 ok
         C: RCPT TO:<r@x>
         S: 250 ok
         > content Chunks [0]
         ! finish
         C: BDAT 0 LAST
         S: 554 nothing
         > answered refused at end of content 554 nothing
         ! begin <s@y> <r@x>
         C: MAIL FROM:<s@y>
         S: 250 ok
         C: RCPT TO:<r@x>
         S: 550 nobody
         > answered refused at RCPT 550 nobody
         ! begin <s@y> <r@x>
         C: RSET",
    );
}

/// A client whose content may come, by BDAT.
fn begun(settings: Settings, extensions: &[u8]) -> Run {
    let mut run = Run::new(settings);
    run.feed(&[b"220 mx\r\n250-mx\r\n".as_slice(), extensions, b"250 CHUNKING\r\n"].concat());
    run.client.begin(run.now, transaction("<s@y> <r@x>")).expect("possible");
    run.drain();
    run.feed(b"250 ok\r\n");
    run.feed(b"250 ok\r\n");
    run.sent.clear();
    run.events.clear();
    run
}

fn chunks(run: &Run) -> usize {
    run.sent.windows(5).filter(|window| window == b"BDAT ").count()
}

#[test]
fn chunks_in_flight_are_bounded() {
    let piece = Bytes::from(vec![b'x'; CONTENT_CHUNK_OCTETS]);
    for (extensions, most) in
        [(b"".as_slice(), 1), (b"250-PIPELINING\r\n".as_slice(), CHUNKS_UNANSWERED_MAX)]
    {
        let mut run = begun(chunking(), extensions);
        for _ in 0..20 {
            run.client.content(run.now, piece.clone());
            run.drain();
        }
        run.client.finish(run.now);
        run.drain();
        assert_eq!(chunks(&run), most);
        assert!(!run.client.wants_content());
        for answered in 1..=20 {
            run.feed(b"250 ok\r\n");
            let ended = run
                .sent
                .windows(9)
                .any(|window| window == b"0 LAST\r\n" || window == b"36 LAST\r\n");
            assert!(!ended || answered + most >= 20);
        }
        assert_eq!(run.events, ["answered accepted 250 ok"]);
        assert_eq!(chunks(&run), 20);
    }
}

#[test]
fn an_end_that_is_handed_in_when_it_is_wanted_is_put_out_at_once() {
    let lmtp = || Settings { dialect: Dialect::Lmtp, ..chunking() };
    for (settings, extensions) in [
        (chunking(), b"".as_slice()),
        (chunking(), b"250-PIPELINING\r\n".as_slice()),
        (lmtp(), b"250-PIPELINING\r\n".as_slice()),
    ] {
        let mut run = begun(settings, extensions);
        for piece in [CONTENT_CHUNK_OCTETS, 100, 1, CONTENT_CHUNK_OCTETS + 1, 7] {
            while !run.client.wants_content() {
                run.feed(b"250 ok\r\n");
            }
            run.client.content(run.now, Bytes::from(vec![b'x'; piece]));
            run.drain();
        }
        while !run.client.wants_content() {
            run.feed(b"250 ok\r\n");
        }
        let before = chunks(&run);
        run.client.finish(run.now);
        run.drain();
        assert_eq!(chunks(&run), before + 1);
        assert!(run.sent.windows(7).any(|window| window == b" LAST\r\n"));
    }
}

#[test]
fn a_refused_chunk_refuses_the_message() {
    let piece = Bytes::from(vec![b'x'; CONTENT_CHUNK_OCTETS]);
    // Before the end.
    let mut run = begun(chunking(), b"250-PIPELINING\r\n");
    for _ in 0..3 {
        run.client.content(run.now, piece.clone());
    }
    run.feed(b"250 ok\r\n552 5.3.4 too much\r\n");
    assert_eq!(run.events, ["answered refused at content 552 5.3.4 too much"]);
    run.client.content(run.now, piece.clone());
    run.client.finish(run.now);
    run.drain();
    assert_eq!(chunks(&run), 3);
    run.sent.clear();
    run.client.begin(run.now, transaction("<s@y> <r@x>")).expect("possible");
    run.drain();
    assert_eq!(run.sent, b"RSET\r\nMAIL FROM:<s@y>\r\nRCPT TO:<r@x>\r\n");
    run.feed(b"503 chunk 3\r\n250 reset\r\n250 ok\r\n250 ok\r\n");
    assert_eq!(run.events[1..], ["content Chunks [0]"]);

    // Behind the end: its reply is waited for.
    for (last, event) in [
        ("503 no", vec!["answered refused at content 552 too much"]),
        (
            "250 ok",
            vec![
                "answered refused at content 552 too much",
                "failed protocol violation at end of content: unexpected reply code 250",
            ],
        ),
    ] {
        let mut run = begun(chunking(), b"250-PIPELINING\r\n");
        run.client.content(run.now, piece.clone());
        run.client.finish(run.now);
        run.feed(b"552 too much\r\n");
        assert!(run.events.is_empty());
        run.feed(format!("{last}\r\n").as_bytes());
        assert_eq!(run.events, event);
    }
}

#[test]
fn lmtp_sends_the_last_chunk_once_the_others_are_taken() {
    let piece = Bytes::from(vec![b'x'; CONTENT_CHUNK_OCTETS]);
    let mut run = begun(Settings { dialect: Dialect::Lmtp, ..chunking() }, b"250-PIPELINING\r\n");
    run.client.content(run.now, piece.clone());
    run.client.content(run.now, piece);
    run.client.finish(run.now);
    run.drain();
    assert_eq!(chunks(&run), 2);
    run.feed(b"250 ok\r\n");
    assert_eq!(chunks(&run), 2);
    run.feed(b"250 ok\r\n");
    assert_eq!(chunks(&run), 3);
    run.feed(b"250 for r\r\n");
    assert_eq!(run.events, ["answered accepted 250 for r"]);
}

#[test]
fn content_is_wanted_as_it_is_taken() {
    let mut run = Run::new(settings());
    run.feed(b"220 mx\r\n250-mx\r\n250 PIPELINING\r\n");
    run.client.begin(run.now, transaction("<s@y> <r@x>")).expect("possible");
    assert!(!run.client.wants_content());
    run.feed(b"250 ok\r\n250 ok\r\n354 go\r\n");
    assert!(run.client.wants_content());
    run.client.content(run.now, Bytes::from_static(b"x"));
    assert!(!run.client.wants_content());
    assert_eq!(run.client.buffered_len(), 1);
    run.drain();
    assert!(run.client.wants_content());
    run.client.finish(run.now);
    assert!(!run.client.wants_content());
}
