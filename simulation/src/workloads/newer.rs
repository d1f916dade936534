//! A node of the next release among the others, as far as this release can play it: it writes
//! records with a field that this one does not know, sets a setting that this one does not have,
//! claims work of a kind that this one cannot do, and dies.

use std::{sync::Arc, time::Duration};

use cluster::{ClusterError, Epoch, Membership, NodeName, Registration, settings};
use env::BoxFuture;
use kv::{RangeQuery, Subspace, Transaction, tuple::pack};
use mail::{
    AccountId, AccountUnit, CopyError, CopyMode, EmailId, Keyword, KeywordChange, KeywordSet,
    MailboxId, OperationId, StoreError, StoreRequest, StoreTarget, Uid, keys,
};
use node::admin::cluster::{Wish, change_setting, wish};

use crate::{
    DOMAIN, Door, PASSWORD, Random, Share, What, Workload, World,
    clients::imap::{Imap, quoted},
};

/// A kind of work that this release does not know.
pub const FUTURE_KIND: u64 = 977;

/// The zone of it that the newer node claims.
pub const FUTURE_ZONE: &str = "tomorrow";

/// A setting that this release does not know, and its value.
pub const FUTURE_SETTING: (&str, &str) = ("tomorrow.setting", "7");

/// The name that the newer node registers under.
const NAME: &str = "newer-1";

/// Field 1000, a number: as protobuf writes it.
const FUTURE_FIELD: [u8; 3] = [0xc0, 0x3e, 0x07];

pub(super) const SHARE: Share = Share { name: "newer", per_mille: 400, make: |_| Arc::new(Newer) };

struct Newer;

/// The name of the account whose records the newer node rewrites.
const USER: &str = "newer-user";

/// The first email of an account.
const FIRST: EmailId = EmailId(1);

/// A record that the newer node has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// What it is, for people.
    pub what: &'static str,
    /// Whether the field that this release does not know is still in it.
    pub is_kept: bool,
}

impl Workload for Newer {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn setup<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            world.add_account(USER, 0).await;
            append(world).await;
            let (now, (name, value)) = (world.env().wall(), FUTURE_SETTING);
            let change = |tx: Transaction| async move {
                settings::change(&tx, name, Some(value), "a newer release", now).await
            };
            world.db().run(change).await.expect("nobody disturbs it");
        })
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let mut random = world.random("newer");
            world.rest(random.up_to(Duration::from_secs(20))).await;
            let host = world.client_host(NAME);
            let db = world.db().handle_with_faults(host.env(), world.setup().store.clone());
            let registration = Registration {
                name: NodeName::parse(NAME).expect("it is a name"),
                release: "99.0.0".to_owned(),
                address: String::new(),
                certificate: Vec::new(),
                admin_address: String::new(),
                time_to_live: cluster::limits::TIME_TO_LIVE,
            };
            let member = Membership::join(db, host.env(), registration);
            let member = member.await.expect("its store works");
            let epoch = member.fence().epoch();
            let claim = |tx: Transaction| async move { claim(&tx, epoch).await };
            world.db().run(claim).await.expect("nobody disturbs it");
            mark(world).await;
            world.rest(random.up_to(Duration::from_secs(20))).await;
            world.facts().note(NAME, What::Fault(format!("{NAME} dies")));
            host.crash();
            // What older nodes do to its records meanwhile.
            while !world.is_over() {
                rewrite(world, &mut random).await;
                world.rest(Duration::from_secs(20) + random.up_to(Duration::from_secs(60))).await;
            }
        })
    }
}

/// Claims a zone of a kind that this release cannot name, with one item.
async fn claim(tx: &Transaction, by: Epoch) -> Result<(), ClusterError> {
    let (work, node) = (Subspace::Work as u64, Subspace::Node as u64);
    let due_ms = 1_i64;
    tx.set(&pack(&(work, FUTURE_KIND, "i", FUTURE_ZONE, due_ms, &b"item"[..])), b"payload");
    let claimed = [due_ms.to_le_bytes(), by.0.to_le_bytes()].concat();
    tx.set(&cluster::work::zone_key(FUTURE_KIND, FUTURE_ZONE), &claimed);
    tx.set(&pack(&(node, "c", by.0, FUTURE_KIND, FUTURE_ZONE)), &[]);
    Ok(())
}

/// Puts a message into the user's INBOX.
async fn append(world: &World) {
    let (env, door) = (world.client("newer-client"), world.doors(Door::Imaps)[0]);
    let imap = Imap::connect(world, &env, door).await;
    let mut imap = imap.expect("nothing disturbs the world yet");
    let login = format!("LOGIN {} {}", quoted(&address()), quoted(PASSWORD));
    let message = format!("To: <{}>\r\nSubject: newer\r\n\r\nfrom tomorrow\r\n", address());
    for answer in [imap.command(&login).await, imap.append("INBOX", message.as_bytes()).await] {
        let answer = answer.expect("nothing disturbs the world yet");
        assert!(answer.is_ok(), "{}", answer.text);
    }
}

/// Adds a field to records, as a node of the next release would write them.
async fn mark(world: &World) {
    for (_, key) in records(world).await {
        let key = &key;
        let mark = |tx: Transaction| async move {
            if let Some(value) = tx.get(key).await? {
                tx.set(key, &[&value[..], &FUTURE_FIELD].concat());
            }
            Ok::<_, kv::Error>(())
        };
        world.db().run(mark).await.expect("nobody disturbs it");
    }
}

/// The records that are marked. Of emails, the first one's state and every meta: others are copies.
async fn records(world: &World) -> Vec<(&'static str, Vec<u8>)> {
    let account = user(world).await;
    let find = |tx: Transaction| async move {
        let (begin, end) = keys::email::meta_range(account);
        let metas = tx.range(RangeQuery::new(begin, end)).collect().await?;
        Ok::<_, StoreError>((mail::inbox(&tx, account).await?, metas))
    };
    let (inbox, metas) = world.db().run(find).await.expect("nobody disturbs it");
    let inbox = inbox.expect("every account has an INBOX");
    let mut records = vec![
        ("an account's record", keys::account::key(account)),
        ("a mailbox's record", keys::mailbox::key(account, inbox)),
        ("a node's name", pack(&(Subspace::Node as u64, "n", NAME))),
        ("the settings", pack(&(Subspace::Setting as u64, "current"))),
        ("the schema", pack(&(Subspace::Meta as u64, "schema"))),
        ("an email's state", keys::email::state_key(account, FIRST)),
    ];
    records.extend(metas.into_iter().map(|row| ("an email's meta", row.key.to_vec())));
    records
}

fn address() -> String {
    format!("{USER}@{DOMAIN}")
}

async fn user(world: &World) -> AccountId {
    let shown = node::admin::accounts::show(&world.admin(), &address()).await;
    AccountId(shown.expect("the setup has made it").info.id)
}

/// What this release does with such records in a day's work.
async fn rewrite(world: &World, random: &mut Random) {
    let (admin, address) = (world.admin(), address());
    let quota = std::num::NonZeroU64::new(1_000_000);
    let set = node::admin::accounts::set_quota(&admin, &address, quota).await;
    set.expect("nobody disturbs it");
    let (account, now) = (user(world).await, world.env().wall());
    for subscription in [mail::Subscription::Unsubscribed, mail::Subscription::Subscribed] {
        let subscribe = |tx: Transaction| async move {
            let inbox = mail::inbox(&tx, account).await?;
            let inbox = inbox.expect("every account has an INBOX");
            let mut unit = AccountUnit::new(&tx, account, now);
            mail::set_subscription(&mut unit, inbox, subscription).await?;
            unit.finish().await.map(|_| ())
        };
        world.db().run(subscribe).await.expect("nobody disturbs it");
    }
    rewrite_emails(world, account).await;
    let value = if random.chance(500) { Some("4000") } else { None };
    let changed = change_setting(&admin, "limits.connections_max", value, "an older release");
    changed.await.expect("the value is allowed, and nobody disturbs it");
    let wished = wish(&admin, NAME, Wish::Serve).await;
    wished.expect("it has registered, and nobody forgets it");
}

/// Changes the first email's flags, and copies it to where it is already, which makes another.
async fn rewrite_emails(world: &World, account: AccountId) {
    let (env, now) = (world.env(), world.env().wall());
    for change in [KeywordChange::Add, KeywordChange::Remove] {
        let operation = OperationId::random(&env);
        let store = |tx: Transaction| async move {
            let (inbox, target) = first(&tx, account).await?;
            let mut unit = AccountUnit::new(&tx, account, now);
            let keywords: KeywordSet = Keyword::new("older").into_iter().collect();
            let request = StoreRequest {
                mailbox: inbox,
                change,
                keywords,
                deleted: None,
                unchanged_since: None,
            };
            mail::store_keywords(&mut unit, &request, &[target], operation).await?;
            unit.finish().await
        };
        world.db().run(store).await.expect("nobody disturbs it");
    }
    let operation = OperationId::random(&env);
    let copy = |tx: Transaction| async move {
        let (inbox, target) = first(&tx, account).await?;
        let mut unit = AccountUnit::new(&tx, account, now);
        mail::copy(&mut unit, CopyMode::Copy, inbox, inbox, &[target], operation).await?;
        Ok::<_, CopyError>(unit.finish().await?)
    };
    world.db().run(copy).await.expect("nobody disturbs it, and there is room");
}

/// The first email, and where it is.
async fn first(
    tx: &Transaction,
    account: AccountId,
) -> Result<(MailboxId, StoreTarget), StoreError> {
    let inbox = mail::inbox(tx, account).await?.expect("every account has an INBOX");
    let state = tx.get(&keys::email::state_key(account, FIRST)).await?;
    let (_, state) = keys::email::decode_state(&state.expect("the setup has put it there"))?;
    let place = state.memberships.first().expect("nobody removes it");
    let uid = Uid::new(place.uid).expect("UIDs begin with 1");
    Ok((inbox, StoreTarget { uid, email: FIRST }))
}

/// What is left of the marks; nothing where this workload took no part.
pub async fn marked(world: &World) -> Vec<Marked> {
    let mut marked = Vec::new();
    for (what, key) in records(world).await {
        let key = &key;
        let read = |tx: Transaction| async move { tx.get(key).await };
        let value = world.db().run(read).await.expect("nobody disturbs it").unwrap_or_default();
        let is_kept = value.windows(FUTURE_FIELD.len()).any(|window| window == FUTURE_FIELD);
        marked.push(Marked { what, is_kept });
    }
    marked
}
