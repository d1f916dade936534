//! Hostile peers: too many connections, lines without an end, commands without a look at the
//! replies. They note how far a node let them go.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use env::{BoxFuture, Env};
use node::admin::cluster::change_setting;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    Door, NodeId, Share, What, Workload, World,
    limits::{STREAM_BYTES_MAX, STREAM_SEGMENTS_MAX},
};

/// Connections that the world's nodes let an address have.
const CONNECTIONS_MAX: u64 = 12;

/// Connections that are tried.
const CONNECTIONS_TRIED: u64 = 20;

/// How long a node may take nothing before it counts as having stopped to listen.
const SILENCE: Duration = Duration::from_secs(3);

/// Bytes that a node may take of a peer that reads nothing: what the network holds in both
/// directions, and generously what the session does ([`node::limits::WRITE_BACKLOG_BYTES`] of
/// replies are commands of about half as many bytes).
const UNREAD_BYTES_MAX: u64 =
    (4 * STREAM_BYTES_MAX + STREAM_SEGMENTS_MAX + 2 * node::limits::WRITE_BACKLOG_BYTES) as u64;

pub(super) const SHARE: Share =
    Share { name: "hostile", per_mille: 300, make: |_| Arc::new(Hostile) };

struct Hostile;

impl Workload for Hostile {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn setup<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let (name, value) = ("limits.connections_per_address_max", CONNECTIONS_MAX.to_string());
            change_setting(&world.admin(), name, Some(&value), "the setup")
                .await
                .expect("the value is allowed, and nobody disturbs it");
            // Two heartbeats: every node has heard.
            world.env().sleep(Duration::from_secs(3)).await;
        })
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let mut random = world.random("hostile");
            while !world.is_over() {
                let nodes = u64::from(world.setup().nodes);
                let node = NodeId(u8::try_from(random.within(1..=nodes)).unwrap_or(1));
                let kind = random.below(4);
                let attack = attack(world.clone(), node, kind);
                // A panic is told by the world.
                let _ended = world.client("hostile").spawn("hostile", attack).await;
                world.rest(Duration::from_secs(20) + random.up_to(Duration::from_secs(60))).await;
            }
        })
    }
}

async fn attack(world: World, node: NodeId, kind: u64) {
    let env = world.client("hostile");
    let (smtp, imap) = (world.door(node, Door::Smtp), world.door(node, Door::Imap));
    let (what, reached, most) = match kind {
        0 => ("connections of one address", connections(&env, smtp).await, CONNECTIONS_MAX),
        1 => (
            "bytes of commands whose replies nobody reads (SMTP)",
            flood(&env, smtp, b"NOOP\r\n").await,
            UNREAD_BYTES_MAX,
        ),
        2 => (
            "bytes of commands whose replies nobody reads (IMAP)",
            flood(&env, imap, b"a NOOP\r\n").await,
            UNREAD_BYTES_MAX,
        ),
        _ => ("endless lines", endless(&env, [smtp, imap]).await, 0),
    };
    world.facts().note("hostile", What::Bound { what, reached, most });
}

/// How many connections are served at the same time.
async fn connections(env: &Env, to: SocketAddr) -> u64 {
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_TRIED {
        let Ok(Ok(mut stream)) = env.timeout(SILENCE, env.connect(to)).await else { continue };
        let mut code = [0; 3];
        let greeted = env.timeout(SILENCE, stream.read_exact(&mut code)).await;
        if matches!(greeted, Ok(Ok(_))) && &code == b"220" {
            held.push(stream);
        }
    }
    // The node may have died meanwhile, and others with it.
    let mut served = 0;
    for stream in &mut held {
        let ask = async {
            stream.write_all(b"NOOP\r\n").await?;
            let mut line = [0; 128];
            stream.read(&mut line).await
        };
        served += u64::from(matches!(env.timeout(SILENCE, ask).await, Ok(Ok(read)) if read > 0));
    }
    served
}

/// How many bytes of commands are taken while nothing is read; none where the node has hung up.
async fn flood(env: &Env, to: SocketAddr, command: &[u8]) -> u64 {
    let Ok(Ok(mut stream)) = env.timeout(SILENCE, env.connect(to)).await else { return 0 };
    let piece = command.repeat(16 * 1024 / command.len());
    let mut taken = 0;
    while taken < 2 * UNREAD_BYTES_MAX {
        match env.timeout(SILENCE, stream.write_all(&piece)).await {
            Ok(Ok(())) => taken += piece.len() as u64,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    let mut replies = vec![0; 64 * 1024];
    // A node that reads on answers on.
    for _ in 0..64 {
        match env.timeout(SILENCE, stream.read(&mut replies)).await {
            Ok(Ok(0) | Err(_)) => {
                env::sometimes!("a hostile client was hung up on");
                return 0;
            }
            Ok(Ok(_)) => {}
            Err(_) => break,
        }
    }
    taken
}

/// Lines of 200 KiB without an end, to each of these doors. Nothing is to be seen but that the node
/// goes on.
async fn endless(env: &Env, doors: [SocketAddr; 2]) -> u64 {
    for to in doors {
        let Ok(Ok(mut stream)) = env.timeout(SILENCE, env.connect(to)).await else { continue };
        for _ in 0..25 {
            let taken = env.timeout(SILENCE, stream.write_all(&[b'x'; 8 * 1024])).await;
            if !matches!(taken, Ok(Ok(()))) {
                break;
            }
        }
        let mut answer = [0; 512];
        let _ended = env.timeout(SILENCE, stream.read(&mut answer)).await;
    }
    0
}
