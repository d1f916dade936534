//! Mail programs that come back after a while, to any node, from any earlier state, and make the
//! flags their own.

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
    name: "offline",
    per_mille: 700,
    make: |random| Arc::new(Offline { clients: random.within(2..=4) }),
};

/// Accounts whose mail is read, so that clients meet.
const ACCOUNTS: usize = 2;

struct Offline {
    clients: u64,
}

impl Workload for Offline {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn setup<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            for account in 0..ACCOUNTS {
                make_mailboxes(world, account, &["left"]).await;
            }
        })
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        let clients = (0..self.clients).map(|number| {
            let (name, account) = (format!("offline-{number}"), number as usize % ACCOUNTS);
            let visitor = Visitor::new(world, &name, account);
            Box::pin(client(visitor)) as BoxFuture<'static, ()>
        });
        let clients = clients.collect();
        Box::pin(all_of(world, clients))
    }
}

async fn client(mut visitor: Visitor) {
    let left = mailbox_of(&visitor.account, "left");
    while !visitor.world.is_over() {
        visitor.rest(Duration::from_secs(2), Duration::from_secs(25)).await;
        let mailbox = if visitor.random.chance(500) { "INBOX" } else { left.as_str() };
        match Box::pin(visit(&mut visitor, mailbox)).await {
            Ok(session) => visitor.leave(session).await,
            Err(why) => visitor.stopped(&why),
        }
    }
    visitor.note_states();
}

async fn visit(visitor: &mut Visitor, mailbox: &str) -> Result<Session, Stopped> {
    let mut session = visitor.enter(mailbox, Start::Any).await?;
    visitor.keep(session.copy());
    for _ in 0..visitor.random.within(1..=3) {
        change(visitor, &mut session).await?;
        visitor.rest(Duration::ZERO, Duration::from_secs(4)).await;
        session.verify().await?;
    }
    let known = session.copy().messages.values();
    let modseqs: Vec<u64> = known.map(|kept| kept.modseq).collect();
    if let Some(modseq) = visitor.random.pick(&modseqs).copied() {
        let since = if visitor.random.chance(500) { modseq } else { modseq.saturating_sub(1) };
        session.probe_changed_since(since).await?;
    }
    Ok(session)
}

async fn change(visitor: &mut Visitor, session: &mut Session) -> Result<(), Stopped> {
    let uids: Vec<u32> = session.copy().messages.keys().copied().collect();
    let Some(uid) = visitor.random.pick(&uids).copied() else {
        session.command("NOOP").await?;
        return Ok(());
    };
    match visitor.random.below(6) {
        0 => session.read(uid).await?,
        1 => drop(session.store(&[uid], "+FLAGS", "\\Seen").await?),
        2 => drop(session.store(&[uid], "-FLAGS.SILENT", "\\Seen").await?),
        3 => drop(session.store(&[uid], "FLAGS", "\\Answered Junk").await?),
        4 => {
            let modseq = session.copy().messages.get(&uid).map_or(0, |kept| kept.modseq);
            session.store_unchanged(uid, modseq.max(1), "$Forwarded").await?;
        }
        _ => drop(session.command("NOOP").await?),
    }
    Ok(())
}
