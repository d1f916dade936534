//! A connection as the clients see it: lines in, counted bytes skipped, buffers out.
//!
//! Invariants: a line's beginning and end are kept, never its middle, so that a line of any length
//! costs one buffer; and no line exceeds [`LINE_BYTES_MAX`].

use env::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    failure::{Failure, Kind},
    limits::{LINE_BYTES_MAX, LINE_HEAD_BYTES, LINE_TAIL_BYTES},
};

/// What there is to know of a line beside its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineEnd {
    /// Bytes of the literal that the line's end announces (RFC 9051 §4.3).
    pub(crate) literal: Option<u64>,
    /// Spaces in the line: the results of a `* SEARCH`.
    pub(crate) spaces: u64,
}

/// A connection.
pub(crate) struct Wire {
    stream: Stream,
    buffer: Box<[u8]>,
    /// What of the buffer waits to be read.
    start: usize,
    end: usize,
    head: Vec<u8>,
    received: u64,
}

impl Wire {
    /// A connection whose lines are read through a buffer of so many bytes.
    pub(crate) fn new(stream: Stream, buffer_bytes: usize) -> Self {
        assert!(buffer_bytes >= LINE_HEAD_BYTES + LINE_TAIL_BYTES, "a line's ends must fit");
        let buffer = vec![0; buffer_bytes].into_boxed_slice();
        Self { stream, buffer, start: 0, end: 0, head: Vec::new(), received: 0 }
    }

    /// The socket itself, to go on with over TLS.
    ///
    /// # Errors
    /// Where the server has spoken already what is to be said over TLS.
    pub(crate) fn into_stream(self) -> Result<Stream, Failure> {
        if self.start == self.end {
            Ok(self.stream)
        } else {
            Err(Failure::unexpected("TLS", &self.buffer[self.start..self.end]))
        }
    }

    /// Bytes that came in so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// The beginning of the line that [`Wire::line`] read last, without its line end.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Takes the head away, so that the next line leaves it alone.
    pub(crate) fn take_head(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.head)
    }

    /// Puts a head back.
    pub(crate) fn put_head(&mut self, head: Vec<u8>) {
        self.head = head;
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// Where the connection broke.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.send_two(bytes, &[]).await
    }

    /// Sends two pieces, one behind the other.
    ///
    /// # Errors
    /// Where the connection broke.
    pub(crate) async fn send_two(&mut self, first: &[u8], second: &[u8]) -> Result<(), Failure> {
        let sent = async {
            self.stream.write_all(first).await?;
            self.stream.write_all(second).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| Failure::io(&error))
    }

    /// Reads a line. Dropping the future before its end loses nothing of a line that fits into the
    /// buffer.
    ///
    /// # Errors
    /// Where the connection broke, or the line has no end.
    pub(crate) async fn line(&mut self) -> Result<LineEnd, Failure> {
        self.head.clear();
        let mut spaces = 0;
        let mut dropped: u64 = 0;
        // From `start` on, which moves when room is made.
        let mut seen = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.start + seen..self.end]) {
                let line = &self.buffer[self.start..self.start + seen + at];
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if dropped == 0 {
                    self.head.extend_from_slice(&line[..line.len().min(LINE_HEAD_BYTES)]);
                }
                if self.head.starts_with(b"* S") {
                    spaces += spaces_of(line);
                }
                let literal = announced(line);
                self.start += seen + at + 1;
                return Ok(LineEnd { literal, spaces });
            }
            seen = self.end - self.start;
            if self.end == self.buffer.len() {
                if self.start == 0 {
                    if dropped == 0 {
                        self.head.extend_from_slice(&self.buffer[..LINE_HEAD_BYTES]);
                    }
                    let kept_from = self.end - LINE_TAIL_BYTES;
                    spaces += spaces_of(&self.buffer[..kept_from]);
                    dropped += u64::try_from(kept_from).expect("usize fits");
                    if dropped > LINE_BYTES_MAX {
                        return Err(Failure::lost(Kind::Protocol, "a line without an end"));
                    }
                    self.start = kept_from;
                    seen = LINE_TAIL_BYTES;
                }
                self.make_room();
            }
            self.fill().await?;
        }
    }

    /// Skips so many bytes.
    ///
    /// # Errors
    /// Where the connection broke.
    pub(crate) async fn skip(&mut self, mut bytes: u64) -> Result<(), Failure> {
        loop {
            let waiting = self.end - self.start;
            let taken = usize::try_from(bytes).unwrap_or(usize::MAX).min(waiting);
            self.start += taken;
            bytes -= u64::try_from(taken).expect("usize fits");
            if bytes == 0 {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    fn make_room(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }

    /// Reads what there is, at least one byte.
    async fn fill(&mut self) -> Result<(), Failure> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        match self.stream.read(&mut self.buffer[self.end..]).await {
            Ok(0) => Err(Failure::lost(Kind::Closed, "the server closed the connection")),
            Ok(read) => {
                self.end += read;
                self.received += u64::try_from(read).expect("usize fits");
                Ok(())
            }
            Err(error) => Err(Failure::io(&error)),
        }
    }
}

fn spaces_of(bytes: &[u8]) -> u64 {
    let spaces = memchr::memchr_iter(b' ', bytes).count();
    u64::try_from(spaces).expect("usize fits")
}

/// The number in `{…}` at a line's end.
fn announced(line: &[u8]) -> Option<u64> {
    let inner = line.strip_suffix(b"}")?;
    let inner = inner.strip_suffix(b"+").unwrap_or(inner);
    let digits = inner.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (before, number) = inner.split_at(inner.len() - digits);
    if !before.ends_with(b"{") {
        return None;
    }
    std::str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use env::{Env, Task};
    use tokio::io::AsyncWriteExt;

    use super::*;

    const BUFFER: usize = LINE_HEAD_BYTES + LINE_TAIL_BYTES;

    /// A connection on which these bytes come, cut as said, and then the end.
    fn wire(bytes: Vec<u8>, cut: usize) -> (Wire, Task<()>) {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let sends = Env::system().spawn("server", async move {
            for piece in bytes.chunks(cut) {
                if theirs.write_all(piece).await.is_err() {
                    return;
                }
            }
        });
        (Wire::new(Box::new(ours), BUFFER), sends)
    }

    #[tokio::test]
    async fn lines_and_literals_come_however_they_are_cut() {
        let long = format!("* SEARCH{}\r\n", " 1234567".repeat(2000));
        let text =
            format!("* OK hello\r\n* 1 FETCH (BODY[] {{7}}\r\nab\r\ncde)\n{long}\r\nlast\r\n");
        for cut in [1, 2, 3, 7, 1000, 100_000] {
            let (mut wire, _sends) = wire(text.clone().into_bytes(), cut);
            let none = LineEnd { literal: None, spaces: 0 };
            assert_eq!((wire.line().await, wire.head()), (Ok(none), &b"* OK hello"[..]));
            let literal = LineEnd { literal: Some(7), ..none };
            assert_eq!(wire.line().await, Ok(literal));
            assert_eq!(wire.skip(7).await, Ok(()));
            assert_eq!((wire.line().await, wire.head()), (Ok(none), &b")"[..]));
            assert_eq!(wire.line().await, Ok(LineEnd { spaces: 2001, ..none }));
            assert_eq!(wire.head(), &long.as_bytes()[..LINE_HEAD_BYTES]);
            assert_eq!((wire.line().await, wire.head()), (Ok(none), &b""[..]));
            assert_eq!((wire.line().await, wire.head()), (Ok(none), &b"last"[..]));
            assert_eq!(wire.line().await.unwrap_err().kind, Kind::Closed);
            assert_eq!(wire.received(), text.len() as u64);
        }
    }

    #[tokio::test]
    async fn a_long_line_may_announce_a_literal() {
        let text = format!("* 1 FETCH ({}{{12345}}\r\n", "x".repeat(10_000));
        let (mut wire, _sends) = wire(text.into_bytes(), 999);
        assert_eq!(wire.line().await.unwrap().literal, Some(12_345));
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_an_error_and_costs_one_buffer() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let _sends = Env::system().spawn("server", async move {
            while theirs.write_all(&[b'x'; 1 << 16]).await.is_ok() {}
        });
        let mut wire = Wire::new(Box::new(ours), BUFFER);
        assert_eq!(wire.line().await.unwrap_err().kind, Kind::Protocol);
        assert_eq!((wire.buffer.len(), wire.head.len()), (BUFFER, LINE_HEAD_BYTES));
    }

    #[test]
    fn literals_are_announced_at_the_end() {
        let check = |line: &[u8], expected| assert_eq!(announced(line), expected, "{line:?}");
        check(b"* 1 FETCH (BODY[] {123}", Some(123));
        check(b"* 1 FETCH (BODY[] ~{0}", Some(0));
        check(b"a {5+}", Some(5));
        check(b"a {}", None);
        check(b"a 5}", None);
        check(b"a {-5}", None);
        check(b"a {99999999999999999999999}", None);
        check(b"{5} a", None);
        check(b"", None);
    }
}
