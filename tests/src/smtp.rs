//! A client's end of SMTP (RFC 5321) and LMTP (RFC 2033).

use std::{fmt, io, net::SocketAddr};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{cluster::Door, server::Server, wire::Wire};

/// A session.
#[derive(Debug)]
pub struct Smtp {
    wire: Wire,
}

/// A reply: its code, and its lines without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// What follows the code.
    pub lines: Vec<String>,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.lines.join(" / "))
    }
}

impl Smtp {
    /// Connects and reads the greeting.
    ///
    /// # Errors
    /// As the operating system says.
    ///
    /// # Panics
    /// Where the server does not greet with 220.
    pub fn connect(port: u16) -> io::Result<Self> {
        let mut smtp = Self { wire: Wire::connect(port)? };
        let greeting = smtp.try_reply()?;
        assert_eq!(greeting.code, 220, "{greeting}");
        Ok(smtp)
    }

    /// Connects to a node that may be away, and says hello.
    ///
    /// # Errors
    /// As the operating system says, or where it does not take mail now.
    pub fn try_exchange_at(address: SocketAddr) -> io::Result<Self> {
        let mut smtp = Self { wire: Wire::connect_to(address)? };
        for (line, code) in [("", 220), ("EHLO client.blackbox.test\r\n", 250)] {
            smtp.wire.try_send(line.as_bytes())?;
            let reply = smtp.try_reply()?;
            if reply.code != code {
                return Err(io::Error::other(reply.to_string()));
            }
        }
        Ok(smtp)
    }

    /// Submission at a node that may go away meanwhile.
    ///
    /// # Errors
    /// As the operating system says, or where it does not say yes.
    pub fn try_submissions_at(door: &Door, user: &str, password: &str) -> io::Result<Self> {
        let wire = Wire::connect_to(door.submissions)?.try_start_tls(&door.certificate)?;
        let mut smtp = Self { wire };
        let plain = BASE64_STANDARD.encode(format!("\0{user}\0{password}"));
        let login = format!("AUTH PLAIN {plain}\r\n");
        for (line, code) in [("", 220), ("EHLO client.blackbox.test\r\n", 250), (&login, 235)] {
            smtp.wire.try_send(line.as_bytes())?;
            let reply = smtp.try_reply()?;
            if reply.code != code {
                return Err(io::Error::other(reply.to_string()));
            }
        }
        Ok(smtp)
    }

    /// Mail exchange with a server that says hello.
    ///
    /// # Panics
    /// Where the server is not there or refuses.
    pub fn exchange(server: &Server) -> Self {
        let mut smtp = Self::connect(server.ports.smtp).expect("the server accepts");
        smtp.expect("EHLO client.blackbox.test", 250);
        smtp
    }

    /// LMTP with a server that says hello.
    ///
    /// # Panics
    /// Where the server is not there or refuses.
    pub fn lmtp(server: &Server) -> Self {
        let mut smtp = Self::connect(server.ports.lmtp).expect("the server accepts");
        smtp.expect("LHLO client.blackbox.test", 250);
        smtp
    }

    /// Submission with STARTTLS and AUTH PLAIN.
    ///
    /// # Panics
    /// Where the server is not there or refuses.
    pub fn submission(server: &Server, user: &str, password: &str) -> Self {
        let mut smtp = Self::connect(server.ports.submission).expect("the server accepts");
        smtp.expect("EHLO client.blackbox.test", 250);
        smtp.expect("STARTTLS", 220);
        let mut smtp = Self { wire: smtp.wire.start_tls(&server.certificate()) };
        smtp.expect("EHLO client.blackbox.test", 250);
        let plain = BASE64_STANDARD.encode(format!("\0{user}\0{password}"));
        smtp.expect(&format!("AUTH PLAIN {plain}"), 235);
        smtp
    }

    /// Shakes hands over TLS, after STARTTLS was accepted.
    #[must_use]
    pub fn start_tls(self, server: &Server) -> Self {
        Self { wire: self.wire.start_tls(&server.certificate()) }
    }

    /// The connection below.
    pub fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Reads one reply.
    ///
    /// # Errors
    /// As the operating system says.
    ///
    /// # Panics
    /// Where it is no reply.
    #[track_caller]
    pub fn try_reply(&mut self) -> io::Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let line = self.wire.try_line()?;
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let code = code.unwrap_or_else(|| panic!("no reply: {line:?}"));
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, lines });
            }
        }
    }

    /// Reads one reply.
    ///
    /// # Panics
    /// Where none comes.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("the server replies")
    }

    /// Sends a command and reads its reply.
    ///
    /// # Panics
    /// Where none comes.
    #[track_caller]
    pub fn command(&mut self, line: &str) -> Reply {
        self.wire.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// Sends a command that has to get this code.
    ///
    /// # Panics
    /// Where it gets another.
    #[track_caller]
    pub fn expect(&mut self, line: &str, code: u16) -> Reply {
        let reply = self.command(line);
        assert_eq!(reply.code, code, "{line}: {reply}");
        reply
    }

    /// Begins a message to recipients that have to be accepted.
    ///
    /// # Panics
    /// Where one is not.
    #[track_caller]
    pub fn envelope(&mut self, from: &str, to: &[&str]) {
        self.expect(&format!("MAIL FROM:<{from}>"), 250);
        for to in to {
            self.expect(&format!("RCPT TO:<{to}>"), 250);
        }
    }

    /// Sends a message's bytes after the envelope and reads the reply to its end.
    ///
    /// # Panics
    /// Where DATA is refused or no reply comes.
    #[track_caller]
    pub fn data(&mut self, message: &[u8]) -> Reply {
        self.expect("DATA", 354);
        self.wire.send(&stuffed(message));
        self.reply()
    }

    /// Sends one message, which has to be accepted.
    ///
    /// # Panics
    /// Where it is not.
    #[track_caller]
    pub fn deliver(&mut self, from: &str, to: &str, message: &[u8]) {
        self.envelope(from, &[to]);
        let reply = self.data(message);
        assert_eq!(reply.code, 250, "{reply}");
    }
}

/// The message as DATA carries it: dots doubled, end of data behind (RFC 5321 §4.5.2).
pub fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.len() + message.len() / 64 + 5);
    let mut starts_line = true;
    for byte in message {
        if starts_line && *byte == b'.' {
            bytes.push(b'.');
        }
        bytes.push(*byte);
        starts_line = *byte == b'\n';
    }
    if !starts_line {
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b".\r\n");
    bytes
}
