//! Flag storms: several sessions on several nodes change the flags of one mailbox at once.
//!
//! Each client has a keyword that nobody else sets or removes: after every acknowledged STORE it has
//! to be where the client has put it, whatever others did to the same messages meanwhile.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use env::BoxFuture;

use crate::{
    Share, Workload, World,
    clients::{
        imap::Untagged,
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
            let own = Own { keyword: format!("own-{number}"), set: BTreeMap::new() };
            Box::pin(client(visitor, own)) as BoxFuture<'static, ()>
        });
        let clients = clients.collect();
        Box::pin(all_of(world, clients))
    }
}

/// A client's own keyword.
struct Own {
    keyword: String,
    /// Whether a message carries it, where that is known.
    set: BTreeMap<u32, bool>,
}

impl Own {
    /// Puts the keyword on a message, or takes it off.
    async fn turn(&mut self, uid: u32, session: &mut Session) -> Result<(), Stopped> {
        let wanted = !self.set.get(&uid).copied().unwrap_or(false);
        // Where the answer is lost nobody knows, and a node that cannot read what it has stored tells it with
        // a later command.
        self.set.remove(&uid);
        let how = if wanted { "+FLAGS" } else { "-FLAGS" };
        let answer = session.store(&[uid], how, &self.keyword).await?;
        let is_told = answer.untagged.iter().any(|told| {
            matches!(told, Untagged::Fetch(row) if row.uid == Some(uid) && row.flags.is_some())
        });
        if answer.is_ok() && is_told {
            self.set.insert(uid, wanted);
        }
        Ok(())
    }

    fn compare(&self, session: &mut Session) {
        for (uid, wanted) in &self.set {
            let held = session.copy().messages.get(uid);
            let is_set = held.map(|kept| kept.flags.contains(&self.keyword));
            if is_set.is_some_and(|is_set| is_set != *wanted) {
                let what = if *wanted {
                    "was put on and is not there"
                } else {
                    "was taken off and is there"
                };
                session.differ(format!("UID {uid}: {} {what}", self.keyword));
            }
        }
    }
}

async fn client(mut visitor: Visitor, mut own: Own) {
    let storm = mailbox_of(&visitor.account, "storm");
    while !visitor.world.is_over() {
        match Box::pin(session(&mut visitor, &storm, &mut own)).await {
            Ok(session) => visitor.leave(session).await,
            Err(why) => visitor.stopped(&why),
        }
        visitor.rest(Duration::from_secs(1), Duration::from_secs(5)).await;
    }
    visitor.note_states();
}

async fn session(visitor: &mut Visitor, mailbox: &str, own: &mut Own) -> Result<Session, Stopped> {
    let mut session = visitor.enter(mailbox, Start::Latest).await?;
    for _ in 0..visitor.random.within(1..=4) {
        // All clients wait for the same moment, as if somebody had called them.
        let now = visitor.world.now().since_start().as_secs();
        visitor.world.rest(Duration::from_secs(10 - now % 10)).await;
        for _ in 0..visitor.random.within(1..=3) {
            store(visitor, &mut session).await?;
            let uids: Vec<u32> = session.copy().messages.keys().copied().collect();
            if let Some(uid) = visitor.random.pick(&uids) {
                own.turn(*uid, &mut session).await?;
            }
        }
        own.compare(&mut session);
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
    // Not `FLAGS`, which would take the others' own keywords away.
    let hows = ["+FLAGS", "-FLAGS", "+FLAGS.SILENT", "-FLAGS.SILENT"];
    let how = visitor.random.pick(&hows).expect("there are some");
    let flag = visitor.random.pick(&NAMES).expect("there are some");
    session.store(&uids, how, flag).await?;
    Ok(())
}
