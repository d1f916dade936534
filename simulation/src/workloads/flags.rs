//! Flag storms: several sessions on several nodes change the flags of one mailbox at once.

use std::{sync::Arc, time::Duration};

use env::BoxFuture;

use crate::{
    Share, Workload, World,
    clients::{
        offline::{Session, Stopped},
        visitor::{Start, Visitor, all_of, mailbox_of, make_mailboxes},
    },
};

/// The workload's share.
pub(super) const SHARE: Share = Share {
    name: "flags",
    per_mille: 500,
    make: |random| Arc::new(Flags { clients: random.within(2..=4) }),
};

/// Messages that the storm is about.
const MESSAGES: u32 = 8;

const NAMES: [&str; 6] = ["\\Seen", "\\Flagged", "\\Answered", "\\Draft", "first", "second"];

struct Flags {
    clients: u64,
}

impl Workload for Flags {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn setup<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            make_mailboxes(world, 0, &["storm"]).await;
            let mut visitor = Visitor::new(world, "flags-setup", 0);
            let storm = mailbox_of(&visitor.account, "storm");
            let mut session = visitor.log_in().await.expect("nothing disturbs the world yet");
            for number in 0..MESSAGES {
                let appended = session.append(&storm, &format!("storm-{number}")).await;
                appended.expect("nothing disturbs the world yet");
            }
            session.close().await;
        })
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        let clients = (0..self.clients).map(|number| {
            let visitor = Visitor::new(world, &format!("flags-{number}"), 0);
            Box::pin(client(visitor)) as BoxFuture<'static, ()>
        });
        let clients = clients.collect();
        Box::pin(all_of(world, clients))
    }
}

async fn client(mut visitor: Visitor) {
    let storm = mailbox_of(&visitor.account, "storm");
    while !visitor.world.is_over() {
        match Box::pin(session(&mut visitor, &storm)).await {
            Ok(session) => visitor.leave(session).await,
            Err(why) => visitor.stopped(&why),
        }
        visitor.rest(Duration::from_secs(1), Duration::from_secs(5)).await;
    }
    visitor.note_states();
}

async fn session(visitor: &mut Visitor, mailbox: &str) -> Result<Session, Stopped> {
    let mut session = visitor.enter(mailbox, Start::Latest).await?;
    for _ in 0..visitor.random.within(1..=4) {
        // All clients wait for the same moment, as if somebody had called them.
        let now = visitor.world.now().since_start().as_secs();
        visitor.world.rest(Duration::from_secs(10 - now % 10)).await;
        for _ in 0..visitor.random.within(1..=3) {
            store(visitor, &mut session).await?;
        }
        session.verify().await?;
    }
    Ok(session)
}

async fn store(visitor: &mut Visitor, session: &mut Session) -> Result<(), Stopped> {
    let all: Vec<u32> = session.copy().messages.keys().copied().collect();
    let uids: Vec<u32> = all.into_iter().filter(|_| visitor.random.chance(400)).collect();
    if uids.is_empty() {
        return Ok(());
    }
    let hows = ["+FLAGS", "-FLAGS", "+FLAGS.SILENT", "-FLAGS.SILENT", "FLAGS"];
    let how = visitor.random.pick(&hows).expect("there are some");
    let flag = visitor.random.pick(&NAMES).expect("there are some");
    session.store(&uids, how, flag).await?;
    Ok(())
}
