//! Who signs, with what; over a store in memory.

use kv::Transaction;
use mail::NewAccount;

use super::*;
use crate::auth::new_credential;

struct World {
    signing: Signing,
    settings: watch::Sender<Arc<Settings>>,
    db: Database,
    env: Env,
    alice: AccountId,
}

impl World {
    /// `example.org` with alice and a key in use, and `second.example` with alice's alias and none.
    async fn new() -> Self {
        let env = Env::system();
        let db = Database::memory(env.clone());
        let settings = watch::Sender::new(Arc::new(Settings::default()));
        let signing = Signing::new(&env, db.clone(), settings.subscribe());
        let credential = new_credential(&env, "pencil").await.unwrap();
        let new = &NewAccount {
            address: address("alice@example.org"),
            description: String::new(),
            quota_bytes: 0,
            credential,
        };
        let operations: [_; 6] = std::array::from_fn(|_| mail::OperationId::random(&env));
        let (operations, now) = (&operations, env.wall());
        let alice = db
            .run(|tx| async move {
                for domain in ["example.org", "second.example"] {
                    directory::add_domain(&tx, domain, now).await.unwrap();
                }
                let kind = directory::ListKind::Alias;
                let target = [address("alice@example.org")];
                directory::add_list(&tx, &address("al@second.example"), kind, &target)
                    .await
                    .unwrap();
                mail::create_account(&tx, new, now, operations).await
            })
            .await
            .unwrap();
        let world = Self { signing, settings, db, env, alice };
        world.give_key("example.org").await;
        world
    }

    async fn give_key(&self, domain: &str) {
        let mut key = rotation::make(&self.env, &[], dkim::Algorithm::Ed25519).await.unwrap();
        key.state = State::InUse;
        let keys = &[key];
        let give = |tx: Transaction| async move { dkim::write(&tx, domain, &[], keys).await };
        self.db.run(give).await.unwrap();
        self.signing.forget();
    }

    /// The domain that signs.
    async fn signs(&self, from: &str, sender: Option<&str>) -> Option<String> {
        let message = format!("From: {from}\r\nSubject: x\r\n\r\nhello\r\n");
        let digest = Digester::whole(Purpose::Sign, message.as_bytes());
        let sender = sender.map(address);
        let fields = self.signing.submitted(&digest, self.alice, sender.as_ref()).await.unwrap();
        domain_of(&fields)
    }
}

fn domain_of(fields: &[u8]) -> Option<String> {
    let text = String::from_utf8(fields.to_vec()).unwrap();
    let mut tags = text.split_ascii_whitespace().filter_map(|tag| tag.strip_prefix("d="));
    tags.next().map(|domain| domain.trim_end_matches(';').to_owned())
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

#[tokio::test]
async fn the_authors_domain_signs_where_the_account_is_the_author() {
    let world = World::new().await;
    let alice = Some("alice@example.org");
    let ours = Some("example.org".to_owned());
    assert_eq!(world.signs("Alice <Alice@Example.org>", alice).await, ours);
    assert_eq!(world.signs("alice+tag@example.org", alice).await, ours);
    assert_eq!(world.signs("alice@example.org", None).await, ours);
    // Nobody vouches for another's name.
    assert_eq!(world.signs("boss@example.org", alice).await, None);
    assert_eq!(world.signs("boss@example.org", None).await, None);
    // An author elsewhere: whoever sends it signs, which aligns with nobody.
    assert_eq!(world.signs("x@elsewhere.example", alice).await, ours);
    assert_eq!(world.signs("a@example.org, b@elsewhere.example", alice).await, None);
    assert_eq!(world.signs("a:; alice@example.org", alice).await, ours);
    let hidden = "alice@example.org, a:;, b:;, c:;, d:;, boss@example.org";
    assert_eq!(world.signs(hidden, alice).await, None);
    assert_eq!(world.signs("x@elsewhere.example", None).await, None);
    // A domain without a key.
    assert_eq!(world.signs("al@second.example", Some("al@second.example")).await, None);
    world.give_key("second.example").await;
    let second = Some("second.example".to_owned());
    assert_eq!(world.signs("al@second.example", Some("al@second.example")).await, second);
    assert_eq!(world.signs("al@second.example", alice).await, second);
    assert_eq!(world.signs("bob@second.example", alice).await, ours, "it aligns with nobody");
}

#[tokio::test]
async fn no_signature_aligns_with_an_author_who_is_somebody_else() {
    let world = World::new().await;
    world.give_key("mail.second.example").await;
    let domains = |tx: Transaction| async move {
        directory::add_domain(&tx, "mail.second.example", env::Timestamp::from_unix_ms(0)).await?;
        let kind = directory::ListKind::Alias;
        let target = [address("alice@example.org")];
        directory::add_list(&tx, &address("al@mail.second.example"), kind, &target).await
    };
    world.db.run(domains).await.unwrap();
    let sender = Some("al@mail.second.example");
    let below = Some("mail.second.example".to_owned());
    // A domain above, without a key here; one beside, here or not; one below.
    for author in ["boss@second.example", "boss@pay.second.example", "boss@a.mail.second.example"] {
        assert_eq!(world.signs(author, sender).await, None, "{author}");
    }
    world.give_key("pay.second.example").await;
    assert_eq!(world.signs("boss@pay.second.example", sender).await, None, "its key is no leave");
    // Whoever may send as the author may do so through a domain beside.
    assert_eq!(world.signs("al@second.example", sender).await, below);
    assert_eq!(world.signs("x@third.example", sender).await, below, "it aligns with nobody");
}

#[test]
fn domains_are_related_that_may_share_an_organization() {
    for (one, other, related) in [
        ("example.org", "example.org", true),
        ("a.example.org", "example.org", true),
        ("a.example.org", "b.c.example.org", true),
        ("a.example.org", "a.example.com", false),
        ("notexample.org", "example.org", false),
        ("a.notexample.org", "a.example.org", false),
        ("one.example", "two.example", false),
        ("host", "a.host", true),
        ("host", "guest", false),
    ] {
        assert_eq!(is_related(one, other), related, "{one} {other}");
        assert_eq!(is_related(other, one), related, "{other} {one}");
    }
}

#[tokio::test]
async fn our_own_messages_are_signed_by_the_nearest_domain() {
    let world = World::new().await;
    let message = b"From: postmaster@mx.example.org\r\n\r\nhello\r\n";
    let fields = world.signing.own(message, "mx.example.org").await;
    assert_eq!(domain_of(&fields).as_deref(), Some("example.org"));
    assert_eq!(world.signing.own(message, "mx.example.com").await, b"");
}

#[tokio::test]
async fn a_change_of_keys_is_heard_of() {
    let world = World::new().await;
    let (version, heard) = watch::channel(0);
    let following = world.env.spawn("follow", world.signing.clone().follow(heard));
    assert!(world.signing.sealer("example.org").await.unwrap().is_some());
    let forget = |tx: Transaction| async move { dkim::forget(&tx, "example.org").await };
    world.db.run(forget).await.unwrap();
    assert!(world.signing.sealer("example.org").await.unwrap().is_some(), "it is remembered");
    version.send_replace(1);
    drop(version);
    following.await.unwrap();
    assert!(world.signing.sealer("example.org").await.unwrap().is_none());
}

#[tokio::test]
async fn senders_are_rewritten_and_found_again() {
    let world = World::new().await;
    let signing = &world.signing;
    let forwarded = signing.forwarded("Bob@elsewhere.example", "example.org").await.unwrap();
    assert!(forwarded.starts_with("SRS0=") && forwarded.ends_with("@example.org"), "{forwarded}");
    assert_eq!(
        signing.back(&forwarded, None).await.unwrap(),
        Back::To("Bob@elsewhere.example".to_owned())
    );
    assert_eq!(signing.reports_to(&forwarded).await.unwrap(), "Bob@elsewhere.example");
    assert_eq!(signing.reports_to("x@y.example").await.unwrap(), "x@y.example");
    let forged = forwarded.replace("Bob", "Eve");
    assert_eq!(signing.back(&forged, None).await.unwrap(), Back::Refused);
    assert_eq!(signing.back("srs@example.org", None).await.unwrap(), Back::NotRewritten);
    assert_eq!(
        signing.forwarded("alice@example.org", "x.example").await.unwrap(),
        "alice@example.org"
    );
    assert_eq!(signing.forwarded("", "example.org").await.unwrap(), "");
    let set = |value: &str| {
        world.settings.send_modify(|held| {
            Arc::make_mut(held).set("srs.domain", value).unwrap();
        });
    };
    set("fwd.example");
    let forwarded = signing.forwarded("bob@elsewhere.example", "example.org").await.unwrap();
    assert!(forwarded.ends_with("@fwd.example"), "{forwarded}");
    set("off");
    let left = signing.forwarded("bob@elsewhere.example", "example.org").await.unwrap();
    assert_eq!(left, "bob@elsewhere.example");
}

/// A sender as those who want to know which address failed have it.
const LONG: &str = "bounce-0123456789-0123456789-alice=example.org@lists.elsewhere.example";

#[tokio::test]
async fn a_sender_that_is_too_long_is_kept_and_found_again() {
    let world = World::new().await;
    // Another node on the same store.
    let other = Signing::new(&world.env, world.db.clone(), world.settings.subscribe());
    let forwarded = world.signing.forwarded(LONG, "example.org").await.unwrap();
    let (local, _) = forwarded.split_once('@').unwrap();
    assert!(local.starts_with("SRS0=") && local.len() <= 64, "{forwarded}");
    assert_eq!(world.signing.forwarded(LONG, "example.org").await.unwrap(), forwarded);
    let back = Back::To(LONG.to_owned());
    for address in [&forwarded, &forwarded.to_lowercase()] {
        assert_eq!(other.back(address, None).await.unwrap(), back);
    }
    assert_eq!(other.reports_to(&forwarded).await.unwrap(), LONG);
    let eve = &address("eve@elsewhere.example");
    assert_eq!(other.back(&forwarded, Some(eve)).await.unwrap(), Back::Refused);
    let rows = async || {
        let rows = kv::RangeQuery::prefix(&kv::Subspace::SrsToken.prefix());
        world.db.begin().range(rows).collect().await.unwrap().len()
    };
    assert_eq!(rows().await, 2, "one sender and the day's number");
    world.signing.forwarded("bob@elsewhere.example", "example.org").await.unwrap();
    assert_eq!(rows().await, 2, "what fits is not kept");
    let today = u64::try_from(world.env.wall().unix_seconds() / 86_400).unwrap();
    let forget = |tx: Transaction| async move {
        cluster::srs::tokens::forget_before(&tx, today + 1);
        Ok::<_, StoreError>(())
    };
    world.db.run(forget).await.unwrap();
    assert_eq!(other.back(&forwarded, None).await.unwrap(), Back::Refused);
}

#[tokio::test]
async fn a_domain_keeps_so_many_senders_a_day() {
    let world = World::new().await;
    let forwarded = world.signing.forwarded(LONG, "example.org").await.unwrap();
    assert!(forwarded.starts_with("SRS0="));
    let rows = kv::RangeQuery::prefix(&kv::tuple::pack(&(kv::Subspace::SrsToken as u64, "n")));
    let rows = world.db.begin().range(rows).collect().await.unwrap();
    let (number, most) = (&rows[0].key, limits::SRS_TOKENS_PER_DAY_MAX.to_le_bytes());
    let fill = |tx: Transaction| async move {
        tx.set(number, &most);
        Ok::<_, StoreError>(())
    };
    world.db.run(fill).await.unwrap();
    let other = LONG.replacen("bounce", "return", 1);
    assert_eq!(world.signing.forwarded(&other, "example.org").await.unwrap(), other);
    assert_eq!(world.signing.forwarded(LONG, "example.org").await.unwrap(), forwarded);
}

#[tokio::test]
async fn bounces_have_a_bound() {
    let world = World::new().await;
    let forwarded = world.signing.forwarded("bob@elsewhere.example", "example.org").await.unwrap();
    // What is refused as no bounce takes nothing of it.
    let eve = &address("eve@elsewhere.example");
    for _ in 0..2 * limits::SRS_BOUNCES_PER_MINUTE {
        let refused = world.signing.back(&forwarded, Some(eve)).await.unwrap();
        assert_eq!(refused, Back::Refused);
    }
    for _ in 0..limits::SRS_BOUNCES_PER_MINUTE {
        assert!(matches!(world.signing.back(&forwarded, None).await.unwrap(), Back::To(_)));
    }
    assert_eq!(world.signing.back(&forwarded, None).await.unwrap(), Back::TooMany);
}
