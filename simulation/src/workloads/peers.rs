//! Other mail servers: they take messages, put them off, refuse them, answer late, end
//! connections before and after they have taken what was sent, and have nothing to do with anybody for a
//! while.
//!
//! Deliberately absent: TLS, and names that cannot be resolved.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use env::{BoxFuture, Env, Listener, Stream};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::{Random, Share, What, Workload, World, fact::RemoteDid, world::setup::PEERS};

/// Where servers listen for each other (RFC 5321 §4.5.4.2).
const PORT: u16 = 25;

/// Nobody is called so.
const NOBODY: &str = "somebody-7@";

/// Longer than a client lets a connection wait.
const IDLE_MAX: Duration = Duration::from_mins(10);

/// Bytes of a line, or of a message, that are read at most.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Bytes of a report that are kept.
const REPORT_BYTES_MAX: usize = 64 * 1024;

pub(super) const SHARE: Share = Share {
    name: "peers",
    per_mille: 700,
    make: |random| {
        Arc::new(Peers { trouble_per_mille: random.within(0..=500), is_away: Arc::default() })
    },
};

/// How long they are away at most.
const AWAY_MAX: Duration = Duration::from_secs(40);

struct Peers {
    /// How often one does something else than take a message.
    trouble_per_mille: u64,
    /// Whether they end every connection at once.
    is_away: Arc<AtomicBool>,
}

impl Workload for Peers {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn setup<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            for (name, address) in PEERS {
                let env = world.peer_host(name, address).env();
                let at = SocketAddr::new(address.into(), PORT);
                let listener = env.listen(at).await.expect("nobody else is there");
                let peer = Peer {
                    world: world.clone(),
                    env: env.clone(),
                    name,
                    trouble_per_mille: self.trouble_per_mille,
                    is_away: Arc::clone(&self.is_away),
                };
                env.spawn("peer", peer.run(listener)).detach();
            }
        })
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let mut random = world.random("peers");
            if self.trouble_per_mille > 100 && random.chance(600) {
                world.rest(random.up_to(Duration::from_mins(2))).await;
                self.is_away.store(true, Relaxed);
                world.rest(AWAY_MAX).await;
                self.is_away.store(false, Relaxed);
            }
            world.until_deadline().await;
        })
    }
}

#[derive(Clone)]
struct Peer {
    world: World,
    env: Env,
    name: &'static str,
    trouble_per_mille: u64,
    is_away: Arc<AtomicBool>,
}

impl Peer {
    async fn run(self, listener: Listener) {
        let mut count = 0_u64;
        while let Ok(connection) = listener.accept().await {
            if self.is_away.load(Relaxed) {
                continue;
            }
            count += 1;
            let name = format!("peers/{}/{count}", self.name);
            let session = Session {
                random: self.world.random(&name),
                // Nodes have the first block's addresses, by their numbers.
                from: match connection.peer.ip() {
                    std::net::IpAddr::V4(address) => format!("node-{}", address.octets()[3]),
                    std::net::IpAddr::V6(_) => "nobody".to_owned(),
                },
                stream: BufReader::new(connection.stream),
                peer: self.clone(),
                unheard: Vec::new(),
            };
            self.env.spawn("peer session", session.run()).detach();
        }
    }
}

/// What a peer does with one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conduct {
    Take,
    TakeLate,
    /// Takes it and ends the connection instead of saying so.
    TakeSilently,
    /// Ends the connection, and has nothing.
    Drop,
    DeferRecipients,
    DeferMessage,
}

impl Conduct {
    fn draw(random: &mut Random, trouble_per_mille: u64) -> Self {
        if !random.chance(trouble_per_mille) {
            return Self::Take;
        }
        match random.below(5) {
            0 => Self::TakeLate,
            1 => Self::TakeSilently,
            2 => Self::Drop,
            3 => Self::DeferRecipients,
            _ => Self::DeferMessage,
        }
    }
}

/// The connection is over.
struct Over;

impl From<std::io::Error> for Over {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

struct Session {
    peer: Peer,
    random: Random,
    from: String,
    stream: BufReader<Stream>,
    /// Copies of which it said that it has them, and has heard nothing since.
    unheard: Vec<(String, String)>,
}

impl Session {
    async fn run(mut self) {
        let _over = self.talk().await;
    }

    async fn talk(&mut self) -> Result<(), Over> {
        self.reply("220 peer.remote.test ESMTP").await?;
        loop {
            let line = self.line().await?;
            for (token, recipient) in std::mem::take(&mut self.unheard) {
                self.note(token, recipient, RemoteDid::Heard);
            }
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" => {
                    self.reply("250-peer.remote.test\r\n250-PIPELINING\r\n250 8BITMIME").await?;
                }
                "MAIL" => self.transaction(&line).await?,
                "RSET" | "NOOP" => self.reply("250 2.0.0 as you like").await?,
                "QUIT" => return self.reply("221 2.0.0 goodbye").await,
                _ => self.reply("503 5.5.1 not now").await?,
            }
        }
    }

    /// From MAIL to the reply to the message's end.
    async fn transaction(&mut self, mail: &str) -> Result<(), Over> {
        let is_report = mail.to_ascii_uppercase().contains("FROM:<>");
        let conduct = Conduct::draw(&mut self.random, self.peer.trouble_per_mille);
        self.reply("250 2.1.0 from whom").await?;
        let mut recipients = Vec::new();
        loop {
            let line = self.line().await?;
            let upper = line.to_ascii_uppercase();
            if upper.starts_with("RCPT") {
                let recipient = between(&line).to_owned();
                if conduct == Conduct::DeferRecipients {
                    self.reply("450 4.2.1 not today").await?;
                } else if recipient.starts_with(NOBODY) && !is_report {
                    self.reply("550 5.1.1 nobody is called so").await?;
                } else {
                    self.reply("250 2.1.5 to whom").await?;
                    recipients.push(recipient);
                }
            } else if upper.starts_with("DATA") && !recipients.is_empty() {
                self.reply("354 go on").await?;
                let text = self.content().await?;
                return self.conclude(conduct, is_report, recipients, text).await;
            } else if upper.starts_with("DATA") {
                self.reply("554 5.5.1 nobody takes it").await?;
            } else {
                return self.reply("250 2.0.0 as you like").await;
            }
        }
    }

    async fn conclude(
        &mut self,
        conduct: Conduct,
        is_report: bool,
        recipients: Vec<String>,
        text: String,
    ) -> Result<(), Over> {
        let token = subject(&text).to_owned();
        let copies: Vec<_> = recipients.into_iter().map(|it| (token.clone(), it)).collect();
        let note_all = |session: &Self, did| {
            for (token, recipient) in &copies {
                session.note(token.clone(), recipient.clone(), did);
            }
        };
        note_all(self, RemoteDid::Received);
        match conduct {
            Conduct::Drop => return Err(Over),
            Conduct::DeferRecipients | Conduct::DeferMessage => {
                env::sometimes!("another server put a message off");
                note_all(self, RemoteDid::Deferred);
                return self.reply("451 4.3.0 later").await;
            }
            Conduct::TakeLate => {
                let seconds = self.random.within(1..=120);
                self.peer.env.sleep(Duration::from_secs(seconds)).await;
            }
            Conduct::Take | Conduct::TakeSilently => {}
        }
        if is_report {
            let text = text.chars().take(REPORT_BYTES_MAX).collect();
            self.peer.world.facts().note(self.peer.name, What::Returned { text });
        }
        if conduct == Conduct::TakeSilently {
            note_all(self, RemoteDid::AcceptedSilently);
            return Err(Over);
        }
        note_all(self, RemoteDid::Accepted);
        self.unheard = copies;
        self.reply("250 2.0.0 taken").await
    }

    fn note(&self, token: String, recipient: String, did: RemoteDid) {
        let from = self.from.clone();
        let facts = self.peer.world.facts();
        facts.note(self.peer.name, What::Remote { token, recipient, from, did });
    }

    async fn line(&mut self) -> Result<String, Over> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(BYTES_MAX);
        let read = bounded.read_until(b'\n', &mut line);
        match self.peer.env.timeout(IDLE_MAX, read).await {
            Ok(Ok(count)) if count > 0 && line.ends_with(b"\n") => {
                Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
            }
            _ => Err(Over),
        }
    }

    /// The content without its end, with its dots as they are on the wire.
    async fn content(&mut self) -> Result<String, Over> {
        let mut content = String::new();
        loop {
            let line = self.line().await?;
            if line == "." {
                return Ok(content);
            }
            content.push_str(&line);
            content.push_str("\r\n");
            if content.len() as u64 > BYTES_MAX {
                return Err(Over);
            }
        }
    }

    async fn reply(&mut self, text: &str) -> Result<(), Over> {
        let stream = self.stream.get_mut();
        stream.write_all(format!("{text}\r\n").as_bytes()).await?;
        Ok(stream.flush().await?)
    }
}

fn between(line: &str) -> &str {
    let after = line.split_once('<').map_or("", |(_, after)| after);
    after.split_once('>').map_or("", |(path, _)| path)
}

fn subject(text: &str) -> &str {
    let line = text.lines().find_map(|line| line.strip_prefix("Subject: "));
    line.unwrap_or_default().trim_end()
}
