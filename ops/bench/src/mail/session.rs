//! One connection that sends messages.

use super::{Dialect, Setup};
use crate::{
    failure::{After, Failure, Kind, text},
    limits::{READ_BUFFER_BYTES, REPLY_LINES_MAX},
    load::{Client, Done, Run},
    message::{Charset, Template},
    sasl::{self, Scram},
    tls::TlsMode,
    wire::Wire,
};

/// What the server offers that we use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Offers {
    pipelining: bool,
    eight_bit: bool,
    starttls: bool,
    plain: bool,
    scram: bool,
}

/// A reply of which the last line is still in the wire's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reply {
    code: u16,
}

/// An open connection between two messages.
pub(super) struct Session {
    wire: Wire,
    offers: Offers,
    dialect: Dialect,
    /// What goes out next.
    out: Vec<u8>,
    /// Where in `out` each command ends.
    ends: Vec<usize>,
}

impl Client for Session {
    type Setup = Setup;

    async fn open(setup: &Setup, connection: u64) -> Result<Self, Failure> {
        let stream = setup.target.connect().await?;
        let mut session = Self {
            wire: Wire::new(stream, READ_BUFFER_BYTES),
            offers: Offers::default(),
            dialect: setup.dialect,
            out: Vec::new(),
            ends: Vec::new(),
        };
        session.expect(2).await?;
        session.hello().await?;
        if setup.target.mode == TlsMode::Starttls {
            session = session.protected(setup).await?;
        }
        if let Some(login) = &setup.target.login {
            let random = setup.target.env.random_array();
            let user = login.user(connection);
            let scram = Scram::new(&user, &login.password, &login.secrets, random);
            session.log_in(&user, &login.password, scram).await?;
        }
        Ok(session)
    }

    async fn operate(&mut self, setup: &Setup, run: &Run, turn: u64) -> Result<Done, Failure> {
        let template = setup.template(turn);
        self.write_envelope(setup, template, turn);
        let mut refused = Vec::new();
        let delivered = self.transact(template, turn, &mut refused).await?;
        let last = if delivered == 0 { refused.pop() } else { None };
        refused.iter().for_each(|failure| run.failures.note(failure));
        match last {
            Some(failure) => Err(failure),
            None => {
                let bytes = u64::try_from(template.len()).expect("usize fits");
                Ok(Done { items: delivered, bytes, took: None })
            }
        }
    }

    async fn close(mut self) {
        if self.wire.send(b"QUIT\r\n").await.is_ok() {
            // The server may just as well hang up.
            let _said = self.reply(|_| ()).await;
        }
    }
}

impl Session {
    fn write_envelope(&mut self, setup: &Setup, template: &Template, turn: u64) {
        let out = &mut self.out;
        out.clear();
        self.ends.clear();
        out.extend_from_slice(b"MAIL FROM:<");
        setup.from.write(turn, out);
        out.extend_from_slice(b">");
        if self.offers.eight_bit && template.charset == Charset::EightBit {
            out.extend_from_slice(b" BODY=8BITMIME");
        }
        out.extend_from_slice(b"\r\n");
        self.ends.push(out.len());
        for nth in 0..setup.rcpts_per_message {
            out.extend_from_slice(b"RCPT TO:<");
            setup.write_recipient(turn, nth, out);
            out.extend_from_slice(b">\r\n");
            self.ends.push(out.len());
        }
        out.extend_from_slice(b"DATA\r\n");
        self.ends.push(out.len());
    }

    /// Sends the envelope and the message; how many recipients have it. `refused` gets the others
    /// and, where nobody has it, at least one failure.
    async fn transact(
        &mut self,
        template: &Template,
        turn: u64,
        refused: &mut Vec<Failure>,
    ) -> Result<u64, Failure> {
        if self.offers.pipelining {
            self.wire.send(&self.out).await?;
        }
        let mut accepted: u64 = 0;
        let mut has_sender = false;
        let mut start = 0;
        let data = self.ends.len() - 1;
        for at in 0..=data {
            let end = self.ends[at];
            if !self.offers.pipelining {
                if at == data && accepted == 0 {
                    break;
                }
                self.wire.send(&self.out[start..end]).await?;
                start = end;
            }
            let reply = self.reply(|_| ()).await?;
            let expected = if at == data { 3 } else { 2 };
            if reply.code / 100 == expected {
                accepted += u64::from(at > 0 && at < data && has_sender);
                has_sender |= at == 0;
                continue;
            }
            let failure = self.refusal(reply);
            if failure.after == After::Lost {
                return Err(failure);
            }
            // Without a sender, what RCPT says tells nothing new; without recipients, what DATA says.
            if at == 0 || has_sender && (at < data || accepted > 0) {
                refused.push(failure);
            }
            if at == data || (at == 0 && !self.offers.pipelining) {
                self.reset().await?;
                return Ok(0);
            }
        }
        if accepted == 0 {
            self.close_empty().await?;
            return Ok(0);
        }
        self.send_message(template, turn).await?;
        let replies = match self.dialect {
            Dialect::Smtp => 1,
            Dialect::Lmtp => accepted,
        };
        let mut delivered = 0;
        for _ in 0..replies {
            let reply = self.reply(|_| ()).await?;
            if reply.code / 100 == 2 {
                delivered += accepted / replies;
            } else {
                let failure = self.refusal(reply);
                if failure.after == After::Lost {
                    return Err(failure);
                }
                refused.push(failure);
            }
        }
        Ok(delivered)
    }

    async fn send_message(&mut self, template: &Template, turn: u64) -> Result<(), Failure> {
        self.out.clear();
        let rest = template.write(turn, &mut self.out);
        self.wire.send_two(&self.out, rest).await
    }

    /// Leaves a transaction that has no recipient.
    async fn close_empty(&mut self) -> Result<(), Failure> {
        if self.offers.pipelining {
            // DATA was taken none the less (RFC 2920 §3.1): an empty message ends it.
            self.wire.send(b".\r\n").await?;
            match self.dialect {
                Dialect::Smtp => self.reply(|_| ()).await?,
                Dialect::Lmtp => {
                    return Err(Failure::lost(
                        Kind::Protocol,
                        "DATA without a recipient was taken",
                    ));
                }
            };
        }
        self.reset().await
    }

    async fn reset(&mut self) -> Result<(), Failure> {
        self.wire.send(b"RSET\r\n").await?;
        self.expect(2).await
    }

    async fn hello(&mut self) -> Result<(), Failure> {
        let hello: &[u8] = match self.dialect {
            Dialect::Smtp => b"EHLO bench.invalid\r\n",
            Dialect::Lmtp => b"LHLO bench.invalid\r\n",
        };
        self.wire.send(hello).await?;
        let mut offers = Offers::default();
        let reply = self.reply(|line| offers.note(line)).await?;
        if reply.code / 100 != 2 {
            return Err(self.refusal(reply).into_lost());
        }
        self.offers = offers;
        Ok(())
    }

    async fn protected(mut self, setup: &Setup) -> Result<Self, Failure> {
        if !self.offers.starttls {
            return Err(Failure::lost(Kind::Connect, "the server offers no STARTTLS"));
        }
        self.wire.send(b"STARTTLS\r\n").await?;
        self.expect(2).await?;
        let stream = setup.target.protect(self.wire.into_stream()?).await?;
        self.wire = Wire::new(stream, READ_BUFFER_BYTES);
        self.hello().await?;
        Ok(self)
    }

    /// RFC 4954 §4.
    async fn log_in(
        &mut self,
        user: &str,
        password: &str,
        mut scram: Scram<'_>,
    ) -> Result<(), Failure> {
        if self.offers.plain {
            let line = format!("AUTH PLAIN {}\r\n", sasl::plain(user, password));
            self.wire.send(line.as_bytes()).await?;
        } else if self.offers.scram {
            let line = format!("AUTH SCRAM-SHA-256 {}\r\n", scram.first());
            self.wire.send(line.as_bytes()).await?;
            let proof = scram.proof(&self.challenge().await?)?;
            self.wire.send(format!("{proof}\r\n").as_bytes()).await?;
            scram.verify(&self.challenge().await?)?;
            self.wire.send(b"\r\n").await?;
        } else {
            return Err(Failure::lost(Kind::Login, "no PLAIN and no SCRAM-SHA-256 is offered"));
        }
        let reply = self.reply(|_| ()).await?;
        if reply.code == 235 { Ok(()) } else { Err(self.refused_login()) }
    }

    async fn challenge(&mut self) -> Result<Vec<u8>, Failure> {
        match self.reply(|_| ()).await? {
            Reply { code: 334 } => Ok(self.wire.head().get(4..).unwrap_or_default().to_vec()),
            Reply { .. } => Err(self.refused_login()),
        }
    }

    fn refused_login(&self) -> Failure {
        Failure::lost(Kind::Login, text(self.wire.head()))
    }

    /// Reads a reply of which the first digit is known.
    async fn expect(&mut self, digit: u16) -> Result<(), Failure> {
        let reply = self.reply(|_| ()).await?;
        if reply.code / 100 == digit { Ok(()) } else { Err(self.refusal(reply).into_lost()) }
    }

    fn refusal(&self, reply: Reply) -> Failure {
        let line = text(self.wire.head());
        match reply.code {
            // RFC 5321 §3.8: the server is going away.
            421 => Failure::lost(Kind::Temporary, line),
            400..500 => Failure::refused(Kind::Temporary, line),
            500..600 => Failure::refused(Kind::Permanent, line),
            _ => Failure::unexpected("another reply", self.wire.head()),
        }
    }

    /// Reads a reply, and shows each line's text.
    async fn reply(&mut self, mut each: impl FnMut(&[u8])) -> Result<Reply, Failure> {
        for _ in 0..REPLY_LINES_MAX {
            self.wire.line().await?;
            let line = self.wire.head();
            let code = code(line).ok_or_else(|| Failure::unexpected("a reply", line))?;
            each(line.get(4..).unwrap_or_default());
            if line.get(3) != Some(&b'-') {
                return Ok(Reply { code });
            }
        }
        Err(Failure::lost(Kind::Protocol, "a reply without an end"))
    }
}

impl Offers {
    fn note(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).to_ascii_uppercase();
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("PIPELINING") => self.pipelining = true,
            Some("8BITMIME") => self.eight_bit = true,
            Some("STARTTLS") => self.starttls = true,
            Some("AUTH") => {
                for mechanism in words {
                    self.plain |= mechanism == "PLAIN";
                    self.scram |= mechanism == "SCRAM-SHA-256";
                }
            }
            _ => {}
        }
    }
}

/// RFC 5321 §4.2: three digits, then a space, a hyphen, or nothing.
fn code(line: &[u8]) -> Option<u16> {
    let (digits, rest) = line.split_at_checked(3)?;
    let known = matches!(rest.first(), None | Some(b' ' | b'-'));
    let digits = std::str::from_utf8(digits).ok()?;
    let code = digits.parse().ok()?;
    (known && (200..600).contains(&code)).then_some(code)
}

#[cfg(test)]
mod tests;
