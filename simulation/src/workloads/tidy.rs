//! Users who tidy up: they expunge their INBOX while more mail comes in, over IMAP.
//!
//! Each message goes to two of them, so its bytes are needed until both have expunged it, and looked
//! at a day after each has.

use std::{sync::Arc, time::Duration};

use env::{BoxFuture, Env, Stream};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::delivery::{send_noting, text};
use crate::{
    DOMAIN, Door, NodeId, PASSWORD, Random, Share, Workload, World,
    clients::smtp::{Client, Outgoing, PATIENCE},
};

pub(super) const SHARE: Share = Share { name: "tidy", per_mille: 600, make: |_| Arc::new(Tidy) };

/// The users.
const USERS: [&str; 2] = ["tidy-1", "tidy-2"];

struct Tidy;

impl Workload for Tidy {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn setup<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            for user in USERS {
                world.add_account(user, 0).await;
            }
        })
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let mut tasks = vec![world.client("tidy-sender").spawn("sender", send(world.clone()))];
            for user in USERS {
                tasks.push(world.client(user).spawn("tidy", tidy(world.clone(), user)));
            }
            for task in tasks {
                // A panic is told by the world.
                let _ended = task.await;
            }
        })
    }
}

fn any_node(world: &World, random: &mut Random) -> NodeId {
    NodeId(u8::try_from(random.within(1..=u64::from(world.setup().nodes))).unwrap_or(1))
}

/// Sends to all of them, a few messages in each session.
async fn send(world: World) {
    let (env, mut random) = (world.client("tidy-sender"), world.random("tidy/sender"));
    let to = USERS.map(|user| format!("{user}@{DOMAIN}"));
    let mut sent = 0;
    while !world.is_over() {
        let door = world.door(any_node(&world, &mut random), Door::Lmtp);
        if let Ok(mut client) = Client::open(&world, &env, door, Door::Lmtp, None).await {
            for _ in 0..random.within(1..=6) {
                sent += 1;
                let token = format!("t{sent}");
                let text = text(&mut random, &token, &to);
                let message = Outgoing { from: "sender@remote.test", to: &to, text: &text };
                send_noting(&world, "tidy-sender", &mut client, &token, message).await;
            }
            client.quit().await;
        }
        world.rest(random.up_to(Duration::from_secs(12))).await;
    }
}

/// Expunges what there is, again and again.
async fn tidy(world: World, user: &'static str) {
    let (env, mut random) = (world.client(user), world.random(user));
    while !world.is_over() {
        let node = any_node(&world, &mut random);
        if let Some(mut session) = Session::open(&world, &env, node).await {
            let login = format!("LOGIN {user}@{DOMAIN} \"{PASSWORD}\"");
            if session.ask(&login).await.is_some() && session.ask("SELECT INBOX").await.is_some() {
                for _ in 0..random.within(1..=4) {
                    // What is there is not known, and need not be.
                    let _empty = session.ask("STORE 1:* +FLAGS.SILENT (\\Deleted)").await;
                    let _ended = session.ask("EXPUNGE").await;
                    world.rest(random.up_to(Duration::from_secs(4))).await;
                }
            }
            let _ended = session.ask("LOGOUT").await;
        }
        world.rest(random.up_to(Duration::from_secs(6))).await;
    }
}

/// The least that can speak IMAP: it sends a command and reads up to its end.
struct Session {
    env: Env,
    stream: BufReader<Stream>,
    tag: u32,
}

impl Session {
    async fn open(world: &World, env: &Env, node: NodeId) -> Option<Self> {
        let connect = world.connect_tls(env, world.door(node, Door::Imaps));
        let stream = env.timeout(PATIENCE, connect).await.ok()?.ok()?;
        let mut session = Self { env: env.clone(), stream: BufReader::new(stream), tag: 0 };
        session.line().await.filter(|line| line.starts_with("* OK")).map(|_| session)
    }

    /// The command's end, where it went well. No command here has an answer with literals.
    async fn ask(&mut self, command: &str) -> Option<String> {
        self.tag += 1;
        let tag = format!("t{} ", self.tag);
        let line = format!("{tag}{command}\r\n");
        let write = async {
            self.stream.write_all(line.as_bytes()).await?;
            self.stream.flush().await
        };
        self.env.timeout(PATIENCE, write).await.ok()?.ok()?;
        loop {
            let line = self.line().await?;
            if let Some(end) = line.strip_prefix(&tag) {
                return end.starts_with("OK").then(|| end.to_owned());
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line);
        let read = self.env.timeout(PATIENCE, read).await.ok()?.ok()?;
        (read > 0).then_some(line)
    }
}
