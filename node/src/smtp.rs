//! The SMTP, submission and LMTP driver: moves bytes between a client and an [`smtp::Session`],
//! and executes its calls against the store.
//!
//! What a message is accepted for is decided at RCPT, by reads alone ([`envelope`]); its bytes
//! stream into one blob ([`incoming`]); the end of DATA is one delivery request, which is one
//! transaction ([`delivery`]). A 250 is sent after the commit and never before.
//!
//! Policy (RFC 5321 §3.6, RFC 6409 §6):
//! - Nobody relays but an authenticated user who owns the sender address. The null sender is
//!   everybody's: RFC 8098 §3 has clients send disposition notifications from it.
//! - The `From` field is not compared with the user: RFC 6409 §6.1 leaves it open, and people
//!   send for others. That is the business of whoever signs outgoing mail.
//! - `Received` names a submitting user's address as it does any other client's.
//! - Address literals are nobody's mailbox here, and no relaying goes to them: they could name
//!   hosts that only this network can reach.
//!
//! - Mail from other servers is judged ([`crate::judging`]): the client and the sender are asked about from
//!   the first recipient on that is taken, so that nobody's names are looked up for those who only try
//!   addresses, and nobody waits for the answers before the message's end ([`judged`]).
//!
//! Abuse control has its say at connect, at RCPT and at DATA ([`visitor`]).
//!
//! Deliberately absent: spam filters.

mod access;
mod address;
mod delivery;
mod envelope;
mod errors;
mod handling;
mod header;
mod incoming;
mod judged;
#[cfg(test)]
mod tests;
mod visitor;

use std::{io, sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use env::{
    Monotonic,
    probe::{self, Planted},
};
use smtp::{Call, Config, EarlyTalkers, Mechanism, Output, Refusal, Reply, Role, Session};

use crate::{
    auth::{Exchange, Identity},
    judging::{self, Asking},
    metrics::{Outcome, Protocol, RefusedReason},
    services::Services,
    stop::Stopping,
    tls::TlsInfo,
    transport::{StartTlsError, Transport},
};
use envelope::Envelope;
use incoming::Incoming;
use visitor::Visitor;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum Disconnect {
    /// The session said so.
    #[error("closed")]
    Closed,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] StartTlsError),
}

/// One client.
struct Connection {
    services: Services,
    transport: Transport,
    protocol: Protocol,
    session: Session,
    /// The session's zero.
    begun: Monotonic,
    wake_at: Option<Duration>,
    /// Read and not yet taken by the session.
    unread: Bytes,
    peer: Peer,
    /// Until the session was told to say goodbye.
    stopping: Option<Stopping>,
    exchange: Option<Exchange>,
    user: Option<Identity>,
    envelope: Option<Envelope>,
    incoming: Option<Incoming>,
    /// What is being asked about the client and the sender.
    asking: Option<Asking>,
    visitor: Visitor,
}

/// Whether more can come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Sending,
    Done,
}

/// Serves one connection until it ends.
pub(crate) async fn serve(services: Services, mut transport: Transport, protocol: Protocol) {
    if protocol == Protocol::Submissions
        && let Err(error) = transport.start_tls(&services.tls).await
    {
        services.metrics.connection_refused(protocol, RefusedReason::Tls);
        tracing::debug!(%error, "no TLS");
        return;
    }
    let _open = services.metrics.session(protocol);
    let mut connection = Connection {
        session: Session::new(config(&services, &transport, protocol)),
        begun: services.env.monotonic(),
        wake_at: None,
        unread: Bytes::new(),
        peer: Peer::Sending,
        stopping: Some(services.stopping.clone()),
        exchange: None,
        user: None,
        envelope: None,
        incoming: None,
        asking: None,
        visitor: Visitor::new(&services.guard, transport.peer, protocol),
        services,
        transport,
        protocol,
    };
    let ended = connection.run().await;
    connection.visitor.ended(connection.session.offences().errors);
    connection.transport.close().await;
    match ended {
        Err(Disconnect::Closed) | Ok(()) => tracing::debug!("session ended"),
        Err(error) => tracing::debug!(%error, "session broke off"),
    }
}

fn config(services: &Services, transport: &Transport, protocol: Protocol) -> Config {
    let role = role(protocol);
    let limits = services.limits();
    Config {
        role,
        hostname: address::hostname(&services.config),
        tls: match &transport.tls {
            Some(info) => smtp::TlsState::Active(tls_info(info)),
            None => smtp::TlsState::Available,
        },
        mechanisms: match role {
            Role::Submission => vec![
                Mechanism::ScramSha256Plus,
                Mechanism::ScramSha256,
                Mechanism::Plain,
                Mechanism::Login,
            ],
            // Users submit where MAIL needs AUTH; a server has no password here.
            Role::Exchange | Role::Lmtp => Vec::new(),
        },
        early_talkers: EarlyTalkers::Serve,
        extensions: handling::extensions(role, &services.config.outbound, services.env.wall()),
        limits: smtp::Limits {
            message_octets_max: limits.message_bytes_max,
            recipients_max: usize::try_from(limits.recipients_max).unwrap_or(usize::MAX),
            ..smtp::Limits::default()
        },
    }
}

fn role(protocol: Protocol) -> Role {
    match protocol {
        Protocol::Submission | Protocol::Submissions => Role::Submission,
        Protocol::Lmtp => Role::Lmtp,
        Protocol::Smtp | Protocol::Imap | Protocol::Imaps | Protocol::Http => Role::Exchange,
    }
}

fn tls_info(info: &TlsInfo) -> smtp::TlsInfo {
    smtp::TlsInfo {
        version: info.protocol.to_owned(),
        cipher: info.cipher.clone(),
        channel_binding: if info.channel_binding().is_available() {
            smtp::ChannelBinding::Available
        } else {
            smtp::ChannelBinding::Absent
        },
    }
}

/// What woke the connection.
enum Woken {
    Input(Bytes),
    Timer,
    Stop,
}

impl Connection {
    async fn run(&mut self) -> Result<(), Disconnect> {
        loop {
            while let Some(call) = self.flush().await? {
                self.execute(call).await;
            }
            if !self.unread.is_empty() && self.session.wants_input() {
                self.feed();
                continue;
            }
            match self.wait().await? {
                Woken::Input(bytes) if bytes.is_empty() => {
                    self.peer = Peer::Done;
                    self.session.handle_eof(self.now());
                }
                Woken::Input(bytes) => {
                    self.unread = bytes;
                    self.feed();
                }
                Woken::Timer => {
                    // The session sets the next one, if there is one.
                    self.wake_at = None;
                    self.session.handle_timeout(self.now());
                }
                Woken::Stop => {
                    self.stopping = None;
                    self.session.handle_shutdown(self.now());
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.services.env.monotonic().saturating_since(self.begun)
    }

    fn feed(&mut self) {
        if probe::planted(Planted::TrustPeers) {
            assert!(self.unread.contains(&b'\n'), "a line ends where it arrives");
        }
        let taken = self.session.handle_input(self.now(), &self.unread);
        self.unread.advance(taken);
    }

    /// Writes what the session has to say, up to its next call.
    async fn flush(&mut self) -> Result<Option<Call>, Disconnect> {
        loop {
            match self.session.poll_output() {
                Some(Output::Send(bytes)) => {
                    self.hold_back().await;
                    self.transport.write(&bytes).await?;
                }
                Some(Output::Call(call)) => return Ok(Some(call)),
                Some(Output::WakeAt(at)) => self.wake_at = Some(at),
                Some(Output::StartTls) => self.start_tls().await?,
                Some(Output::Close) => {
                    self.transport.flush().await?;
                    return Err(Disconnect::Closed);
                }
                None => {
                    self.transport.flush().await?;
                    return Ok(None);
                }
            }
        }
    }

    /// Lets the next reply wait, where the client has earned that.
    async fn hold_back(&mut self) {
        let delay = self.visitor.delay(self.session.offences().all());
        if delay.is_zero() {
            return;
        }
        let open = Arc::clone(&self.transport.session);
        let stopping = &mut self.stopping;
        let stop = async {
            let Some(stopping) = stopping else { return };
            tokio::select! {
                biased;
                () = stopping.requested() => {}
                () = open.asked_to_end() => {}
            }
        };
        tokio::select! {
            biased;
            () = stop => {}
            () = self.services.env.sleep(delay) => {}
        }
    }

    async fn start_tls(&mut self) -> Result<(), Disconnect> {
        self.transport.flush().await?;
        // RFC 3207 §4.2: what came in clear, and who it came from, counts no more.
        self.unread.clear();
        self.user = None;
        self.visitor.is_user(None);
        self.exchange = None;
        if let Err(error) = self.transport.start_tls(&self.services.tls).await {
            self.services.metrics.connection_refused(self.protocol, RefusedReason::Tls);
            return Err(error.into());
        }
        if let Some(info) = self.transport.tls.as_ref().map(tls_info) {
            self.session.handle_tls_established(self.now(), info);
        }
        Ok(())
    }

    async fn wait(&mut self) -> Result<Woken, Disconnect> {
        let env = self.services.env.clone();
        let deadline = self.wake_at.map(|at| self.begun + at);
        let reads =
            self.peer == Peer::Sending && self.unread.is_empty() && self.session.wants_input();
        let stopping = &mut self.stopping;
        let open = Arc::clone(&self.transport.session);
        let stop = async {
            match stopping {
                Some(stopping) => tokio::select! {
                    biased;
                    () = stopping.requested() => {}
                    () = open.asked_to_end() => {}
                },
                None => std::future::pending().await,
            }
        };
        // In order, and with no draw of Tokio's own, so that a simulation can replay it.
        tokio::select! {
            biased;
            () = stop => Ok(Woken::Stop),
            () = env.sleep_until_any(deadline) => Ok(Woken::Timer),
            input = self.transport.read(), if reads => Ok(Woken::Input(input?)),
        }
    }

    /// Executes a call and answers it: every call exactly once.
    async fn execute(&mut self, call: Call) {
        let begun = self.services.env.monotonic();
        let name = call_name(&call);
        let reply = match call {
            Call::Connect if self.services.stopping.is_requested() => {
                Reply::Refused(Refusal::ShuttingDown)
            }
            Call::Connect => match self.visitor.connected().await {
                Ok(()) => Reply::Accepted,
                Err(refusal) => refused("client refused", refusal),
            },
            Call::Auth { mechanism, initial } => self.authenticate(mechanism, initial).await,
            Call::AuthResponse(response) => self.authenticate_step(Some(response)).await,
            Call::AuthAbort => self.authenticate_abort(),
            Call::Mail(mail) => self.mail(mail).await,
            Call::Rcpt(rcpt) => self.rcpt(rcpt).await,
            Call::BeginData { protocol, helo } => self.begin_data(protocol, &helo).await,
            Call::Data(bytes) => self.data(&bytes).await,
            Call::EndData => self.end_data().await,
            Call::AbortData => {
                self.message_ended(Outcome::Rejected);
                Reply::Accepted
            }
            Call::Reset => {
                self.envelope = None;
                self.incoming = None;
                self.asking = None;
                Reply::Accepted
            }
        };
        self.session.handle_reply(self.now(), reply);
        if let Some(name) = name {
            let now = self.services.env.monotonic();
            self.services.metrics.smtp_command(name, now.saturating_since(begun));
        }
    }

    async fn mail(&mut self, mail: smtp::MailFrom) -> Reply {
        self.asking = None;
        let peer = self.transport.peer;
        if self.user.is_none() && self.services.blocks(self.protocol, peer) {
            // Blocked since it connected.
            return refused("sender refused", Refusal::RateLimited);
        }
        match Envelope::begin(&self.services, self.user.as_ref(), mail).await {
            Ok(envelope) => {
                let (helo, sender) = (self.session.helo(), envelope.sender.as_ref());
                self.visitor.begins(helo, sender, envelope.user);
                self.envelope = Some(envelope);
                Reply::Accepted
            }
            Err(refusal) => refused("sender refused", refusal),
        }
    }

    async fn rcpt(&mut self, rcpt: smtp::RcptTo) -> Reply {
        // The session lets no RCPT come before MAIL.
        let Some(envelope) = &mut self.envelope else { return out_of_order() };
        let taken = envelope.recipients.len();
        let added = match self.visitor.recipient(&rcpt.recipient, taken).await {
            Ok(()) => envelope.add(&self.services, rcpt).await,
            Err(refusal) => Err(refusal),
        };
        if added == Err(Refusal::UnknownRecipient) {
            self.visitor.asked_for_nobody();
        }
        match added {
            Ok(()) => {
                self.ask();
                Reply::Accepted
            }
            Err(refusal) => refused("recipient refused", refusal),
        }
    }

    /// Begins to ask about a client whose mail is judged, and about the sender.
    fn ask(&mut self) {
        let peer = self.transport.peer;
        let is_judged = role(self.protocol) == Role::Exchange
            && self.services.settings.borrow().judging.judges(peer);
        if self.asking.is_some() || !is_judged {
            return;
        }
        let (Some(helo), Some(envelope)) = (self.session.helo(), &self.envelope) else { return };
        let sender = envelope.mail.sender.address().map(ToString::to_string).unwrap_or_default();
        self.asking = Some(Asking::begin(&self.services, peer, helo.to_string(), sender));
    }

    async fn begin_data(&mut self, protocol: smtp::Protocol, helo: &smtp::HeloName) -> Reply {
        let Some(envelope) = &self.envelope else { return out_of_order() };
        let filter = match self.visitor.data(envelope).await {
            Ok(field) => field,
            Err(refusal) => {
                self.message_ended(delivery::outcome(refusal));
                return refused("message refused", refusal);
            }
        };
        let arrival = incoming::Arrival {
            role: role(self.protocol),
            protocol,
            helo,
            peer: self.transport.peer,
            tls: self.transport.tls.as_ref().map(tls_info),
            filter,
        };
        self.incoming =
            Some(Incoming::begin(&self.services, envelope, &arrival, self.asking.take()));
        Reply::Accepted
    }

    async fn data(&mut self, bytes: &[u8]) -> Reply {
        let Some(incoming) = &mut self.incoming else { return out_of_order() };
        match incoming.push(bytes).await {
            Ok(()) => Reply::Accepted,
            Err(refusal) => {
                let found = incoming.findings();
                if let Some(findings) = found.filter(|it| it.decision.refusal.is_some()) {
                    judging::count(&self.services, &findings);
                    tracing::info!(verdicts = findings.summary(), %refusal, "message");
                }
                self.message_ended(delivery::outcome(refusal));
                refused("message refused", refusal)
            }
        }
    }

    async fn end_data(&mut self) -> Reply {
        let (Some(envelope), Some(incoming)) = (self.envelope.take(), self.incoming.take()) else {
            return out_of_order();
        };
        // In memory of its own: every session would be larger by it.
        Box::pin(delivery::finish(&self.services, self.protocol, envelope, incoming)).await
    }

    /// The message and its transaction are over, without a delivery.
    fn message_ended(&mut self, outcome: Outcome) {
        self.envelope = None;
        self.incoming = None;
        self.services.metrics.message_received(self.protocol, outcome);
    }
}

fn refused(what: &'static str, refusal: Refusal) -> Reply {
    tracing::debug!(%refusal, "{what}");
    Reply::Refused(refusal)
}

/// The session asked for what cannot be: its own fault, told as a passing one.
fn out_of_order() -> Reply {
    tracing::error!("a call came out of order");
    Reply::Refused(Refusal::TemporaryFailure)
}

/// What a call is counted as; pieces of a message are counted with its end.
fn call_name(call: &Call) -> Option<&'static str> {
    match call {
        Call::Connect => Some("CONNECT"),
        Call::Auth { .. } | Call::AuthResponse(_) | Call::AuthAbort => Some("AUTH"),
        Call::Mail(_) => Some("MAIL"),
        Call::Rcpt(_) => Some("RCPT"),
        Call::EndData => Some("DATA"),
        Call::Reset => Some("RSET"),
        Call::BeginData { .. } | Call::Data(_) | Call::AbortData => None,
    }
}
