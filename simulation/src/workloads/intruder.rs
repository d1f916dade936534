//! Somebody with an account who wants to read the others' mail.

use std::{sync::Arc, time::Duration};

use env::BoxFuture;

use crate::{
    Account, PASSWORD, Share, What, Workload, World,
    clients::{
        imap::{Imap, Untagged, base64, quoted},
        offline::Stopped,
        visitor::{Visitor, mailbox_of, mailbox_prefix},
    },
};

/// The workload's share.
pub(super) const SHARE: Share =
    Share { name: "intruder", per_mille: 400, make: |_| Arc::new(Intruder) };

/// Wrong passwords that are tried: more, and the nodes refuse the whole network.
const GUESSES_MAX: u32 = 5;

struct Intruder;

impl Workload for Intruder {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        let account = world.accounts().len() - 1;
        Box::pin(intrude(Visitor::new(world, "intruder", account)))
    }
}

async fn intrude(mut visitor: Visitor) {
    let mut guesses = 0;
    while !visitor.world.is_over() {
        visitor.rest(Duration::from_secs(5), Duration::from_secs(40)).await;
        let victims = visitor.world.accounts();
        let at = usize::try_from(visitor.random.below(victims.len() as u64 - 1)).unwrap_or(0);
        let victim = victims[at].clone();
        let tried = match visitor.random.below(3) {
            0 if guesses < GUESSES_MAX => {
                guesses += 1;
                pretend(&mut visitor, &victim).await
            }
            1 => act_as(&mut visitor, &victim).await,
            _ => look_around(&mut visitor, &victim).await,
        };
        if let Err(why) = tried {
            visitor.stopped(&why);
        }
    }
}

fn caught(visitor: &Visitor, deed: String) {
    let account = visitor.account.id;
    visitor.world.facts().note(&visitor.host.name(), What::Trespassed { account, deed });
}

/// The victim's name and a password that is not the victim's.
async fn pretend(visitor: &mut Visitor, victim: &Account) -> Result<(), Stopped> {
    let (env, door) = (visitor.host.env(), visitor.door());
    let mut imap = Imap::connect(&visitor.world, &env, door).await?;
    let login = format!("LOGIN {} {}", quoted(&victim.address), quoted("a guess"));
    if imap.command(&login).await?.is_ok() {
        caught(visitor, format!("{login} is let in"));
    }
    Ok(())
}

/// The own name and password, to act as the victim (RFC 4616).
async fn act_as(visitor: &mut Visitor, victim: &Account) -> Result<(), Stopped> {
    let (env, door) = (visitor.host.env(), visitor.door());
    let mut imap = Imap::connect(&visitor.world, &env, door).await?;
    let own = &visitor.account.address;
    let proof = base64(format!("{}\0{own}\0{PASSWORD}", victim.address).as_bytes());
    let answer = imap.command(&format!("AUTHENTICATE PLAIN {proof}")).await?;
    if answer.is_ok() {
        let found = imap.command("EXAMINE INBOX").await?.untagged;
        let found = found.into_iter().find_map(|told| match told {
            Untagged::Exists(exists) => Some(exists),
            _ => None,
        });
        caught(visitor, format!("{own} acts as {}, and finds {found:?} messages", victim.address));
    } else {
        env::sometimes!("somebody is not let act as somebody else");
    }
    Ok(())
}

/// Names by which servers that share mailboxes know them.
async fn look_around(visitor: &mut Visitor, victim: &Account) -> Result<(), Stopped> {
    let mut session = visitor.log_in().await?;
    let name = victim.address.split('@').next().unwrap_or_default();
    let tries = [
        format!("user/{name}"),
        format!("~{name}/INBOX"),
        format!("Other Users/{}/INBOX", victim.address),
        format!("#user/{name}/INBOX"),
        format!("../{}/INBOX", victim.id.0),
        mailbox_of(victim, "left"),
        mailbox_of(victim, "storm"),
    ];
    for mailbox in tries {
        if session.command(&format!("SELECT {}", quoted(&mailbox))).await?.is_ok() {
            caught(visitor, format!("{mailbox} can be selected"));
        }
    }
    let own = mailbox_prefix(&visitor.account);
    let strangers: Vec<String> =
        visitor.world.accounts().iter().map(mailbox_prefix).filter(|it| *it != own).collect();
    for listed in session.list().await? {
        if strangers.iter().any(|prefix| listed.starts_with(prefix.as_str())) {
            caught(visitor, format!("{listed} is listed"));
        }
    }
    session.close().await;
    Ok(())
}
