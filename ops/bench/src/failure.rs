//! What goes wrong, by kind, with the first text of each.

use std::{
    fmt::Display,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::limits::ERROR_TEXT_BYTES_MAX;

/// Kinds of failures; the report tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No connection, or no TLS on it.
    Connect,
    /// The server knows no way to log in that we know, or does not let us in.
    Login,
    /// SMTP's 4xx.
    Temporary,
    /// SMTP's 5xx.
    Permanent,
    /// IMAP's NO.
    No,
    /// IMAP's BAD.
    Bad,
    /// The server said what it must not say, or what we cannot work with.
    Protocol,
    /// The server went away.
    Closed,
    /// It took too long.
    Timeout,
}

const KINDS: [(Kind, &str); 9] = [
    (Kind::Connect, "connect"),
    (Kind::Login, "login"),
    (Kind::Temporary, "4xx"),
    (Kind::Permanent, "5xx"),
    (Kind::No, "no"),
    (Kind::Bad, "bad"),
    (Kind::Protocol, "protocol"),
    (Kind::Closed, "closed"),
    (Kind::Timeout, "timeout"),
];

/// What became of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// It is where it was before the operation.
    Usable,
    /// It is gone, or nobody knows what the server says next on it.
    Lost,
}

/// One failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    pub(crate) after: After,
}

impl Failure {
    /// A failure after which the connection is of no use.
    pub(crate) fn lost(kind: Kind, text: impl Display) -> Self {
        Self { kind, text: shortened(&text.to_string()), after: After::Lost }
    }

    /// A refusal; the next operation may go better.
    pub(crate) fn refused(kind: Kind, text: impl Display) -> Self {
        Self { kind, text: shortened(&text.to_string()), after: After::Usable }
    }

    /// A line that has no place where it came.
    pub(crate) fn unexpected(expected: &str, line: &[u8]) -> Self {
        Self::lost(Kind::Protocol, format_args!("expected {expected}, got {:?}", text(line)))
    }

    /// The same, with a connection that is of no use any more.
    pub(crate) fn into_lost(self) -> Self {
        Self { after: After::Lost, ..self }
    }

    /// The connection broke.
    pub(crate) fn io(error: &std::io::Error) -> Self {
        Self::lost(Kind::Closed, error)
    }
}

/// The beginning of what a server said, for people.
pub(crate) fn text(bytes: &[u8]) -> String {
    shortened(&String::from_utf8_lossy(&bytes[..bytes.len().min(ERROR_TEXT_BYTES_MAX)]))
}

/// Without control characters: it goes to a terminal.
fn shortened(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let end = text.floor_char_boundary(ERROR_TEXT_BYTES_MAX);
    text[..end].chars().map(printable).collect::<String>().trim_end().to_owned()
}

/// Counted failures.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: [AtomicU64; KINDS.len()],
    firsts: Mutex<[Option<String>; KINDS.len()]>,
}

/// Failures of one kind.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Counted {
    /// `connect`, `login`, `4xx`, `5xx`, `no`, `bad`, `protocol`, `closed`, `timeout`.
    pub(crate) kind: &'static str,
    /// How many.
    pub(crate) count: u64,
    /// The first one's text.
    pub(crate) first: String,
}

impl Tally {
    /// Counts one.
    pub(crate) fn note(&self, failure: &Failure) {
        let at = KINDS.iter().position(|(kind, _)| *kind == failure.kind);
        let at = at.expect("KINDS has every kind");
        if self.counts[at].fetch_add(1, Ordering::Relaxed) == 0 {
            let mut firsts = self.firsts.lock().unwrap_or_else(PoisonError::into_inner);
            firsts[at].get_or_insert_with(|| failure.text.clone());
        }
    }

    /// All of them.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Those that there are, in the kinds' order.
    pub(crate) fn counted(&self) -> Vec<Counted> {
        let firsts = self.firsts.lock().unwrap_or_else(PoisonError::into_inner);
        let all = KINDS.iter().zip(&self.counts).zip(firsts.iter());
        all.map(|(((_, kind), count), first)| Counted {
            kind,
            count: count.load(Ordering::Relaxed),
            first: first.clone().unwrap_or_default(),
        })
        .filter(|counted| counted.count > 0)
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_text_of_each_kind_is_kept() {
        let tally = Tally::default();
        tally.note(&Failure::refused(Kind::Permanent, "550 no such user"));
        tally.note(&Failure::refused(Kind::Permanent, "552 full"));
        tally.note(&Failure::lost(Kind::Timeout, "1 s"));
        assert_eq!(tally.total(), 3);
        let told: Vec<_> =
            tally.counted().into_iter().map(|c| (c.kind, c.count, c.first)).collect();
        let first = "550 no such user".to_owned();
        assert_eq!(told, [("5xx", 2, first), ("timeout", 1, "1 s".to_owned())]);
    }

    #[test]
    fn texts_are_short_and_printable() {
        assert_eq!(text(b"\x1b[31mred\r\n"), " [31mred");
        assert_eq!(text("é".repeat(300).as_bytes()).chars().count(), 100);
        assert_eq!(Failure::lost(Kind::Bad, "x".repeat(999)).text.len(), ERROR_TEXT_BYTES_MAX);
    }
}
