//! Canonicalization (RFC 6376 §3.4), of bodies as they stream by.

use ring::digest::{self, Context, SHA256};

/// How a message may change on its way without breaking a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Canon {
    #[default]
    Simple,
    Relaxed,
}

impl Canon {
    /// RFC 6376 §3.5: it is a literal of a grammar, whose case does not count (RFC 5234 §2.3).
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "simple" => Some(Self::Simple),
            "relaxed" => Some(Self::Relaxed),
            _ => None,
        }
    }

    /// Adds a header field, given from its name to its last line end.
    pub(crate) fn field(self, raw: &[u8], out: &mut Vec<u8>) {
        if self == Self::Simple {
            return out.extend_from_slice(raw);
        }
        let colon = raw.iter().position(|byte| *byte == b':').unwrap_or(raw.len());
        out.extend(raw[..colon].trim_ascii_end().iter().map(u8::to_ascii_lowercase));
        out.push(b':');
        let value = raw.get(colon + 1..).unwrap_or_default();
        let mut words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        if let Some(first) = words.next() {
            out.extend_from_slice(first);
        }
        for word in words {
            out.push(b' ');
            out.extend_from_slice(word);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Bytes that are collected before they are hashed.
const BUFFER_BYTES: usize = 4096;

/// The hash of a canonical body, made as the body streams by.
pub(crate) struct BodyHasher {
    canon: Canon,
    /// Canonical bytes that are hashed at most (`l=`).
    limit: Option<u64>,
    length: u64,
    buffer: Vec<u8>,
    context: Context,
    /// Line ends that count only if something follows.
    lines: u64,
    /// A CR that may be half of a line end.
    cr: Half,
    /// Blanks that count only if something follows on their line.
    blank: Half,
    line: Line,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Nothing,
    Pending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Empty,
    Begun,
}

/// A hashed body.
#[derive(Debug, Clone)]
pub(crate) struct BodyHash {
    pub(crate) canon: Canon,
    pub(crate) limit: Option<u64>,
    pub(crate) hash: digest::Digest,
    /// All canonical bytes, hashed or not.
    pub(crate) length: u64,
}

/// What is known of a message's body.
pub(crate) enum Bodies {
    /// Its hashes, in every way in which they are wanted.
    Hashed(Vec<BodyHash>),
    /// Nothing yet: it is taken for what signatures say.
    Presumed,
}

impl Bodies {
    /// The hashes; none where they are not known.
    pub(crate) fn hashed(&self) -> &[BodyHash] {
        match self {
            Self::Hashed(bodies) => bodies,
            Self::Presumed => &[],
        }
    }
}

impl BodyHasher {
    pub(crate) fn new(canon: Canon, limit: Option<u64>) -> Self {
        Self {
            canon,
            limit,
            length: 0,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            context: Context::new(&SHA256),
            lines: 0,
            cr: Half::Nothing,
            blank: Half::Nothing,
            line: Line::Empty,
        }
    }

    pub(crate) fn is(&self, canon: Canon, limit: Option<u64>) -> bool {
        (self.canon, self.limit) == (canon, limit)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.cr == Half::Pending {
                self.cr = Half::Nothing;
                if *byte == b'\n' {
                    self.end_line();
                    continue;
                }
                self.text(b'\r');
            }
            match byte {
                b'\r' => self.cr = Half::Pending,
                b' ' | b'\t' if self.canon == Canon::Relaxed => self.blank = Half::Pending,
                byte => self.text(*byte),
            }
        }
    }

    fn end_line(&mut self) {
        self.lines += 1;
        self.blank = Half::Nothing;
        self.line = Line::Empty;
    }

    fn text(&mut self, byte: u8) {
        while self.lines > 0 {
            self.lines -= 1;
            self.push(b'\r');
            self.push(b'\n');
        }
        if self.blank == Half::Pending {
            self.blank = Half::Nothing;
            self.push(b' ');
        }
        self.line = Line::Begun;
        self.push(byte);
    }

    fn push(&mut self, byte: u8) {
        if self.limit.is_none_or(|limit| self.length < limit) {
            self.buffer.push(byte);
            if self.buffer.len() == BUFFER_BYTES {
                self.context.update(&self.buffer);
                self.buffer.clear();
            }
        }
        self.length += 1;
    }

    pub(crate) fn finish(mut self) -> BodyHash {
        if self.cr == Half::Pending {
            self.text(b'\r');
        }
        let anything = self.length > 0 || self.line == Line::Begun;
        // RFC 6376 §3.4.3 and §3.4.4: an empty body is a line end where it is simple, and nothing
        // where it is relaxed.
        if anything || self.canon == Canon::Simple {
            self.push(b'\r');
            self.push(b'\n');
        }
        self.context.update(&self.buffer);
        BodyHash {
            canon: self.canon,
            limit: self.limit,
            hash: self.context.finish(),
            length: self.length,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(canon: Canon, limit: Option<u64>, pieces: &[&[u8]]) -> (Vec<u8>, u64) {
        let mut hasher = BodyHasher::new(canon, limit);
        for piece in pieces {
            hasher.write(piece);
        }
        let body = hasher.finish();
        (body.hash.as_ref().to_vec(), body.length)
    }

    #[track_caller]
    fn check(canon: Canon, body: &str, expected: &str) {
        let whole = digest::digest(&SHA256, expected.as_bytes()).as_ref().to_vec();
        for cut in 0..=body.len() {
            let (first, second) = body.as_bytes().split_at(cut);
            let (hashed, length) = hash(canon, None, &[first, second]);
            assert_eq!((&hashed, length), (&whole, expected.len() as u64), "{body:?} at {cut}");
        }
    }

    #[test]
    fn bodies_become_canonical() {
        use Canon::{Relaxed, Simple};
        // RFC 6376 §3.4.5.
        let body = " C \r\nD \t E\r\n\r\n\r\n";
        check(Simple, body, " C \r\nD \t E\r\n");
        check(Relaxed, body, " C\r\nD E\r\n");
        check(Simple, "", "\r\n");
        check(Relaxed, "", "");
        check(Simple, "\r\n\r\n", "\r\n");
        check(Relaxed, " \r\n\t\r\n", "");
        check(Simple, "no end", "no end\r\n");
        check(Relaxed, "no  end \t", "no end\r\n");
        check(Simple, "a\r\n\r\nb\r\n", "a\r\n\r\nb\r\n");
        check(Relaxed, "a\r\n \r\nb\r\n", "a\r\n\r\nb\r\n");
        check(Simple, "a\rb\r\r\n", "a\rb\r\r\n");
        check(Simple, "a\nb", "a\nb\r\n");
    }

    #[test]
    fn no_more_is_hashed_than_was_signed() {
        let (hashed, length) = hash(Canon::Simple, Some(3), &[b"abcdef\r\n"]);
        assert_eq!(hashed, digest::digest(&SHA256, b"abc").as_ref());
        assert_eq!(length, 8);
    }

    #[test]
    fn fields_become_canonical() {
        let canonical = |raw: &[u8]| {
            let mut out = Vec::new();
            Canon::Relaxed.field(raw, &mut out);
            String::from_utf8(out).unwrap()
        };
        // RFC 6376 §3.4.5.
        assert_eq!(canonical(b"A: X\r\n"), "a:X\r\n");
        assert_eq!(canonical(b"B : Y\t\r\n\tZ  \r\n"), "b:Y Z\r\n");
        assert_eq!(canonical(b"Empty:\r\n"), "empty:\r\n");
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            body in "[ab \t\r\n]{0,60}",
            cuts in proptest::collection::vec(0usize..60, 0..5),
        ) {
            for canon in [Canon::Simple, Canon::Relaxed] {
                let whole = hash(canon, None, &[body.as_bytes()]);
                let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
                cuts.sort_unstable();
                cuts.push(body.len());
                let mut pieces = Vec::new();
                let mut from = 0;
                for cut in cuts {
                    pieces.push(&body.as_bytes()[from..cut]);
                    from = cut;
                }
                prop_assert_eq!(hash(canon, None, &pieces), whole);
            }
        }
    }
}
