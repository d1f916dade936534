//! Mailboxes at the edge of their quota: mail that reaches some and finds others full.
//!
//! Some recipients' mailboxes fill and stay full; what is sent to one and to a keeper over SMTP is
//! acknowledged, and its sender, another keeper, gets a report.

use std::{sync::Arc, time::Duration};

use env::BoxFuture;

use super::delivery::{KEEPERS, send_noting, text};
use crate::{
    DOMAIN, Door, NodeId, Random, Share, Workload, World,
    clients::smtp::{Client, Outgoing},
};

/// Bytes that fit: a few messages.
const QUOTA_BYTES: u64 = 6_000;

/// Mailboxes that fill.
const EDGES: u64 = 8;

/// Who sends at once, so that messages meet in one transaction.
const AT_ONCE: u8 = 5;

pub(super) const SHARE: Share = Share { name: "quota", per_mille: 500, make: |_| Arc::new(Quota) };

struct Quota;

/// One of the mailboxes that fill.
fn edge(number: u64) -> String {
    format!("{KEEPERS}edge-{number}")
}

/// Who gets a copy, and who gets the reports.
fn others() -> [String; 2] {
    [format!("{KEEPERS}roomy@{DOMAIN}"), format!("{KEEPERS}reporter@{DOMAIN}")]
}

impl Workload for Quota {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn setup<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            for number in 0..EDGES {
                world.add_account(&edge(number), QUOTA_BYTES).await;
            }
            world.add_account(&format!("{KEEPERS}roomy"), 0).await;
            world.add_account(&format!("{KEEPERS}reporter"), 0).await;
        })
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let mut random = world.random("quota");
            let mut round = 0;
            while !world.is_over() {
                let nodes = u64::from(world.setup().nodes);
                let node = NodeId(u8::try_from(random.within(1..=nodes)).unwrap_or(1));
                round += 1;
                let edge = format!("{}@{DOMAIN}", edge(random.below(EDGES)));
                let sending: Vec<_> = (0..AT_ONCE)
                    .map(|number| {
                        let name = format!("edge-sender-{number}");
                        let token = format!("q{round}n{number}");
                        let send = send(
                            world.clone(),
                            name.clone(),
                            token,
                            node,
                            edge.clone(),
                            random.split(),
                        );
                        world.client(&name).spawn("edge sender", send)
                    })
                    .collect();
                for one in sending {
                    // A panic is told by the world.
                    let _ended = one.await;
                }
                world.rest(Duration::from_secs(5) + random.up_to(Duration::from_secs(10))).await;
            }
        })
    }
}

async fn send(
    world: World,
    name: String,
    token: String,
    node: NodeId,
    edge: String,
    mut random: Random,
) {
    let [roomy, reporter] = others();
    let (door, to) = match random.below(3) {
        0 => (Door::Lmtp, vec![edge]),
        _ => (Door::Smtp, vec![edge, roomy]),
    };
    let env = world.client(&name);
    let open = Client::open(&world, &env, world.door(node, door), door, None).await;
    let Ok(mut client) = open else { return };
    let text = text(&mut random, &token, &to);
    let message = Outgoing { from: &reporter, to: &to, text: &text };
    send_noting(&world, &name, &mut client, &token, message).await;
    client.quit().await;
}
