//! Moves bytes between a socket and the client's side of SMTP.
//!
//! The session decides everything; here is what it cannot do: read, write, wait and shake hands.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use env::{Env, Monotonic, Stream};
use smtp::{
    HeloName,
    client::{
        BeginError, Client, Dialect, Encryption, Event, Failure, Login, Outcome, Output, Settings,
        Timeouts, Transaction,
    },
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{
    content::Content,
    security::{Assurance, Demand, HandshakeError, Security, Shown, Unproven},
    terms::Need,
};
use crate::limits;

/// A connection to another server, over which one message after the other can go.
pub(super) struct Connection {
    env: Env,
    stream: Option<Stream>,
    client: Client,
    begun: Monotonic,
    wake: Option<Monotonic>,
    /// The server's name, as it was looked up.
    pub(super) host: String,
    demand: Demand,
    /// What it was opened for.
    need: Need,
    shown: Shown,
    /// The session has said why it is over.
    failure: Option<Failure>,
    /// A handshake that failed: the session only knows that the connection is gone.
    handshake: Option<HandshakeError>,
}

/// Whom to connect to, and how.
pub(super) struct Call {
    pub(super) address: SocketAddr,
    /// One of our own addresses.
    pub(super) source: Option<IpAddr>,
    /// The server's name, as it was looked up.
    pub(super) host: String,
    pub(super) helo: HeloName,
    pub(super) dialect: Dialect,
    pub(super) encryption: Encryption,
    pub(super) login: Option<Login>,
    pub(super) demand: Demand,
    /// What the message needs that it is opened for.
    pub(super) need: Need,
    /// How long the server is waited for.
    pub(super) timeouts: Timeouts,
}

/// What a session comes to next.
enum Step {
    /// It has something to tell.
    Event(Event),
    /// It wants this written, with the last of which the server may take the message.
    End(Bytes),
    /// It wants the next piece of the content.
    Content,
    /// The connection is closed.
    Closed,
}

/// How much of a content's end has left.
enum Written {
    All,
    NotAll,
}

/// Why a server cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Nothing accepts there, or not in time.
    #[error("no connection: {0}")]
    Socket(io::Error),
    /// The handshake failed.
    #[error("TLS: {0}")]
    Handshake(HandshakeError),
    /// The session did not come about.
    #[error("{0}")]
    Session(Failure),
}

/// Why a message did not get its outcome.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The server cannot take it as it is; nothing was sent.
    #[error("{0}")]
    Begin(#[from] BeginError),
    /// The message's bytes cannot be read; the server does not have it.
    #[error("the message cannot be read: {0}")]
    Blob(blob::BlobError),
    /// We may not send it any more; the server does not have it.
    #[error("the claim is lost")]
    Unclaimed,
}

impl Connection {
    /// Connects, greets, encrypts, logs in, as far as the call wants it.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub(super) async fn open(
        env: &Env,
        security: &Security,
        call: Call,
    ) -> Result<Self, ConnectError> {
        let connecting = async {
            match call.source {
                Some(source) => env.connect_from(source, call.address).await,
                None => env.connect(call.address).await,
            }
        };
        let connecting = env.timeout(limits::CONNECT_TIMEOUT, connecting).await;
        let stream = connecting
            .unwrap_or_else(|env::Elapsed| Err(io::ErrorKind::TimedOut.into()))
            .map_err(ConnectError::Socket)?;
        Self::greet(env, security, stream, call).await
    }

    /// Does the same over a connection that stands.
    async fn greet(
        env: &Env,
        security: &Security,
        mut stream: Stream,
        call: Call,
    ) -> Result<Self, ConnectError> {
        let Call { host, helo, dialect, encryption, login, demand, need, timeouts, .. } = call;
        let mut shown = Shown { assurance: Assurance::Clear, unproven: None };
        if encryption == Encryption::Implicit {
            let shaking = security.handshake(stream, &host, &demand);
            let shaken = in_time(env, shaking).await.map_err(ConnectError::Handshake)?;
            (stream, shown) = shaken;
        }
        let settings = Settings { dialect, encryption, login, timeouts, ..Settings::new(helo) };
        let mut connection = Self {
            env: env.clone(),
            stream: Some(stream),
            client: Client::new(settings),
            begun: env.monotonic(),
            wake: None,
            host,
            demand,
            need,
            shown,
            failure: None,
            handshake: None,
        };
        match connection.step(security).await {
            Step::Event(Event::Ready(_)) => Ok(connection),
            _ => Err(match (connection.handshake.take(), connection.failure.take()) {
                (Some(error), _) => ConnectError::Handshake(error),
                (None, Some(failure)) => ConnectError::Session(failure),
                (None, None) => ConnectError::Socket(io::ErrorKind::ConnectionReset.into()),
            }),
        }
    }

    /// Whether a message that needs this may go over it.
    pub(super) fn serves(&self, need: Need) -> bool {
        let requires = smtp::client::Extension::RequireTls;
        match need {
            // One that was opened whatever its TLS came to may lack what the domain wants.
            Need::Ordinary => self.need != Need::Nothing,
            Need::Nothing => true,
            Need::RequireTls => {
                self.assurance() == Assurance::Verified
                    && self.client.capabilities().offers(requires)
            }
        }
    }

    /// What it is known to be.
    pub(super) fn assurance(&self) -> Assurance {
        self.shown.assurance
    }

    /// What its certificate lacks, where that is no hindrance.
    pub(super) fn unproven(&self) -> Option<Unproven> {
        self.shown.unproven
    }

    /// Whether another message can go over it.
    pub(super) fn is_ready(&self) -> bool {
        self.stream.is_some() && self.client.is_ready()
    }

    /// Whether the server has had all messages that it takes over one connection (RFC 9422 §4.1).
    pub(super) fn is_exhausted(&self) -> bool {
        self.client.is_exhausted()
    }

    /// How many recipients of one message the server takes at once, where it says so (RFC 9422 §4.2).
    pub(super) fn recipients_max(&self) -> Option<usize> {
        let most = self.client.capabilities().recipients_max()?;
        Some(usize::try_from(most).unwrap_or(usize::MAX))
    }

    /// Whether the server reports what becomes of messages (RFC 3461).
    pub(super) fn reports(&self) -> bool {
        self.client.capabilities().offers(smtp::client::Extension::Dsn)
    }

    /// Whether it watches the time that a sender gives (RFC 2852).
    pub(super) fn keeps_time(&self) -> bool {
        self.client.capabilities().offers(smtp::client::Extension::DeliverBy)
    }

    /// Sends one message. `may_end` is asked right before the content's end, and each time that some of
    /// it would be taken: what was so may have been over for minutes once a server takes anything again.
    ///
    /// # Errors
    /// [`SendError`]; the server then has no message.
    pub(super) async fn send(
        &mut self,
        security: &Security,
        transaction: Transaction,
        mut content: Content,
        may_end: impl Fn() -> bool,
    ) -> Result<Outcome, SendError> {
        let now = self.now();
        self.client.begin(now, transaction)?;
        let mut given_up = None;
        loop {
            match self.step(security).await {
                Step::Event(Event::Answered(outcome)) => {
                    return given_up.map_or(Ok(outcome), Err);
                }
                Step::Event(_) => {}
                Step::End(bytes) => {
                    if let Err(error) = self.send_end(&bytes, &may_end).await {
                        given_up = Some(error);
                        // Without a farewell, which would push out what is held of the end.
                        self.stream = None;
                        self.client.abort();
                    }
                }
                Step::Content => {
                    if let Err(error) = self.hand_in(&mut content, &may_end).await {
                        given_up = Some(error);
                        // No end of the content: the server drops what it has.
                        self.client.abort();
                    }
                }
                Step::Closed => unreachable!("a session answers what it has begun"),
            }
        }
    }

    /// Hands in the next piece of the content, or its end.
    async fn hand_in(
        &mut self,
        content: &mut Content,
        may_end: impl Fn() -> bool,
    ) -> Result<(), SendError> {
        let piece = content.next().await.map_err(SendError::Blob)?;
        let now = self.now();
        match piece {
            Some(piece) => self.client.content(now, piece),
            None if may_end() => self.client.finish(now),
            None => return Err(SendError::Unclaimed),
        }
        Ok(())
    }

    /// Ends the session politely, and does not wait for long.
    pub(super) async fn close(mut self, security: &Security) {
        let now = self.now();
        self.client.quit(now);
        while !matches!(self.step(security).await, Step::Closed) {}
    }

    fn now(&self) -> Duration {
        self.env.monotonic().saturating_since(self.begun)
    }

    /// Goes on until the session has something to tell or wants something.
    async fn step(&mut self, security: &Security) -> Step {
        loop {
            if let Some(step) = self.put_out(security).await {
                if let Step::Event(Event::Failed(failure)) = &step {
                    self.failure = Some(failure.clone());
                }
                return step;
            }
            if self.client.wants_content() {
                return Step::Content;
            }
            let Some(stream) = self.stream.as_mut() else { return Step::Closed };
            // The buffer lives on the stack of one poll, so that a connection that waits holds none.
            let read = poll_fn(|cx| {
                let mut space = [MaybeUninit::uninit(); limits::READ_BYTES];
                let mut buffer = ReadBuf::uninit(&mut space);
                ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
                Poll::Ready(io::Result::Ok(Bytes::copy_from_slice(buffer.filled())))
            });
            let read = tokio::select! {
                biased;
                read = read => Some(read),
                () = self.env.sleep_until_any(self.wake) => None,
            };
            let now = self.now();
            match read {
                None => {
                    self.wake = None;
                    self.client.handle_timeout(now);
                }
                Some(Ok(bytes)) if !bytes.is_empty() => self.client.handle_input(now, &bytes),
                Some(_) => self.client.handle_closed(now),
            }
        }
    }

    /// Does what the session wants, up to what only its caller can do.
    async fn put_out(&mut self, security: &Security) -> Option<Step> {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Send(bytes) => self.send_bytes(bytes).await,
                Output::SendEnd(bytes) => return Some(Step::End(bytes)),
                Output::WakeAt(at) => self.wake = Some(self.begun + at),
                Output::Event(event) => return Some(Step::Event(event)),
                Output::StartTls => self.start_tls(security).await,
                Output::Close => self.shut().await,
            }
        }
        let now = self.now();
        self.client.handle_sent(now);
        None
    }

    async fn send_bytes(&mut self, bytes: Bytes) {
        let Some(stream) = self.stream.as_mut() else { return };
        let writing = async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        let written = self.env.timeout(limits::SEND_TIMEOUT, writing).await;
        if !matches!(written, Ok(Ok(()))) {
            self.lost();
        }
    }

    /// Writes a content's end. An error: not all of it has left, so that the server has no message.
    async fn send_end(
        &mut self,
        bytes: &[u8],
        may_end: impl Fn() -> bool,
    ) -> Result<(), SendError> {
        let Some(stream) = self.stream.as_mut() else { return Ok(()) };
        let mut rest = bytes;
        let writing = poll_fn(|cx| {
            loop {
                // TLS may hold what it has taken until the socket takes it, so this is asked then, too.
                if !may_end() {
                    return Poll::Ready(Ok(Written::NotAll));
                }
                if rest.is_empty() {
                    return Pin::new(&mut *stream).poll_flush(cx).map_ok(|()| Written::All);
                }
                match ready!(Pin::new(&mut *stream).poll_write(cx, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    taken => rest = &rest[taken..],
                }
            }
        });
        let written: Result<io::Result<Written>, env::Elapsed> =
            self.env.timeout(limits::SEND_TIMEOUT, writing).await;
        match written {
            Ok(Ok(Written::All)) => Ok(()),
            Ok(Ok(Written::NotAll)) => Err(SendError::Unclaimed),
            Ok(Err(_)) | Err(env::Elapsed) => {
                self.lost();
                Ok(())
            }
        }
    }

    /// The connection is gone.
    fn lost(&mut self) {
        self.stream = None;
        let now = self.now();
        self.client.handle_closed(now);
    }

    async fn start_tls(&mut self, security: &Security) {
        let Some(stream) = self.stream.take() else { return };
        let shaken = in_time(&self.env, security.handshake(stream, &self.host, &self.demand)).await;
        let now = self.now();
        match shaken {
            Ok((stream, shown)) => {
                self.stream = Some(stream);
                self.shown = shown;
                self.client.handle_tls_established(now);
            }
            Err(error) => {
                self.handshake = Some(error);
                self.client.handle_closed(now);
            }
        }
    }

    async fn shut(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            // The peer may be gone; nothing depends on it.
            let _closed = self.env.timeout(limits::CLOSE_TIMEOUT, stream.shutdown()).await;
        }
    }
}

async fn in_time<T>(
    env: &Env,
    shaking: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    let shaken = env.timeout(limits::HANDSHAKE_TIMEOUT, shaking).await;
    shaken
        .unwrap_or_else(|env::Elapsed| Err(HandshakeError::Failed("no answer in time".to_owned())))
}

#[cfg(test)]
mod tests;
