//! People who read their mail: whole messages and stretches of them, over IMAP, from any node. What they
//! read has to be what was sent ([`letter`]), or they have to be told that it cannot be read.
//!
//! They read what nobody else touches: the keepers' mail of the workload `delivery`.

use std::{io, sync::Arc, time::Duration};

use blob::{BlobId, BlobName};
use env::BoxFuture;
use mail::{AccountId, StoreError, keys};
use prost::Message;

use super::delivery::keepers;
use crate::{
    Door, PASSWORD, Random, Share, What, Workload, World,
    clients::{
        imap::{Answer, Fetched, Imap, Untagged, quoted},
        letter,
    },
};

pub(super) const SHARE: Share =
    Share { name: "readers", per_mille: 500, make: |_| Arc::new(Readers) };

/// Readers.
const READERS: usize = 2;

struct Readers;

impl Workload for Readers {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let mut recipients = Vec::new();
            for recipient in keepers() {
                // There are none where nobody delivers.
                let shown = node::admin::accounts::show(&world.admin(), &recipient).await;
                recipients.extend(shown.ok().map(|it| (AccountId(it.info.id), recipient)));
            }
            if recipients.is_empty() {
                return;
            }
            let readers = (1..=READERS).map(|number| {
                let name = format!("reader-{number}");
                let random = world.random(&name);
                let recipients = recipients.clone();
                let reader = Reader { world: world.clone(), name, random, recipients };
                world.env().spawn("reader", reader.run())
            });
            for reader in readers.collect::<Vec<_>>() {
                // A panic is told by the world.
                let _ended = reader.await;
            }
        })
    }
}

struct Reader {
    world: World,
    name: String,
    random: Random,
    recipients: Vec<(AccountId, String)>,
}

impl Reader {
    async fn run(mut self) {
        while !self.world.is_over() {
            if let Err(why) = self.visit().await {
                let note = What::Note(format!("stops reading: {why}"));
                self.world.facts().note(&self.name, note);
            }
            let pause = self.random.up_to(Duration::from_secs(6));
            self.world.rest(pause).await;
        }
    }

    /// Reads a few messages of one mailbox, the last ones most.
    async fn visit(&mut self) -> io::Result<()> {
        let doors = self.world.doors(Door::Imaps);
        let door = *self.random.pick(&doors).expect("a world has nodes");
        let recipient = self.random.pick(&self.recipients).expect("there are some").clone();
        let mut imap = Imap::connect(&self.world, &self.world.client(&self.name), door).await?;
        let login = format!("LOGIN {} {}", quoted(&recipient.1), quoted(PASSWORD));
        if !imap.command(&login).await?.is_ok() {
            return Ok(());
        }
        let selected = imap.command("EXAMINE INBOX").await?;
        let exists = selected.untagged.iter().find_map(|told| match told {
            Untagged::Exists(exists) => Some(u64::from(*exists)),
            _ => None,
        });
        let exists = exists.unwrap_or(0);
        for _ in 0..self.random.within(1..=8) {
            if exists == 0 || self.world.is_over() {
                break;
            }
            let behind = if self.random.chance(500) { exists } else { exists.min(5) };
            let number = exists - self.random.below(behind);
            self.read(&mut imap, &recipient, number).await?;
        }
        imap.command("LOGOUT").await?;
        Ok(())
    }

    /// Reads one message, and a stretch of it.
    async fn read(
        &mut self,
        imap: &mut Imap,
        recipient: &(AccountId, String),
        number: u64,
    ) -> io::Result<()> {
        let Some((uid, whole)) = self.ask(imap, recipient, number, "").await? else {
            return Ok(());
        };
        if let Err(wrong) = letter::judge(&whole) {
            self.wrong(recipient, format!("UID {uid}: {wrong}"));
        }
        if self.random.chance(300) {
            let begin = self.random.below(whole.len() as u64);
            let length = self.random.within(1..=whole.len() as u64);
            let range = format!("<{begin}.{length}>");
            let Some((_, part)) = self.ask(imap, recipient, number, &range).await? else {
                return Ok(());
            };
            let from = usize::try_from(begin).unwrap_or(usize::MAX);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let expected: Vec<u8> = whole.into_iter().skip(from).take(length).collect();
            if part != expected {
                self.wrong(recipient, format!("UID {uid}: {range} is not what it was"));
            }
        }
        Ok(())
    }

    /// A message's UID and bytes, where they are told.
    async fn ask(
        &self,
        imap: &mut Imap,
        recipient: &(AccountId, String),
        number: u64,
        range: &str,
    ) -> io::Result<Option<(u32, Vec<u8>)>> {
        let asked = self.world.now();
        let answer = imap.command(&format!("FETCH {number} (UID BODY.PEEK[]{range})")).await?;
        let Some(Fetched { uid: Some(uid), body, .. }) = fetched(&answer, number) else {
            return Ok(None);
        };
        if answer.code("CORRUPTION").is_some() {
            env::sometimes!("a reader was told that a message is damaged");
            let blob = blob_in_inbox(&self.world, recipient.0, uid).await;
            let recipient = recipient.1.clone();
            let told = What::ToldDamaged { recipient, blob, asked };
            self.world.facts().note(&self.name, told);
        }
        Ok(body.filter(|_| answer.is_ok()).map(|body| (uid, body)))
    }

    fn wrong(&self, recipient: &(AccountId, String), what: String) {
        let recipient = recipient.1.clone();
        self.world.facts().note(&self.name, What::WrongBytes { recipient, what });
    }
}

fn fetched(answer: &Answer, number: u64) -> Option<Fetched> {
    answer.untagged.iter().find_map(|told| match told {
        Untagged::Fetch(fetched) if u64::from(fetched.number) == number => Some(fetched.clone()),
        _ => None,
    })
}

/// Where the bytes are of a message in an INBOX.
async fn blob_in_inbox(world: &World, account: AccountId, uid: u32) -> Option<BlobName> {
    let read = async |tx: kv::Transaction| {
        let Some(inbox) = mail::inbox(&tx, account).await? else { return Ok(None) };
        let (begin, end) = keys::email::state_range(account);
        let states = tx.range(kv::RangeQuery::new(begin, end).snapshot()).collect().await?;
        for row in states {
            let (_, state) = keys::email::decode_state(&row.value)?;
            let is_it =
                |place: &keys::email::Membership| place.mailbox == inbox.0 && place.uid == uid;
            if !state.memberships.iter().any(is_it) {
                continue;
            }
            let Some(email) = keys::email::email_of(&row.key) else { continue };
            let meta = tx.get(&keys::email::meta_key(account, email)).await?;
            let meta = meta.and_then(|meta| keys::email::EmailMeta::decode(&meta[..]).ok());
            return Ok::<_, StoreError>(meta.and_then(|meta| BlobId::from_slice(&meta.blob)));
        }
        Ok(None)
    };
    let found: Option<BlobId> = world.db().run(read).await.expect("nobody disturbs it");
    found.map(|blob| BlobName::of(&blob))
}
