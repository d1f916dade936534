//! A message as it streams by: its header is kept, of its body the hashes that signatures need.

use message::{Field, Fields};

use crate::{
    canon::{Bodies, BodyHasher, Canon},
    dkim::{Coverage, Kind, Signature, coverage},
    limits::{FIELDS_MAX, HEADER_BYTES_MAX, SIGNATURES_MAX},
};

/// What a message is digested for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be judged.
    Judge,
    /// To be signed.
    Sign,
    /// To be judged, and signed or sealed as it is.
    JudgeAndSign,
}

/// Takes a message in pieces. What it holds is bounded by
/// [`crate::limits::HEADER_BYTES_MAX`], whatever the message's size.
pub struct Digester {
    purpose: Purpose,
    header: Vec<u8>,
    state: State,
    bodies: Vec<BodyHasher>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Body,
    /// The header has more than is kept.
    TooLarge,
}

/// How our own signatures take bodies and fields.
pub(crate) const SIGNING_CANON: Canon = Canon::Relaxed;

/// A message that was taken whole.
pub struct Digest {
    pub(crate) header: Vec<u8>,
    pub(crate) bodies: Bodies,
    pub(crate) size: HeaderSize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderSize {
    Whole,
    TooLarge,
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digest")
    }
}

impl Digester {
    /// Nothing of a message yet.
    pub fn new(purpose: Purpose) -> Self {
        Self { purpose, header: Vec::new(), state: State::Header, bodies: Vec::new() }
    }

    /// Digests a message that is in memory.
    pub fn whole(purpose: Purpose, message: &[u8]) -> Digest {
        let mut digester = Self::new(purpose);
        digester.write(message);
        digester.finish()
    }

    /// The next bytes of the message, with CRLF at the ends of lines.
    pub fn write(&mut self, bytes: &[u8]) {
        match self.state {
            State::Header => self.write_header(bytes),
            State::Body => self.bodies.iter_mut().for_each(|body| body.write(bytes)),
            State::TooLarge => {}
        }
    }

    fn write_header(&mut self, bytes: &[u8]) {
        // A blank line may be cut by the pieces.
        let from = self.header.len().saturating_sub(3);
        let room = HEADER_BYTES_MAX - self.header.len();
        let before = self.header.len();
        self.header.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if let Some(end) = header_end(&self.header, from) {
            self.header.truncate(end);
            self.begin_body();
            return self.write(&bytes[end - before..]);
        }
        if bytes.len() > room {
            self.state = State::TooLarge;
            self.header = Vec::new();
        }
    }

    fn begin_body(&mut self) {
        self.state = State::Body;
        let mut wanted = Vec::new();
        if self.purpose != Purpose::Judge {
            wanted.push((SIGNING_CANON, None));
        }
        if self.purpose != Purpose::Sign {
            let signatures = signatures(&self.header);
            wanted.extend(signatures.iter().map(|it| (it.body_canon, it.length)));
        }
        for (canon, limit) in wanted {
            if !self.bodies.iter().any(|body| body.is(canon, limit)) {
                self.bodies.push(BodyHasher::new(canon, limit));
            }
        }
    }

    /// The message as far as it has come, as if the rest of its body were what its signatures say; `None`
    /// while its header is not whole. What is found of it holds if the whole message [`Digest::bears_out`]
    /// that presumption.
    pub fn presume(&self) -> Option<Digest> {
        match self.state {
            State::Header => None,
            State::TooLarge => Some(Digest::too_large()),
            State::Body => Some(Digest::of_header(self.header.clone(), Bodies::Presumed)),
        }
    }

    /// The message is whole.
    pub fn finish(mut self) -> Digest {
        if self.state == State::Header {
            self.begin_body();
        }
        if self.state == State::TooLarge {
            return Digest::too_large();
        }
        let bodies = self.bodies.into_iter().map(BodyHasher::finish).collect();
        Digest::of_header(self.header, Bodies::Hashed(bodies))
    }
}

/// The signatures that are looked at, those of a kind that cannot be read left out.
fn signatures(header: &[u8]) -> Vec<Signature> {
    let fields: Vec<Field<'_>> = Fields::new(header).collect();
    let dkim = fields.iter().filter(|field| field.is("DKIM-Signature")).take(SIGNATURES_MAX);
    let dkim = dkim.filter_map(|field| Signature::parse(Kind::Dkim, field.value).ok());
    // Only the newest of the chain is checked against the body.
    let newest = crate::arc::newest_signature(&fields);
    let newest = newest.and_then(|field| Signature::parse(Kind::Arc, field.value).ok());
    dkim.chain(newest).collect()
}

impl Digest {
    fn too_large() -> Self {
        Self { header: Vec::new(), bodies: Bodies::Hashed(Vec::new()), size: HeaderSize::TooLarge }
    }

    fn of_header(header: Vec<u8>, bodies: Bodies) -> Self {
        match Fields::new(&header).nth(FIELDS_MAX) {
            Some(_) => Self::too_large(),
            None => Self { header, bodies, size: HeaderSize::Whole },
        }
    }

    /// Whether the body is what all signatures say, as [`Digester::presume`] had it.
    pub fn bears_out(&self) -> bool {
        let whole = |it: &Signature| coverage(it, &self.bodies) == Ok(Coverage::Whole);
        self.is_too_large() || signatures(&self.header).iter().all(whole)
    }

    pub(crate) fn fields(&self) -> Vec<Field<'_>> {
        Fields::new(&self.header).collect()
    }

    /// Whether the header has more bytes or fields than are looked at. Such a message is to be refused:
    /// what it claims to be our findings is not found either.
    pub fn is_too_large(&self) -> bool {
        self.size == HeaderSize::TooLarge
    }

    /// The message's header, its blank line included; empty where it is larger than is looked at.
    pub fn header(&self) -> &[u8] {
        &self.header
    }
}

/// Where the body begins: past the first blank line, looked for from `from` on.
fn header_end(header: &[u8], from: usize) -> Option<usize> {
    if header.starts_with(b"\r\n") {
        return Some(2);
    }
    let found = header[from..].windows(4).position(|window| window == b"\r\n\r\n");
    found.map(|at| from + at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_matter() {
        let message = b"From: a@b.example\r\nSubject: c\r\n\r\nbody\r\n\r\nmore\r\n";
        let whole = Digester::whole(Purpose::Sign, message);
        assert_eq!(whole.header(), b"From: a@b.example\r\nSubject: c\r\n\r\n");
        for cut in 0..message.len() {
            let mut digester = Digester::new(Purpose::Sign);
            for piece in [&message[..cut], &message[cut..]] {
                digester.write(piece);
            }
            let digest = digester.finish();
            assert_eq!(digest.header(), whole.header(), "cut at {cut}");
            assert_eq!(
                digest.bodies.hashed()[0].hash.as_ref(),
                whole.bodies.hashed()[0].hash.as_ref()
            );
        }
    }

    #[test]
    fn a_header_without_end_is_let_go() {
        let mut digester = Digester::new(Purpose::Judge);
        for _ in 0..200 {
            digester.write(&[b'x'; 10_000]);
            assert!(digester.header.len() <= HEADER_BYTES_MAX);
        }
        let digest = digester.finish();
        assert_eq!((digest.is_too_large(), digest.header.len()), (true, 0));
        let many = "a:\r\n".repeat(FIELDS_MAX);
        assert!(!Digester::whole(Purpose::Sign, many.as_bytes()).is_too_large());
        let more = format!("{many}b:\r\n\r\n");
        assert!(Digester::whole(Purpose::Sign, more.as_bytes()).is_too_large());
    }

    #[test]
    fn a_body_takes_no_memory() {
        let mut digester = Digester::new(Purpose::Sign);
        digester.write(b"From: a@b.example\r\n\r\n");
        for _ in 0..5_000 {
            digester.write(&[b'y'; 10_000]);
        }
        let digest = digester.finish();
        assert_eq!(digest.bodies.hashed()[0].length, 50_000_002);
        assert!(digest.header.capacity() < 100_000);
    }
}
