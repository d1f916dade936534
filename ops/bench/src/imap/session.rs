//! One IMAP connection: greeting, login, commands and their answers.

use super::Setup;
use crate::{
    args::Workload,
    connect::Login,
    failure::{Failure, Kind, text},
    limits::{IDLE_BUFFER_BYTES, LOGIN_RESPONSES_MAX, READ_BUFFER_BYTES},
    load::{Client, Done, Run},
    sasl::{self, Scram},
    tls::TlsMode,
    wire::{LineEnd, Wire},
};

/// What the server offers that we use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Offers {
    pub(super) literal_plus: bool,
    pub(super) literal_minus: bool,
    starttls: bool,
    login_disabled: bool,
    plain: bool,
    scram: bool,
    idle: bool,
}

/// What an answer's untagged responses told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// FETCH responses.
    pub(super) fetched: u64,
    /// Numbers in SEARCH responses.
    pub(super) matches: u64,
    /// The last EXISTS.
    pub(super) exists: Option<u64>,
}

/// An open connection between two operations.
pub(super) struct Session {
    pub(super) wire: Wire,
    pub(super) offers: Offers,
    /// Messages of the mailbox, as the server told last.
    pub(super) exists: u64,
    /// Commands of the workload so far.
    pub(super) asked: u64,
    pub(super) connection: u64,
    tags: u64,
}

/// What a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Response {
    Untagged,
    GoAhead,
    Tagged,
}

impl Client for Session {
    type Setup = Setup;

    async fn open(setup: &Setup, connection: u64) -> Result<Self, Failure> {
        let stream = setup.target.connect().await?;
        let mut session = Self::new(Wire::new(stream, buffer_bytes(setup)), connection);
        session.response(None).await?;
        if !session.wire.head().starts_with(b"* OK") {
            return Err(Failure::unexpected("* OK", session.wire.head()));
        }
        session.read_offers().await?;
        if setup.target.mode == TlsMode::Starttls {
            session = session.protected(setup).await?;
        }
        if let Some(login) = &setup.target.login {
            session.log_in(setup, login, connection).await?;
        }
        if setup.workload == Workload::Idle && !session.offers.idle {
            return Err(Failure::lost(Kind::Protocol, "the server offers no IDLE"));
        }
        // A server's first SELECT may be the very one that is to be measured.
        if !matches!(setup.workload, Workload::Append | Workload::Select) {
            let told = session.command(&format!("SELECT \"{}\"", setup.mailbox)).await;
            session.exists = told.map_err(Failure::into_lost)?.exists.unwrap_or(0);
        }
        Ok(session)
    }

    async fn operate(&mut self, setup: &Setup, run: &Run, turn: u64) -> Result<Done, Failure> {
        self.work(setup, run, turn).await
    }

    async fn close(mut self) {
        // The server may just as well hang up.
        let _said = self.command("LOGOUT").await;
    }
}

fn buffer_bytes(setup: &Setup) -> usize {
    match setup.workload {
        Workload::Idle => IDLE_BUFFER_BYTES,
        _ => READ_BUFFER_BYTES,
    }
}

impl Session {
    fn new(wire: Wire, connection: u64) -> Self {
        Self { wire, offers: Offers::default(), exists: 0, asked: 0, connection, tags: 0 }
    }

    pub(super) fn next_tag(&mut self) -> String {
        self.tags += 1;
        format!("b{}", self.tags)
    }

    /// Sends a command and reads its answer.
    ///
    /// # Errors
    /// Where the server says NO or BAD, or nothing that can be understood.
    pub(super) async fn command(&mut self, command: &str) -> Result<Told, Failure> {
        let tag = self.next_tag();
        self.wire.send(format!("{tag} {command}\r\n").as_bytes()).await?;
        self.answer(&tag).await
    }

    /// Reads up to the tagged response.
    ///
    /// # Errors
    /// As [`Session::command`].
    pub(super) async fn answer(&mut self, tag: &str) -> Result<Told, Failure> {
        let mut told = Told::default();
        loop {
            let (response, end) = self.response(Some(tag)).await?;
            match response {
                Response::Untagged => told.note(self.wire.head(), end),
                Response::GoAhead => {
                    return Err(Failure::unexpected("an answer", self.wire.head()));
                }
                Response::Tagged => {
                    self.exists = told.exists.unwrap_or(self.exists);
                    return self.outcome(tag).map(|()| told);
                }
            }
        }
    }

    fn outcome(&self, tag: &str) -> Result<(), Failure> {
        let line = self.wire.head();
        let outcome = line.get(tag.len() + 1..).unwrap_or_default();
        match outcome.split(|byte| *byte == b' ').next() {
            Some(b"OK") => Ok(()),
            Some(b"NO") => Err(Failure::refused(Kind::No, text(line))),
            Some(b"BAD") => Err(Failure::refused(Kind::Bad, text(line))),
            _ => Err(Failure::unexpected("OK, NO or BAD", line)),
        }
    }

    /// Waits until the server wants the rest of a command.
    ///
    /// # Errors
    /// Where it does not.
    pub(super) async fn go_ahead(&mut self, tag: &str) -> Result<(), Failure> {
        loop {
            match self.response(Some(tag)).await?.0 {
                Response::Untagged => {}
                Response::GoAhead => return Ok(()),
                Response::Tagged => {
                    self.outcome(tag)?;
                    return Err(Failure::unexpected("a go-ahead", self.wire.head()));
                }
            }
        }
    }

    /// Reads a response with its literals; its beginning is in the wire's head afterwards.
    async fn response(&mut self, tag: Option<&str>) -> Result<(Response, LineEnd), Failure> {
        let mut end = self.wire.line().await?;
        let line = self.wire.head();
        let response = if line.starts_with(b"* ") {
            Response::Untagged
        } else if line.starts_with(b"+") {
            Response::GoAhead
        } else if tag.is_some_and(|tag| is_tagged(line, tag)) {
            Response::Tagged
        } else {
            return Err(Failure::unexpected("a response", line));
        };
        if let Some(mut literal) = end.literal.filter(|_| response == Response::Untagged) {
            let head = self.wire.take_head();
            loop {
                self.wire.skip(literal).await?;
                let LineEnd { literal: next, spaces } = self.wire.line().await?;
                end.spaces += spaces;
                let Some(next) = next else { break };
                literal = next;
            }
            self.wire.put_head(head);
        }
        Ok((response, end))
    }

    async fn read_offers(&mut self) -> Result<(), Failure> {
        let tag = self.next_tag();
        self.wire.send(format!("{tag} CAPABILITY\r\n").as_bytes()).await?;
        for _ in 0..LOGIN_RESPONSES_MAX {
            match self.response(Some(&tag)).await?.0 {
                Response::Tagged => return self.outcome(&tag).map_err(Failure::into_lost),
                _ => self.offers.note(self.wire.head()),
            }
        }
        Err(Failure::lost(Kind::Protocol, "CAPABILITY without an end"))
    }

    async fn protected(mut self, setup: &Setup) -> Result<Self, Failure> {
        if !self.offers.starttls {
            return Err(Failure::lost(Kind::Connect, "the server offers no STARTTLS"));
        }
        self.command("STARTTLS").await.map_err(Failure::into_lost)?;
        let stream = setup.target.protect(self.wire.into_stream()?).await?;
        let mut session = Self::new(Wire::new(stream, buffer_bytes(setup)), self.connection);
        session.read_offers().await?;
        Ok(session)
    }

    /// By LOGIN where passwords may be shown, by SASL where not.
    async fn log_in(
        &mut self,
        setup: &Setup,
        login: &Login,
        connection: u64,
    ) -> Result<(), Failure> {
        let user = login.user(connection);
        let done = if !self.offers.login_disabled {
            let command = format!("LOGIN {} {}", quoted(&user), quoted(&login.password));
            self.command(&command).await.map(|_| ())
        } else if self.offers.scram {
            let random = setup.target.env.random_array();
            let scram = Scram::new(&user, &login.password, &login.secrets, random);
            self.log_in_by_scram(scram).await
        } else if self.offers.plain {
            self.log_in_by_plain(&sasl::plain(&user, &login.password)).await
        } else {
            Err(Failure::lost(Kind::Login, "no LOGIN, no PLAIN and no SCRAM-SHA-256 is offered"))
        };
        done.map_err(|failure| match failure.kind {
            Kind::No | Kind::Bad => Failure { kind: Kind::Login, ..failure.into_lost() },
            _ => failure,
        })?;
        self.read_offers().await
    }

    async fn log_in_by_plain(&mut self, message: &str) -> Result<(), Failure> {
        let tag = self.next_tag();
        self.wire.send(format!("{tag} AUTHENTICATE PLAIN\r\n").as_bytes()).await?;
        self.go_ahead(&tag).await?;
        self.wire.send(format!("{message}\r\n").as_bytes()).await?;
        self.answer(&tag).await.map(|_| ())
    }

    async fn log_in_by_scram(&mut self, mut scram: Scram<'_>) -> Result<(), Failure> {
        let tag = self.next_tag();
        self.wire.send(format!("{tag} AUTHENTICATE SCRAM-SHA-256\r\n").as_bytes()).await?;
        self.go_ahead(&tag).await?;
        self.wire.send(format!("{}\r\n", scram.first()).as_bytes()).await?;
        self.go_ahead(&tag).await?;
        let proof = scram.proof(self.wire.head().get(2..).unwrap_or_default())?;
        self.wire.send(format!("{proof}\r\n").as_bytes()).await?;
        self.go_ahead(&tag).await?;
        scram.verify(self.wire.head().get(2..).unwrap_or_default())?;
        self.wire.send(b"\r\n").await?;
        self.answer(&tag).await.map(|_| ())
    }
}

impl Told {
    fn note(&mut self, line: &[u8], end: LineEnd) {
        if line.starts_with(b"* SEARCH") {
            self.matches += end.spaces.saturating_sub(1);
            return;
        }
        let Some(rest) = line.strip_prefix(b"* ") else { return };
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, what) = rest.split_at(digits);
        if what.starts_with(b" FETCH ") {
            self.fetched += 1;
        } else if what == b" EXISTS" {
            self.exists = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
        }
    }
}

impl Offers {
    fn note(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).to_ascii_uppercase();
        let Some(list) = line.strip_prefix("* CAPABILITY ") else { return };
        let has = |name: &str| list.split_ascii_whitespace().any(|each| each == name);
        *self = Self {
            literal_plus: has("LITERAL+"),
            literal_minus: has("LITERAL-"),
            starttls: has("STARTTLS"),
            login_disabled: has("LOGINDISABLED"),
            plain: has("AUTH=PLAIN"),
            scram: has("AUTH=SCRAM-SHA-256"),
            idle: has("IDLE"),
        };
    }
}

fn is_tagged(line: &[u8], tag: &str) -> bool {
    line.strip_prefix(tag.as_bytes()).is_some_and(|rest| rest.starts_with(b" "))
}

/// RFC 9051 §9, `quoted`; the arguments let no control character through.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests;
