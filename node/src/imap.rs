//! The IMAP driver: moves bytes between a client and an [`imap::Session`], and executes its
//! calls against the store.
//!
//! A session shows its client one [`mail::view::View`] at a time and moves to a newer one only
//! where the protocol lets it say what changed (RFC 9051 §5.2, §7.5.1; RFC 2180).

mod access;
mod append;
mod errors;
mod fetch;
mod flags;
mod list;
mod mailboxes;
mod messages;
mod search;
mod section;
mod select;
mod selected;
mod store;
mod structure;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use cluster::wake::Interest;
use imap::{Call, Config, Output, Reply, Session};
use mail::AccountId;

use crate::{
    auth::{self, Exchange},
    hub::Wakeups,
    limits,
    metrics::{Protocol, RefusedReason},
    services::Services,
    transport::{Pieces, Transport},
};
use append::Upload;
use selected::Selected;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Disconnect {
    /// The session said so.
    #[error("closed")]
    Closed,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] crate::transport::StartTlsError),
}

/// What clients are told at a drain.
const STOPPING: &str = "Server is shutting down";

/// What a client is told whose session is ended.
const ENDED: &str = "An administrator has ended this session";

/// One client.
struct Connection {
    services: Services,
    transport: Transport,
    session: Session,
    exchange: Option<Exchange>,
    user: Option<User>,
    selected: Option<Selected>,
    upload: Option<Upload>,
    wake_at: Option<Duration>,
}

/// Who the client has proved to be.
struct User {
    account: AccountId,
    wakeups: Wakeups,
    /// From the first time that the client waits for changes.
    interest: Option<Interest>,
}

/// Serves one connection until it ends.
pub(crate) async fn serve(services: Services, mut transport: Transport, protocol: Protocol) {
    if protocol == Protocol::Imaps
        && let Err(error) = transport.start_tls(&services.tls).await
    {
        services.metrics.connection_refused(protocol, RefusedReason::Tls);
        tracing::debug!(%error, "no TLS");
        return;
    }
    let _open = services.metrics.session(protocol);
    let session = Session::new(config(&services, &transport), now(&services));
    let mut connection = Connection {
        services,
        transport,
        session,
        exchange: None,
        user: None,
        selected: None,
        upload: None,
        wake_at: None,
    };
    let ended = connection.run().await;
    connection.transport.close().await;
    match ended {
        Err(Disconnect::Closed) | Ok(()) => tracing::debug!("session ended"),
        Err(error) => tracing::debug!(%error, "session broke off"),
    }
}

fn config(services: &Services, transport: &Transport) -> Config {
    let tls = match &transport.tls {
        Some(info) => imap::TlsState::Active(tls_info(info)),
        None => imap::TlsState::Available,
    };
    // The session offers of these what fits the connection at the time: in clear SCRAM alone,
    // which shows no password.
    let binding = auth::ChannelBinding::Tls { exporter: Some([0; 32]), end_point: None };
    Config {
        tls,
        mechanisms: auth::mechanisms(&binding).into_iter().map(str::to_owned).collect(),
        append_limit: u32::try_from(services.limits().message_bytes_max).unwrap_or(u32::MAX),
        id: vec![
            ("name".to_owned(), "Rookery".to_owned()),
            ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ],
        greeting: format!("{} Rookery ready", services.config.hostname),
        ..Config::default()
    }
}

fn tls_info(info: &crate::tls::TlsInfo) -> imap::TlsInfo {
    let channel_binding = if info.channel_binding().is_available() {
        imap::ChannelBinding::Available
    } else {
        imap::ChannelBinding::Unavailable
    };
    imap::TlsInfo { channel_binding }
}

fn now(services: &Services) -> Duration {
    services.env.monotonic().since_start()
}

/// What woke the connection.
enum Woken {
    Input(Bytes),
    Timer,
    Changed,
    Stop,
    /// This session alone.
    End,
}

impl Connection {
    async fn run(&mut self) -> Result<(), Disconnect> {
        loop {
            while let Some(call) = self.flush().await? {
                self.execute(call).await?;
                // A client that has sent many commands at once must not hold up a drain.
                if self.services.stopping.is_requested() {
                    self.session.handle_shutdown(STOPPING);
                } else if self.transport.session.is_asked_to_end() {
                    self.session.handle_shutdown(ENDED);
                }
            }
            match self.wait().await? {
                Woken::Input(bytes) if bytes.is_empty() => self.session.handle_eof(),
                Woken::Input(bytes) => {
                    self.session.handle_input(now(&self.services), &bytes);
                }
                Woken::Timer => self.session.handle_timeout(now(&self.services)),
                Woken::Changed => self.tell_idle().await,
                Woken::Stop => self.session.handle_shutdown(STOPPING),
                Woken::End => self.session.handle_shutdown(ENDED),
            }
        }
    }

    /// Writes what the session has to say, up to its next call.
    async fn flush(&mut self) -> Result<Option<Call>, Disconnect> {
        let mut pieces = Pieces::default();
        loop {
            let output = self.session.poll_output();
            if !matches!(output, Some(Output::Send(_))) {
                self.transport.write_pieces(&mut pieces).await?;
            }
            match output {
                Some(Output::Send(bytes)) => self.gather(&mut pieces, bytes).await?,
                Some(Output::Call(call)) => return Ok(Some(call)),
                Some(Output::WakeAt(at)) => self.wake_at = Some(at),
                Some(Output::StartTls) => {
                    self.transport.flush().await?;
                    if let Err(error) = self.transport.start_tls(&self.services.tls).await {
                        // STARTTLS is for connections that began in clear.
                        let metrics = &self.services.metrics;
                        metrics.connection_refused(Protocol::Imap, RefusedReason::Tls);
                        return Err(error.into());
                    }
                    let info = self.transport.tls.as_ref().map(tls_info);
                    if let Some(info) = info {
                        self.session.handle_tls_established(now(&self.services), info);
                    }
                }
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

    /// Gathers pieces for one write, as many as may wait.
    async fn gather(&mut self, pieces: &mut Pieces, bytes: Bytes) -> Result<(), Disconnect> {
        pieces.push(bytes);
        if pieces.len() >= limits::WRITE_BACKLOG_BYTES {
            self.transport.write_pieces(pieces).await?;
        }
        Ok(())
    }

    /// Gives the session a reply and writes what it makes of it once enough has gathered, so
    /// that a large FETCH holds little in memory and a slow client slows it down.
    async fn reply(&mut self, reply: Reply) -> Result<(), Disconnect> {
        // Behind these the session may go on to the client's next command, whose call belongs to
        // the main loop.
        let goes_on = matches!(reply, Reply::Done(_) | Reply::AppendReady | Reply::Challenge(_));
        self.session.handle_reply(reply);
        if !goes_on && self.session.output_len() >= limits::WRITE_BACKLOG_BYTES {
            self.write_pending().await?;
        }
        Ok(())
    }

    async fn write_pending(&mut self) -> Result<(), Disconnect> {
        let mut pieces = Pieces::default();
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Send(bytes) => self.gather(&mut pieces, bytes).await?,
                Output::WakeAt(at) => self.wake_at = Some(at),
                // Within a call the session only ends where it must.
                Output::Call(_) | Output::StartTls | Output::Close => {
                    self.transport.write_pieces(&mut pieces).await?;
                    return Err(Disconnect::Closed);
                }
            }
        }
        Ok(self.transport.write_pieces(&mut pieces).await?)
    }

    async fn wait(&mut self) -> Result<Woken, Disconnect> {
        let deadline = self.wake_at.map(env::Monotonic::from_start);
        let env = self.services.env.clone();
        let mut stopping = self.services.stopping.clone();
        let open = Arc::clone(&self.transport.session);
        let idle = self.session.is_idle();
        let wants_input = self.session.wants_input();
        let user = &mut self.user;
        let changed = async {
            match user {
                Some(user) if idle => {
                    // The poll is the net below wake-ups that may be lost.
                    let _either = env.timeout(limits::IDLE_POLL, user.wakeups.changed()).await;
                }
                _ => std::future::pending().await,
            }
        };
        // In order, and with no draw of Tokio's own, so that a simulation can replay it.
        tokio::select! {
            biased;
            () = stopping.requested() => Ok(Woken::Stop),
            () = open.asked_to_end() => Ok(Woken::End),
            () = env.sleep_until_any(deadline) => Ok(Woken::Timer),
            () = changed => Ok(Woken::Changed),
            input = self.transport.read(), if wants_input => Ok(Woken::Input(input?)),
        }
    }

    async fn execute(&mut self, call: Call) -> Result<(), Disconnect> {
        let begun = self.services.env.monotonic();
        let name = call_name(&call);
        let part = part_of(&call);
        match call {
            Call::Authenticate { mechanism, initial } => {
                self.authenticate(&mechanism, initial).await?;
            }
            Call::AuthResponse(response) => self.authenticate_step(Some(response)).await?,
            Call::AuthAbort => self.exchange = None,
            Call::Login { user, password } => self.login(&user, &password).await?,
            Call::Select(select) => self.select(select).await?,
            Call::Close(mode) => self.close(mode).await?,
            Call::Create(create) => self.create(&create).await?,
            Call::Delete(name) => self.delete(&name).await?,
            Call::Rename(rename) => self.rename(&rename).await?,
            Call::Subscribe(name) => self.subscribe(&name).await?,
            Call::Unsubscribe(name) => self.unsubscribe(&name).await?,
            Call::List(list) => self.list(&list).await?,
            Call::Lsub(lsub) => self.lsub(&lsub).await?,
            Call::Status(status) => self.status(&status).await?,
            Call::Namespace => self.namespace().await?,
            Call::AppendBegin(append) => self.append_begin(append).await?,
            Call::AppendData(bytes) => self.append_data(&bytes).await?,
            Call::AppendEnd => self.append_end().await?,
            Call::AppendAbort => self.upload = None,
            // What these hold while they run is not to be a part of every idle session.
            Call::Search(search) => Box::pin(self.search(&search)).await?,
            Call::Fetch(fetch) => Box::pin(self.fetch(&fetch)).await?,
            Call::Store(store) => Box::pin(self.store(&store)).await?,
            Call::Copy(copy) => self.copy(&copy, mail::CopyMode::Copy).await?,
            Call::Move(copy) => self.copy(&copy, mail::CopyMode::Move).await?,
            Call::Expunge(expunge) => self.expunge(&expunge).await?,
            Call::Noop | Call::IdleEnd => self.done_with_updates(imap::Completion::ok()).await?,
            Call::IdleBegin => self.begin_idle().await,
        }
        if part == Part::Last {
            self.services.metrics.imap_command(name, self.services.env.monotonic() - begun);
        }
        Ok(())
    }

    /// The account; the session lets no call that needs one come before login.
    fn account(&self) -> AccountId {
        self.user.as_ref().map_or(AccountId(0), |user| user.account)
    }
}

/// Whether a command comes to its end with a call, so that it is counted once.
#[derive(PartialEq, Eq)]
enum Part {
    Last,
    More,
}

fn part_of(call: &Call) -> Part {
    match call {
        Call::AppendBegin(_)
        | Call::AppendData(_)
        | Call::AppendAbort
        | Call::AuthResponse(_)
        | Call::AuthAbort
        | Call::IdleBegin => Part::More,
        _ => Part::Last,
    }
}

fn call_name(call: &Call) -> &'static str {
    match call {
        Call::Authenticate { .. } | Call::AuthResponse(_) | Call::AuthAbort => "AUTHENTICATE",
        Call::Login { .. } => "LOGIN",
        Call::Select(_) => "SELECT",
        Call::Close(_) => "CLOSE",
        Call::Create(_) => "CREATE",
        Call::Delete(_) => "DELETE",
        Call::Rename(_) => "RENAME",
        Call::Subscribe(_) => "SUBSCRIBE",
        Call::Unsubscribe(_) => "UNSUBSCRIBE",
        Call::List(_) => "LIST",
        Call::Lsub(_) => "LSUB",
        Call::Status(_) => "STATUS",
        Call::Namespace => "NAMESPACE",
        Call::AppendBegin(_) | Call::AppendData(_) | Call::AppendEnd | Call::AppendAbort => {
            "APPEND"
        }
        Call::Search(_) => "SEARCH",
        Call::Fetch(_) => "FETCH",
        Call::Store(_) => "STORE",
        Call::Copy(_) => "COPY",
        Call::Move(_) => "MOVE",
        Call::Expunge(_) => "EXPUNGE",
        Call::Noop => "NOOP",
        Call::IdleBegin | Call::IdleEnd => "IDLE",
    }
}
