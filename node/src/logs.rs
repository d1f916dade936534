//! The last lines of this process's log, in memory, for whoever asks for them.
//!
//! Whoever writes the log hands each line in as well ([`Logs::push`]), after its own filter: what is
//! not logged is not here. A line is cut, and its control characters are escaped, so that it is one
//! line wherever it is shown.
//!
//! Invariants:
//! - Memory has a bound ([`limits::LOG_RING_LINES_MAX`], [`limits::LOG_RING_BYTES_MAX`]).
//! - Nobody who reads holds up whoever logs: the oldest lines go, and a reader who was slower is
//!   told how many.
//!
//! There is one for the process, as there is one log.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    str::FromStr,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::limits;

/// How bad a line is; the worst is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Somebody has to look.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What happens.
    Info,
    /// Why it happens.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// As in `log.level` of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// A level that there is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a level is error, warn, info, debug or trace")]
pub struct NoLevel;

impl FromStr for Level {
    type Err = NoLevel;
    fn from_str(text: &str) -> Result<Self, NoLevel> {
        let all = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];
        all.into_iter().find(|level| level.as_str() == text).ok_or(NoLevel)
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When, by the node's clock, milliseconds since 1970.
    pub at_ms: i64,
    /// How bad.
    pub level: Level,
    /// Which part of the program.
    pub target: String,
    /// What it says.
    pub message: String,
    /// What it says it of; those of a session begin with `session.`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
    /// Whose line it is, where several nodes share a process.
    #[serde(skip)]
    pub node: Option<String>,
}

impl LogLine {
    /// A line that holds at most [`limits::LOG_LINE_BYTES_MAX`] and no control character.
    fn tamed(mut self) -> Self {
        let mut room = limits::LOG_LINE_BYTES_MAX;
        tame(&mut self.target, &mut room);
        tame(&mut self.message, &mut room);
        let fields = std::mem::take(&mut self.fields).into_iter();
        self.fields = fields
            .filter_map(|(mut name, mut value)| {
                tame(&mut name, &mut room);
                tame(&mut value, &mut room);
                (!name.is_empty()).then_some((name, value))
            })
            .collect();
        self
    }

    /// About what it costs in memory.
    fn bytes(&self) -> usize {
        let fields = self.fields.iter().map(|(name, value)| name.len() + value.len() + 64);
        size_of::<Self>() + self.target.len() + self.message.len() + fields.sum::<usize>()
    }
}

/// Escapes control characters and cuts what is more than there is room for.
fn tame(text: &mut String, room: &mut usize) {
    if text.chars().any(is_wild) {
        let escaped = text.chars().flat_map(|c| {
            let (wild, plain) = if is_wild(c) { (Some(c), None) } else { (None, Some(c)) };
            wild.into_iter().flat_map(char::escape_default).chain(plain)
        });
        // Escaping makes it longer: no more than fits is made.
        *text = escaped.take(*room + 1).collect();
    }
    if text.len() > *room {
        let end = (0..=*room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        *room = 0;
        if !text.is_empty() {
            text.push('…');
        }
    } else {
        *room -= text.len();
    }
}

/// What moves a terminal's cursor, or the direction of its text.
fn is_wild(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Which lines somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogQuery {
    /// So many of the last ones.
    pub lines: usize,
    /// Of this level and worse.
    pub level: Level,
    /// Not from before this time, by the node's clock, milliseconds since 1970.
    pub since_ms: i64,
    /// Whether to go on.
    pub then: Then,
}

/// What comes after the last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// The end.
    End,
    /// The next line, once there is one.
    Follow,
}

/// Some lines, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBatch {
    /// Lines of any kind that went before they were read.
    pub lost: u64,
    /// The lines.
    pub lines: Vec<LogLine>,
}

/// The last lines. Cloning is one reference count.
#[derive(Clone)]
pub struct Logs {
    shared: Arc<Shared>,
}

struct Shared {
    ring: Mutex<Ring>,
    grown: Notify,
    /// Places for readers.
    readers: Arc<Semaphore>,
}

#[derive(Default)]
struct Ring {
    lines: VecDeque<(LogLine, usize)>,
    /// The number of the first line that is still there.
    first: u64,
    bytes: usize,
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logs")
    }
}

impl Default for Logs {
    fn default() -> Self {
        let readers = Arc::new(Semaphore::new(limits::LOG_READERS_MAX));
        Self { shared: Arc::new(Shared { ring: Mutex::default(), grown: Notify::new(), readers }) }
    }
}

impl Logs {
    /// The process's.
    pub fn process() -> Self {
        static PROCESS: LazyLock<Logs> = LazyLock::new(Logs::default);
        PROCESS.clone()
    }

    /// Adds a line. Logs nothing itself.
    pub fn push(&self, line: LogLine) {
        let line = line.tamed();
        let bytes = line.bytes();
        {
            let mut ring = self.ring();
            ring.bytes += bytes;
            ring.lines.push_back((line, bytes));
            while ring.lines.len() > limits::LOG_RING_LINES_MAX
                || ring.bytes > limits::LOG_RING_BYTES_MAX
            {
                let Some((_, gone)) = ring.lines.pop_front() else { break };
                ring.bytes -= gone;
                ring.first += 1;
            }
        }
        self.shared.grown.notify_waiters();
    }

    /// The lines that are there, oldest first.
    pub fn lines(&self) -> Vec<LogLine> {
        self.ring().lines.iter().map(|(line, _)| line.clone()).collect()
    }

    /// Reads lines of one node, which shares the process with others or not. `None` where
    /// [`limits::LOG_READERS_MAX`] read already.
    pub(crate) fn tail(&self, node: &str, query: &LogQuery) -> Option<Tail> {
        let place = Arc::clone(&self.shared.readers).try_acquire_owned().ok()?;
        let mut tail = Tail {
            logs: self.clone(),
            node: node.to_owned(),
            level: query.level,
            since_ms: query.since_ms,
            next: 0,
            _place: place,
        };
        tail.next = tail.begin(query.lines);
        Some(tail)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing panics while it is held; and a log that panics would hide why.
        self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader.
pub(crate) struct Tail {
    logs: Logs,
    node: String,
    level: Level,
    since_ms: i64,
    /// The number of the next line to look at.
    next: u64,
    _place: OwnedSemaphorePermit,
}

impl Tail {
    /// The number from which on there are `lines` that are wanted.
    fn begin(&self, lines: usize) -> u64 {
        let ring = self.logs.ring();
        let end = ring.first + ring.lines.len() as u64;
        let numbered = ring.lines.iter().enumerate().rev();
        let wanted = numbered.filter(|(_, (line, _))| self.wants(line)).take(lines);
        wanted.last().map_or(end, |(at, _)| ring.first + at as u64)
    }

    fn wants(&self, line: &LogLine) -> bool {
        line.level <= self.level
            && line.at_ms >= self.since_ms
            && line.node.as_ref().is_none_or(|node| *node == self.node)
    }

    /// What there is, as far as [`limits::LOG_BATCH_BYTES`] go.
    pub(crate) fn take(&mut self) -> LogBatch {
        let logs = self.logs.clone();
        let ring = logs.ring();
        let mut batch = LogBatch { lost: ring.first.saturating_sub(self.next), lines: Vec::new() };
        self.next = self.next.max(ring.first);
        let skipped = usize::try_from(self.next - ring.first).unwrap_or(usize::MAX);
        let mut bytes = 0;
        for (line, size) in ring.lines.iter().skip(skipped) {
            if bytes >= limits::LOG_BATCH_BYTES {
                break;
            }
            self.next += 1;
            if self.wants(line) {
                bytes += size;
                batch.lines.push(line.clone());
            }
        }
        batch
    }

    /// Waits until there are lines that were not looked at.
    pub(crate) async fn grown(&self) {
        loop {
            let mut grown = std::pin::pin!(self.logs.shared.grown.notified());
            // What is pushed from here on is heard.
            grown.as_mut().enable();
            let end = {
                let ring = self.logs.ring();
                ring.first + ring.lines.len() as u64
            };
            if self.next < end {
                return;
            }
            grown.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn line(message: &str) -> LogLine {
        LogLine {
            at_ms: 7,
            level: Level::Info,
            target: "t".to_owned(),
            message: message.to_owned(),
            fields: BTreeMap::new(),
            node: None,
        }
    }

    fn query(lines: usize) -> LogQuery {
        LogQuery { lines, level: Level::Trace, since_ms: 0, then: Then::Follow }
    }

    fn messages(batch: &LogBatch) -> Vec<&str> {
        batch.lines.iter().map(|line| &*line.message).collect()
    }

    #[tokio::test]
    async fn the_last_lines_come_first_and_then_the_new_ones() {
        let logs = Logs::default();
        for text in ["a", "b", "c"] {
            logs.push(line(text));
        }
        let mut tail = logs.tail("n", &query(2)).unwrap();
        assert_eq!(messages(&tail.take()), ["b", "c"]);
        assert_eq!(tail.take(), LogBatch::default());
        assert!(tail.grown().now_or_never().is_none());
        logs.push(line("d"));
        tail.grown().await;
        assert_eq!(messages(&tail.take()), ["d"]);
        assert_eq!(messages(&logs.tail("n", &query(0)).unwrap().take()), [] as [&str; 0]);
        assert_eq!(logs.tail("n", &query(9)).unwrap().take().lines.len(), 4);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let logs = Logs::default();
        let mut tail = logs.tail("n", &query(9)).unwrap();
        let (_, ()) = tokio::join!(tail.grown(), async { logs.push(line("a")) });
        assert_eq!(messages(&tail.take()), ["a"]);
    }

    #[test]
    fn levels_and_nodes_are_told_apart() {
        let logs = Logs::default();
        logs.push(LogLine { level: Level::Debug, ..line("fine") });
        logs.push(LogLine { level: Level::Error, node: Some("m".to_owned()), ..line("m") });
        logs.push(LogLine { level: Level::Warn, node: Some("n".to_owned()), ..line("n") });
        logs.push(LogLine { level: Level::Warn, ..line("all") });
        let warn = LogQuery { level: Level::Warn, ..query(9) };
        assert_eq!(messages(&logs.tail("n", &warn).unwrap().take()), ["n", "all"]);
        let one = LogQuery { lines: 1, ..warn };
        assert_eq!(messages(&logs.tail("m", &one).unwrap().take()), ["all"]);
        let later = LogQuery { since_ms: 8, ..query(9) };
        assert_eq!(messages(&logs.tail("m", &later).unwrap().take()), [] as [&str; 0]);
        assert!("loud".parse::<Level>().is_err() && "warn".parse() == Ok(Level::Warn));
    }

    #[test]
    fn a_slow_reader_is_told_what_it_has_lost_and_memory_has_a_bound() {
        let logs = Logs::default();
        logs.push(line("first"));
        let mut slow = logs.tail("n", &query(1)).unwrap();
        for number in 0..limits::LOG_RING_LINES_MAX + 10 {
            logs.push(line(&number.to_string()));
        }
        let batch = slow.take();
        assert_eq!((batch.lost, &*batch.lines[0].message), (11, "10"));
        for _ in 0..limits::LOG_RING_LINES_MAX {
            let fields = (0..9).map(|at| (format!("f{at}"), "x".repeat(1_000))).collect();
            logs.push(LogLine { fields, ..line("large") });
        }
        let ring = logs.ring();
        assert!(ring.bytes <= limits::LOG_RING_BYTES_MAX, "{}", ring.bytes);
        let counted: usize = ring.lines.iter().map(|(line, _)| line.bytes()).sum();
        assert_eq!(ring.bytes, counted);
        drop(ring);
        let mut read = 0;
        loop {
            let batch = slow.take();
            read += batch.lines.len();
            let json = serde_json::to_vec(&batch).unwrap();
            assert!(json.len() <= cluster::limits::MESH_FRAME_BYTES_MAX, "{}", json.len());
            if batch.lines.is_empty() {
                break;
            }
        }
        assert!(read > 100, "{read}");
    }

    #[test]
    fn a_line_is_one_line_and_has_an_end() {
        let check = |given: &str, expected: &str| {
            assert_eq!(line(given).tamed().message, expected, "{given:?}");
        };
        check("plain ü", "plain ü");
        check("two\r\nlines", "two\\r\\nlines");
        check("\u{1b}[2Jred\u{202e}", "\\u{1b}[2Jred\\u{202e}");
        let wild = "\u{1b}".repeat(limits::LOG_LINE_BYTES_MAX);
        for long in ["ü".repeat(limits::LOG_LINE_BYTES_MAX), "\"".repeat(1 << 20), wild] {
            let fields = [("f".to_owned(), long.clone()), (long.clone(), "v".to_owned())];
            let tamed = LogLine { fields: fields.into(), ..line(&long) }.tamed();
            assert!(tamed.message.len() <= limits::LOG_LINE_BYTES_MAX + '…'.len_utf8());
            assert!(tamed.fields.is_empty() && !tamed.message.chars().any(is_wild));
        }
    }

    #[test]
    fn readers_have_a_bound() {
        let logs = Logs::default();
        let tails: Vec<_> = std::iter::from_fn(|| logs.tail("n", &query(1))).collect();
        assert_eq!(tails.len(), limits::LOG_READERS_MAX);
        drop(tails);
        assert!(logs.tail("n", &query(1)).is_some());
    }
}
