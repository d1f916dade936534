//! What the dialogues of both sides' tests have in common: scripts of one step a line, and a peer's
//! octets that arrive whole, cut in two at every octet, and octet by octet.

/// A script's steps: what kind each is, and its text.
pub(crate) fn steps(script: &str) -> Vec<(&str, &str)> {
    script
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty())
        .map(|line| line.split_once(' ').unwrap_or((line, "")))
        .collect()
}

/// A line with its CRLF.
pub(crate) fn line(text: &str) -> Vec<u8> {
    format!("{text}\r\n").into_bytes()
}

/// Octets in which `\r` and `\n` stand escaped.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    text.replace("\\r", "\r").replace("\\n", "\n").into_bytes()
}

/// Replays a peer's `length` octets cut in every way; each way has a name.
pub(crate) fn at_every_cut(length: usize, mut replay: impl FnMut(&[usize], &str)) {
    replay(&[], "whole");
    for cut in 1..length {
        replay(&[cut], &format!("cut at {cut}"));
    }
    replay(&(1..length).collect::<Vec<_>>(), "octet by octet");
}

/// A peer's octets on their way.
pub(crate) struct Segments<'a> {
    cuts: &'a [usize],
    /// Octets that have been handed out.
    offset: usize,
    held: Vec<u8>,
}

impl<'a> Segments<'a> {
    pub(crate) fn new(cuts: &'a [usize]) -> Self {
        Segments { cuts, offset: 0, held: Vec::new() }
    }

    pub(crate) fn push(&mut self, octets: &[u8]) {
        self.held.extend_from_slice(octets);
    }

    /// Hands out what is held, in pieces that end at the cuts; at least one, be it empty.
    pub(crate) fn feed(&mut self, mut to: impl FnMut(&[u8])) {
        let mut start = 0;
        for cut in self.cuts.iter().filter_map(|cut| cut.checked_sub(self.offset)) {
            if cut > start && cut < self.held.len() {
                to(&self.held[start..cut]);
                start = cut;
            }
        }
        to(&self.held[start..]);
        self.offset += self.held.len();
        self.held.clear();
    }
}
