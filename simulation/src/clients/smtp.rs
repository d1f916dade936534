//! A client of SMTP, submission and LMTP that tells for each recipient what it was told.
//!
//! Invariant: nothing that a node does, or does not do, makes it wait for more than
//! [`PATIENCE`] at a step, or panic: whatever is no answer is [`Told::Lost`].

use std::{net::SocketAddr, time::Duration};

use env::{Env, Stream};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::{Door, PASSWORD, World};

/// How long a client waits for a connection, for a reply, or for its words to be taken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of a reply's line that are read at most (RFC 5321 §4.5.3.1.5 lets it have 512).
const LINE_BYTES_MAX: u64 = 4_096;

/// A whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its code; 0 where the first line has none.
    pub code: u16,
    /// All of its lines.
    pub text: String,
}

impl Reply {
    /// Whether it says yes, or asks to go on.
    pub fn is_positive(&self) -> bool {
        (200..400).contains(&self.code)
    }
}

/// The connection ended, or nothing came in time: for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost(pub &'static str);

/// What the client knows of one recipient's copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// 250: it must be there.
    Accepted(String),
    /// A refusal, for now or for good.
    Refused(String),
    /// No reply: it may be there.
    Lost(&'static str),
}

/// A message to send.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Reverse-path; empty is the null path.
    pub from: &'a str,
    /// Recipients, at least one.
    pub to: &'a [String],
    /// Header and body, with CRLF line ends.
    pub text: &'a str,
}

/// An open session.
pub struct Client {
    env: Env,
    stream: BufReader<Stream>,
    door: Door,
}

impl Client {
    /// Connects, greets, and logs `user` in where one is given.
    ///
    /// # Errors
    /// [`Lost`], also where the node refuses.
    pub async fn open(
        world: &World,
        env: &Env,
        to: SocketAddr,
        door: Door,
        user: Option<&str>,
    ) -> Result<Self, Lost> {
        let connect = async {
            match door {
                Door::Submissions => world.connect_tls(env, to).await,
                _ => env.connect(to).await,
            }
        };
        let stream = match env.timeout(PATIENCE, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(_)) => return Err(Lost("no connection")),
            Err(_) => return Err(Lost("no connection in time")),
        };
        let mut client = Self { env: env.clone(), stream: BufReader::new(stream), door };
        client.expect_positive().await?;
        let hello = if door == Door::Lmtp { "LHLO" } else { "EHLO" };
        client.ask(&format!("{hello} client.remote.test")).await?;
        if let Some(user) = user {
            client.ask(&format!("AUTH PLAIN {}", plain(user, PASSWORD))).await?;
        }
        Ok(client)
    }

    /// Sends a message. One result for each recipient, in order. After a [`Told::Lost`] the session
    /// is of no more use.
    pub async fn send(&mut self, message: Outgoing<'_>) -> Vec<Told> {
        let mut told = Vec::new();
        if let Err(lost) = self.transact(message, &mut told).await {
            let lost = Told::Lost(lost.0);
            told.resize(message.to.len(), lost.clone());
            for one in &mut told {
                if *one == Told::Accepted(PENDING.to_owned()) {
                    *one = lost.clone();
                }
            }
        }
        told
    }

    /// Says goodbye, and does not care for the answer.
    pub async fn quit(mut self) {
        let _unheard = self.command("QUIT").await;
    }

    async fn transact(&mut self, message: Outgoing<'_>, told: &mut Vec<Told>) -> Result<(), Lost> {
        let refused = |reply: Reply| Told::Refused(reply.text);
        let reply = self.command(&format!("MAIL FROM:<{}>", message.from)).await?;
        if !reply.is_positive() {
            told.resize(message.to.len(), refused(reply));
            return Ok(());
        }
        for recipient in message.to {
            let reply = self.command(&format!("RCPT TO:<{recipient}>")).await?;
            let is_taken = reply.is_positive();
            told.push(if is_taken { Told::Accepted(PENDING.to_owned()) } else { refused(reply) });
        }
        let taken = |one: &Told| *one == Told::Accepted(PENDING.to_owned());
        if !told.iter().any(taken) {
            self.command("RSET").await?;
            return Ok(());
        }
        let go_on = self.command("DATA").await?;
        let mut last = (!go_on.is_positive()).then_some(go_on);
        if last.is_none() {
            self.write(&format!("{}\r\n.\r\n", stuffed(message.text))).await?;
        }
        let each = self.door == Door::Lmtp && last.is_none();
        for one in told.iter_mut().filter(|one| taken(one)) {
            // RFC 2033 §4.2: LMTP answers for each recipient, SMTP for all.
            if each || last.is_none() {
                last = Some(self.reply().await?);
            }
            let Some(reply) = last.clone() else { return Err(Lost("no reply")) };
            *one = if reply.code == 250 { Told::Accepted(reply.text) } else { refused(reply) };
        }
        Ok(())
    }

    async fn ask(&mut self, line: &str) -> Result<(), Lost> {
        match self.command(line).await?.is_positive() {
            true => Ok(()),
            false => Err(Lost("refused at the door")),
        }
    }

    async fn expect_positive(&mut self) -> Result<(), Lost> {
        match self.reply().await?.is_positive() {
            true => Ok(()),
            false => Err(Lost("refused at the door")),
        }
    }

    /// Sends a line and waits for its reply.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn command(&mut self, line: &str) -> Result<Reply, Lost> {
        self.write(&format!("{line}\r\n")).await?;
        self.reply().await
    }

    async fn write(&mut self, text: &str) -> Result<(), Lost> {
        let write = async {
            self.stream.write_all(text.as_bytes()).await?;
            self.stream.flush().await
        };
        match self.env.timeout(PATIENCE, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Lost("the connection ended")),
            Err(_) => Err(Lost("nothing was taken in time")),
        }
    }

    async fn reply(&mut self) -> Result<Reply, Lost> {
        let env = self.env.clone();
        env.timeout(PATIENCE, self.read()).await.unwrap_or(Err(Lost("no reply in time")))
    }

    async fn read(&mut self) -> Result<Reply, Lost> {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            let read = (&mut self.stream).take(LINE_BYTES_MAX).read_line(&mut line).await;
            if !matches!(read, Ok(read) if read > 0) || !line.ends_with('\n') {
                return Err(Lost("the connection ended"));
            }
            text.push_str(line.trim_end());
            if line.as_bytes().get(3) != Some(&b'-') {
                let code = line.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
                return Ok(Reply { code, text });
            }
            text.push('/');
        }
    }
}

/// Stands for a recipient that was taken, until the message's end is answered.
const PENDING: &str = "pending";

/// RFC 5321 §4.5.2: a leading dot is doubled.
fn stuffed(text: &str) -> String {
    let stuffed = text.trim_end_matches("\r\n").replace("\r\n.", "\r\n..");
    if stuffed.starts_with('.') { format!(".{stuffed}") } else { stuffed }
}

/// RFC 4616's message, as AUTH wants it.
fn plain(user: &str, password: &str) -> String {
    base64(format!("\0{user}\0{password}").as_bytes())
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let wide = chunk.iter().fold(0_u32, |wide, byte| wide << 8 | u32::from(*byte));
        let wide = wide << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = usize::try_from(wide >> (18 - 6 * place) & 63).unwrap_or(0);
            text.push(if place > chunk.len() { '=' } else { char::from(ALPHABET[index]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_written_as_the_standards_want_them() {
        assert_eq!(base64(b"\0tim\0tanstaaftanstaaf"), "AHRpbQB0YW5zdGFhZnRhbnN0YWFm");
        assert_eq!(base64(b"ab"), "YWI=");
        assert_eq!(base64(b"a"), "YQ==");
        assert_eq!(stuffed(".a\r\n.b\r\n"), "..a\r\n..b");
    }
}
