//! The least that can speak SMTP and LMTP.

use std::net::SocketAddr;

use env::{Env, Stream};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// How a client introduces itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    Ehlo,
    Lhlo,
}

/// A whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) text: String,
}

pub(crate) struct Client {
    stream: BufReader<Stream>,
}

impl Client {
    pub(crate) async fn connect(env: &Env, to: SocketAddr) -> Self {
        Self { stream: BufReader::new(env.connect(to).await.expect("the node listens")) }
    }

    pub(crate) async fn open(env: &Env, to: SocketAddr, greeting: Greeting) -> Self {
        let mut client = Self::connect(env, to).await;
        assert_eq!(client.reply().await.expect("a greeting").code, 220);
        let hello = match greeting {
            Greeting::Ehlo => "EHLO client.remote.test",
            Greeting::Lhlo => "LHLO client.remote.test",
        };
        client.expect(hello, 250).await;
        client
    }

    /// One line without its CRLF; `None` at the end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.expect("the node sends text");
        if line.is_empty() {
            return None;
        }
        Some(line.strip_suffix("\r\n").expect("the node ends its lines").to_owned())
    }

    /// The next reply; `None` at the end.
    pub(crate) async fn reply(&mut self) -> Option<Reply> {
        let mut text = String::new();
        loop {
            let line = self.line().await?;
            let code = line[..3].parse().expect("a reply begins with its code");
            text.push_str(&line);
            if !line[3..].starts_with('-') {
                return Some(Reply { code, text });
            }
        }
    }

    /// Sends a line and its CRLF.
    pub(crate) async fn send(&mut self, line: &str) {
        let bytes = format!("{line}\r\n");
        self.stream.write_all(bytes.as_bytes()).await.expect("the node reads");
    }

    pub(crate) async fn command(&mut self, line: &str) -> Reply {
        self.send(line).await;
        self.reply().await.expect("the node replies")
    }

    pub(crate) async fn expect(&mut self, line: &str, code: u16) {
        let reply = self.command(line).await;
        assert_eq!(reply.code, code, "{line:?}: {}", reply.text);
    }
}
