//! Mailboxes that come, get other names and go while mail is put into them.

use std::{sync::Arc, time::Duration};

use env::BoxFuture;

use crate::{
    Share, Workload, World,
    clients::{
        offline::{Session, Stopped},
        visitor::{Start, Visitor, all_of, mailbox_of},
    },
};

/// The workload's share.
pub(super) const SHARE: Share = Share {
    name: "mailboxes",
    per_mille: 500,
    make: |random| Arc::new(Mailboxes { clients: random.within(2..=3) }),
};

/// The account whose mailboxes these are.
const ACCOUNT: usize = 2;

const NAMES: [&str; 3] = ["come", "go", "stay"];

struct Mailboxes {
    clients: u64,
}

impl Workload for Mailboxes {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        let clients = (0..self.clients).map(|number| {
            let name = format!("mailboxes-{number}");
            Box::pin(client(Visitor::new(world, &name, ACCOUNT), name)) as BoxFuture<'static, ()>
        });
        let clients = clients.collect();
        Box::pin(all_of(world, clients))
    }
}

async fn client(mut visitor: Visitor, name: String) {
    let mut sent = 0;
    while !visitor.world.is_over() {
        if let Err(why) = Box::pin(visit(&mut visitor, &name, &mut sent)).await {
            visitor.stopped(&why);
        }
        visitor.rest(Duration::from_secs(1), Duration::from_secs(10)).await;
    }
    visitor.note_states();
}

fn any_name(visitor: &mut Visitor) -> String {
    let name = visitor.random.pick(&NAMES).expect("there are some");
    mailbox_of(&visitor.account, name)
}

async fn visit(visitor: &mut Visitor, name: &str, sent: &mut u32) -> Result<(), Stopped> {
    let mailbox = any_name(visitor);
    let mut session = match visitor.enter(&mailbox, Start::Any).await {
        Ok(session) => session,
        Err(Stopped::Refused(_)) => {
            env::sometimes!("a client finds its mailbox gone");
            let mut session = visitor.log_in().await?;
            session.command(&format!("CREATE \"{mailbox}\"")).await?;
            session.close().await;
            return Ok(());
        }
        Err(why) => return Err(why),
    };
    for _ in 0..visitor.random.within(1..=3) {
        *sent += 1;
        // Somebody may have taken the mailbox away.
        match session.append(&mailbox, &format!("{name}-{sent}")).await {
            Ok(()) | Err(Stopped::Refused(_)) => {}
            Err(why) => return Err(why),
        }
        visitor.rest(Duration::ZERO, Duration::from_secs(2)).await;
        session.verify().await?;
    }
    visitor.keep(session.copy());
    rearrange(visitor, &mut session, &mailbox).await?;
    session.close().await;
    Ok(())
}

async fn rearrange(
    visitor: &mut Visitor,
    session: &mut Session,
    mailbox: &str,
) -> Result<(), Stopped> {
    let other = any_name(visitor);
    match visitor.random.below(4) {
        0 => drop(session.command(&format!("DELETE \"{mailbox}\"")).await?),
        1 => drop(session.command(&format!("RENAME \"{mailbox}\" \"{other}\"")).await?),
        2 => drop(session.command(&format!("CREATE \"{other}\"")).await?),
        _ => drop(session.list().await?),
    }
    Ok(())
}
