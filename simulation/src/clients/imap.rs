//! An IMAP client: sends commands, reads whole responses, and parses what workloads look at.
//!
//! Every wait has an end, so that a client whose node went away goes on with another.
//! Deliberately absent: whatever no workload asks for; such responses are [`Untagged::Other`].

mod parse;

use std::{collections::BTreeSet, io, net::SocketAddr, time::Duration};

use env::{Env, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::World;

/// How long a client waits for a node: longer than a store that is away for a moment.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Bytes of one response: far above every message that a workload sends.
const RESPONSE_BYTES_MAX: usize = 1 << 22;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It was done.
    Ok,
    /// It was not done.
    No,
    /// It was not understood.
    Bad,
}

/// An untagged response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Untagged {
    /// How many messages there are.
    Exists(u32),
    /// A message, by its sequence number, has gone.
    Expunge(u32),
    /// Something about a message.
    Fetch(Fetched),
    /// What a search found.
    Found(Vec<u32>),
    /// A mailbox.
    List {
        /// Its name.
        name: String,
    },
    /// OK, NO, BAD or BYE, with its code and text.
    Told(String),
    /// Anything else.
    Other(String),
}

/// What a FETCH response says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The sequence number.
    pub number: u32,
    /// The UID, where it is named.
    pub uid: Option<u32>,
    /// The flags, where they are told.
    pub flags: Option<BTreeSet<String>>,
    /// The MODSEQ, where it is told.
    pub modseq: Option<u64>,
    /// The bytes of the last body section.
    pub body: Option<Vec<u8>>,
}

/// A command's whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How it ended.
    pub status: Status,
    /// The code and text of the tagged response.
    pub text: String,
    /// What came before that.
    pub untagged: Vec<Untagged>,
}

impl Answer {
    /// Whether the command was done.
    pub fn is_ok(&self) -> bool {
        self.status == Status::Ok
    }

    /// The words of a response code, `[NAME words]`, wherever it was told.
    pub fn code(&self, name: &str) -> Option<Vec<String>> {
        let told = self.untagged.iter().filter_map(|it| match it {
            Untagged::Told(text) => Some(text.as_str()),
            _ => None,
        });
        told.chain([self.text.as_str()]).find_map(|text| parse::code(text, name))
    }

    /// The first number of a response code.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.code(name)?.first()?.parse().ok()
    }
}

/// A connection.
pub struct Imap {
    env: Env,
    stream: Stream,
    /// Bytes that have come and are not looked at; what a wait that was given up has read stays.
    pending: Vec<u8>,
    tags: u32,
}

impl Imap {
    /// Connects with TLS from the start, and hears the greeting.
    ///
    /// # Errors
    /// Where that does not succeed in time.
    pub async fn connect(world: &World, env: &Env, to: SocketAddr) -> io::Result<Self> {
        let stream = within(env, PATIENCE, world.connect_tls(env, to)).await?;
        let mut imap = Self { env: env.clone(), stream, pending: Vec::new(), tags: 0 };
        let greeting = imap.response(PATIENCE).await?;
        match greeting.starts_with(b"* OK") {
            true => Ok(imap),
            false => Err(io::Error::other(String::from_utf8_lossy(&greeting).into_owned())),
        }
    }

    /// Sends a command, and hears its answer.
    ///
    /// # Errors
    /// Where the connection ends, or no answer comes in time.
    pub async fn command(&mut self, line: &str) -> io::Result<Answer> {
        let tag = self.send_tagged(line).await?;
        self.answer(&tag).await
    }

    /// APPENDs a message, in one flight (RFC 7888).
    ///
    /// # Errors
    /// As for [`Imap::command`].
    pub async fn append(&mut self, mailbox: &str, message: &[u8]) -> io::Result<Answer> {
        let line = format!("APPEND {} {{{}+}}", quoted(mailbox), message.len());
        let tag = self.send_tagged(&line).await?;
        self.send(message).await?;
        self.send(b"\r\n").await?;
        self.answer(&tag).await
    }

    /// Begins to IDLE; what is told at once comes with the first [`Imap::hear`].
    ///
    /// # Errors
    /// As for [`Imap::command`]; also where the node refuses.
    pub async fn idle(&mut self) -> io::Result<String> {
        let tag = self.send_tagged("IDLE").await?;
        let response = self.response(PATIENCE).await?;
        match response.starts_with(b"+") {
            true => Ok(tag),
            false => Err(io::Error::other(String::from_utf8_lossy(&response).into_owned())),
        }
    }

    /// The next untagged response; `None` where none comes within `patience`.
    ///
    /// # Errors
    /// Where the connection ends.
    pub async fn hear(&mut self, patience: Duration) -> io::Result<Option<Untagged>> {
        match self.response(patience).await {
            Ok(response) => Ok(Some(parse::untagged(&response))),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ends IDLE, and hears what was still told.
    ///
    /// # Errors
    /// As for [`Imap::command`].
    pub async fn done(&mut self, tag: &str) -> io::Result<Answer> {
        self.send(b"DONE\r\n").await?;
        self.answer(tag).await
    }

    async fn send_tagged(&mut self, line: &str) -> io::Result<String> {
        self.tags += 1;
        let tag = format!("a{}", self.tags);
        self.send(format!("{tag} {line}\r\n").as_bytes()).await?;
        Ok(tag)
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = &mut self.stream;
        let sending = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        within(&self.env, PATIENCE, sending).await
    }

    async fn answer(&mut self, tag: &str) -> io::Result<Answer> {
        let mut untagged = Vec::new();
        loop {
            let response = self.response(PATIENCE).await?;
            match parse::tagged(&response, tag) {
                Some((status, text)) => return Ok(Answer { status, text, untagged }),
                None => untagged.push(parse::untagged(&response)),
            }
        }
    }

    /// One response with its literals, without its last CRLF.
    async fn response(&mut self, patience: Duration) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = parse::whole(&self.pending) {
                let rest = self.pending.split_off(end);
                let mut response = std::mem::replace(&mut self.pending, rest);
                response.truncate(response.len() - 2);
                return Ok(response);
            }
            if self.pending.len() > RESPONSE_BYTES_MAX {
                return Err(io::Error::other("a response without an end"));
            }
            let reading = self.stream.read_buf(&mut self.pending);
            if within(&self.env, patience, reading).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

async fn within<T>(
    env: &Env,
    patience: Duration,
    what: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match env.timeout(patience, what).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A quoted string; the names of workloads have nothing to escape.
pub fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// The numbers of a set like `1:3,7`.
pub fn numbers(set: &str) -> Vec<u32> {
    parse::numbers(set)
}

/// Base64 (RFC 4648 §4), as SASL wants it.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let whole = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let whole = whole << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = whole >> (18 - 6 * place) & 63;
            let letter = ALPHABET.get(index as usize).copied().unwrap_or(b'=');
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_the_published_one() {
        for (text, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }
}
