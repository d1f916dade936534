//! Messages on the move: clients append to one mailbox, copy and move between it and another, and
//! expunge from both.

use std::{sync::Arc, time::Duration};

use env::BoxFuture;

use crate::{
    Share, Workload, World,
    clients::{
        offline::{Session, Stopped, Transfer},
        visitor::{Start, Visitor, all_of, mailbox_of, make_mailboxes},
    },
};

/// The workload's share.
pub(super) const SHARE: Share = Share {
    name: "moves",
    per_mille: 600,
    make: |random| Arc::new(Moves { clients: random.within(2..=4) }),
};

/// Messages of a mailbox above which clients tidy up.
const MESSAGES_MAX: usize = 25;

struct Moves {
    clients: u64,
}

impl Workload for Moves {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn setup<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(make_mailboxes(world, 0, &["left", "right"]))
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        let clients = (0..self.clients).map(|number| {
            let name = format!("moves-{number}");
            Box::pin(client(Visitor::new(world, &name, 0), name)) as BoxFuture<'static, ()>
        });
        let clients = clients.collect();
        Box::pin(all_of(world, clients))
    }
}

async fn client(mut visitor: Visitor, name: String) {
    let sides = ["left", "right"].map(|side| mailbox_of(&visitor.account, side));
    let mut sent = 0;
    while !visitor.world.is_over() {
        let side = usize::from(visitor.random.chance(400));
        let (from, to) = (&sides[side], &sides[1 - side]);
        match Box::pin(session(&mut visitor, from, to, &name, &mut sent)).await {
            Ok(session) => visitor.leave(session).await,
            Err(why) => visitor.stopped(&why),
        }
        visitor.rest(Duration::from_secs(1), Duration::from_secs(8)).await;
    }
    visitor.note_states();
}

async fn session(
    visitor: &mut Visitor,
    from: &str,
    to: &str,
    name: &str,
    sent: &mut u32,
) -> Result<Session, Stopped> {
    let mut session = visitor.enter(from, Start::Any).await?;
    for _ in 0..visitor.random.within(2..=5) {
        // As for flags: changes at one moment are what finds races.
        let now = visitor.world.now().since_start().as_secs();
        visitor.world.rest(Duration::from_secs(5 - now % 5)).await;
        let all: Vec<u32> = session.copy().messages.keys().copied().collect();
        let per_mille = 2500 / (all.len().max(1) as u64);
        let some: Vec<u32> =
            all.iter().copied().filter(|_| visitor.random.chance(per_mille)).collect();
        if !some.is_empty() {
            let copying = visitor.random.chance(500);
            let how = if copying { Transfer::Copy } else { Transfer::Move };
            session.transfer(how, &some, to).await?;
        }
        *sent += 1;
        session.append(from, &format!("{name}-{sent}")).await?;
        if all.len() > MESSAGES_MAX {
            session.expunge(&all[..all.len() / 2]).await?;
        }
        session.verify().await?;
    }
    Ok(session)
}
