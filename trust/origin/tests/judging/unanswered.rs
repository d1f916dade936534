//! What is never answered, and who asked for it: nobody gets around what a domain wants by names that are silent,
//! and nobody's chain is broken by a name server that is away.

use std::{net::IpAddr, time::Duration};

use origin::{
    ArcError, ArcResult, ArcVerdict, Digester, DkimError, DkimKey, DmarcResult, DmarcVerdict,
    Policy, Purpose, Signer, SigningKey, SpfResult, SpfVerdict, limits,
};

use crate::messages::{MESSAGE, World};

const NEVER: Duration = Duration::from_secs(3_600);

async fn dmarc(world: &World, author: &str, spf: Option<&str>) -> DmarcVerdict {
    let result = if spf.is_some() { SpfResult::Pass } else { SpfResult::None };
    let domain = spf.unwrap_or_default().to_owned();
    let sender = SpfVerdict { result, domain, ..SpfVerdict::default() };
    let message = format!("From: a@{author}\r\n\r\n");
    let digest = Digester::whole(Purpose::Judge, message.as_bytes());
    world.judge().judge_message(&sender, &digest).await.dmarc
}

#[tokio::test]
async fn a_lame_subdomain_does_not_hide_its_organizations_policy() {
    let world = World::new();
    world
        .zone
        .txt("_dmarc.bank.example", "v=DMARC1; p=reject")
        .temporary("_dmarc.lame.bank.example")
        .bogus("_dmarc.forged.bank.example")
        .txt("_dmarc.shop.example", "v=DMARC1; p=reject; sp=quarantine; np=none")
        .temporary("lame.shop.example")
        .txt("_dmarc.suffix", "v=DMARC1; p=quarantine; psd=y")
        .temporary("_dmarc.lame.some.suffix")
        .temporary("_dmarc.down.suffix");
    use DmarcResult::{Fail, TempError};
    for (author, result, policy, disposition) in [
        ("lame.bank.example", Fail, "bank.example", Policy::Reject),
        ("a.b.lame.bank.example", Fail, "bank.example", Policy::Reject),
        ("forged.bank.example", Fail, "bank.example", Policy::Reject),
        // Its own address cannot be asked for, so that it is not known to be missing.
        ("lame.shop.example", Fail, "shop.example", Policy::Quarantine),
        ("lame.some.suffix", Fail, "suffix", Policy::Quarantine),
        // It may have a record of its own.
        ("down.suffix", TempError, "", Policy::None),
        ("www.down.suffix", TempError, "", Policy::None),
    ] {
        let found = dmarc(&world, author, Some("evil.example")).await;
        assert_eq!(
            (found.result, found.policy_domain.as_str(), found.disposition),
            (result, policy, disposition),
            "{author}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn silent_names_below_a_domain_take_no_time_from_it() {
    let world = World::new();
    world.zone.txt("_dmarc.bank.example", "v=DMARC1; p=reject; np=none");
    let author = "a.b.c.d.e.lame.bank.example";
    let mut at = author;
    while at != "bank.example" {
        world.zone.slow(&world.env, &format!("_dmarc.{at}"), NEVER);
        at = at.split_once('.').unwrap().1;
    }
    world.zone.slow(&world.env, author, NEVER);
    let bound = limits::POLICY_TIME_MAX + Duration::from_secs(1);
    let found = world.env.timeout(bound, dmarc(&world, author, None)).await.unwrap();
    assert_eq!((found.result, found.disposition), (DmarcResult::Fail, Policy::Reject));
}

#[tokio::test]
async fn what_is_above_an_authors_own_record_does_not_matter_to_strangers() {
    let world = World::new();
    world
        .zone
        .txt("_dmarc.own.example.org", "v=DMARC1; p=quarantine")
        .temporary("_dmarc.example.org")
        .temporary("_dmarc.org");
    use DmarcResult::{Fail, Pass, TempError};
    for (spf, result) in [
        (None, Fail),
        (Some("evil.example"), Fail),
        (Some("evil.org"), Fail),
        (Some("other.example.org"), Fail),
        (Some("own.example.org"), Pass),
        (Some("mail.own.example.org"), Pass),
        // They may be one organization, and who has the domain above has the author's.
        (Some("example.org"), TempError),
    ] {
        let found = dmarc(&world, "own.example.org", spf).await;
        assert_eq!((found.result, found.policy), (result, Policy::Quarantine), "{spf:?}");
    }
}

/// Who is aligned could not be found out; what the domain asks for was.
#[tokio::test(start_paused = true)]
async fn a_policy_is_told_though_nobody_knows_who_is_aligned() {
    let world = World::new();
    world.zone.txt("_dmarc.bank.example", "v=DMARC1; p=reject");
    let mut message = String::new();
    for number in 0..limits::SIGNATURES_MAX {
        let domain = format!("s{number}.lame.bank.example");
        world.zone.slow(&world.env, &format!("_dmarc.{domain}"), NEVER);
        world.zone.temporary(&format!("s._domainkey.{domain}"));
        message.push_str(&format!(
            "DKIM-Signature: v=1; a=rsa-sha256; d={domain}; s=s; h=from; c=simple/relaxed; \
             bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
        ));
    }
    message.push_str("From: a@bank.example\r\n\r\n");
    let bound = limits::POLICY_TIME_MAX + limits::KEY_TIME_MAX;
    let found = world.env.timeout(bound, world.verdicts(&message)).await.unwrap().dmarc;
    assert_eq!((found.result, found.policy), (DmarcResult::TempError, Policy::Reject));
}

/// A client's owner answers for its names, slowly or not at all.
#[tokio::test(start_paused = true)]
async fn names_that_do_not_answer_are_no_match() {
    let world = World::new();
    let peer: IpAddr = "192.0.2.1".parse().unwrap();
    world
        .zone
        .txt("bank.example", "v=spf1 ptr ptr:other.example exists:%{p}.x.example ~all")
        .txt("friend.example", "v=spf1 ptr -all");
    for number in 0..8 {
        let name = format!("n{number}.evil.example");
        world.zone.ptr(peer, &name).address(&name, peer).slow(&world.env, &name, NEVER);
    }
    world.zone.ptr(peer, "lame.evil.example").temporary("lame.evil.example");
    let connection = world.connection().await;
    let judge = world.judge();
    for (sender, result) in
        [("bank.example", SpfResult::SoftFail), ("friend.example", SpfResult::Fail)]
    {
        let begin = world.env.monotonic();
        let found = judge.judge_sender(&connection, &format!("a@{sender}")).await;
        assert_eq!(found.result, result, "{sender}");
        let time = world.env.monotonic().saturating_since(begin);
        assert!(time <= 2 * limits::SPF_PTR_TIME_MAX, "{time:?}");
    }
    world.zone.ptr(peer, "mx.friend.example").address("mx.friend.example", peer);
    let found = judge.judge_sender(&connection, "a@friend.example").await;
    assert_eq!(found.result, SpfResult::Pass, "the one that answers");
    world.zone.slow(&world.env, "1.2.0.192.in-addr.arpa", NEVER);
    let found = judge.judge_sender(&connection, "a@friend.example").await;
    assert_eq!(found.result, SpfResult::Fail);
}

/// A sealer with one quick key for each hop.
struct Hop {
    signer: Signer,
    name: String,
    key_name: String,
    record: String,
}

fn hop(world: &World, number: usize) -> Hop {
    let name = format!("hop{number}.example");
    let key = DkimKey { selector: "s".to_owned(), key: SigningKey::generate_ed25519(&world.env) };
    let (key_name, record) = (key.record_name(&name), key.key.record());
    world.zone.txt(&key_name, &record);
    Hop { signer: Signer::new(&name, vec![key]), name, key_name, record }
}

fn sealed(world: &World, hop: &Hop, message: &str, chain: &ArcVerdict) -> Option<String> {
    let digest = Digester::whole(Purpose::Sign, message.as_bytes());
    let at = world.env.wall();
    let told = ["dmarc=pass".to_owned()];
    let seal = hop.signer.seal(&digest, chain, &hop.name, &told, at).unwrap()?;
    Some(format!("{seal}{message}"))
}

/// A message that so many have sealed.
async fn chain(world: &World, hops: usize) -> (Vec<Hop>, String) {
    let (mut message, mut sealers) = (MESSAGE.to_owned(), Vec::new());
    for number in 0..hops {
        let hop = hop(world, number);
        let chain = world.verdicts(&message).await.arc;
        message = sealed(world, &hop, &message, &chain).unwrap();
        sealers.push(hop);
    }
    (sealers, message)
}

#[tokio::test]
async fn a_name_server_that_is_away_does_not_break_a_chain() {
    let world = World::new();
    let (hops, message) = chain(&world, 3).await;
    let next = hop(&world, 3);
    let whole = world.verdicts(&message).await.arc;
    assert_eq!((whole.result, whole.sets.len()), (ArcResult::Pass, 3));
    for (hop, reason) in [
        (&hops[0], ArcError::Seal(DkimError::KeyUnavailable)),
        (&hops[2], ArcError::Message(DkimError::KeyUnavailable)),
    ] {
        world.zone.remove(&hop.key_name).temporary(&hop.key_name);
        let found = world.verdicts(&message).await.arc;
        assert_eq!((found.result, found.reason), (ArcResult::TempError, Some(reason)));
        assert_eq!(found.sets, whole.sets, "they are who claims to have sealed");
        assert_eq!(sealed(&world, &next, &message, &found), None);
        world.zone.remove(&hop.key_name).txt(&hop.key_name, &hop.record);
    }
    // What is wrong for good is, whatever else is not known.
    world.zone.remove(&hops[0].key_name).temporary(&hops[0].key_name);
    world.zone.remove(&hops[1].key_name);
    let found = world.verdicts(&message).await.arc;
    assert_eq!(
        (found.result, found.reason),
        (ArcResult::Fail, Some(ArcError::Seal(DkimError::NoKey)))
    );
    for hop in &hops[..2] {
        world.zone.remove(&hop.key_name).txt(&hop.key_name, &hop.record);
    }
    let found = world.verdicts(&message).await.arc;
    let gone_on = sealed(&world, &next, &message, &found).unwrap();
    assert!(gone_on.contains("cv=pass"), "{gone_on}");
    assert_eq!(world.verdicts(&gone_on).await.arc.result, ArcResult::Pass);
}

#[tokio::test]
async fn keys_of_seals_are_asked_for_where_they_matter() {
    let world = World::new();
    let (_, message) = chain(&world, 6).await;
    let cost = async |message: &str| {
        let before = world.zone.lookups();
        let found = world.verdicts(message).await.arc;
        (found.result, world.zone.lookups() - before)
    };
    let (result, whole) = cost(&message).await;
    assert_eq!(result, ArcResult::Pass);
    // Each sealer's but the newest one's, which has signed the message as well.
    let (result, broken) = cost(&format!("{message}More\r\n")).await;
    assert_eq!((result, whole - broken), (ArcResult::Fail, 5));
}

#[tokio::test]
async fn a_longer_chain_than_is_verified_is_left_as_it_is() {
    let world = World::new();
    let (_, message) = chain(&world, limits::ARC_SEALS_MAX).await;
    assert_eq!(world.verdicts(&message).await.arc.result, ArcResult::Pass);
    let (next, later) = (hop(&world, 90), hop(&world, 91));
    let found = world.verdicts(&message).await.arc;
    let message = sealed(&world, &next, &message, &found).unwrap();
    let before = world.zone.lookups();
    let found = world.verdicts(&message).await.arc;
    assert_eq!((found.result, found.reason), (ArcResult::PermError, Some(ArcError::TooManySeals)));
    // The author's policy alone is asked for.
    assert_eq!(world.zone.lookups() - before, 2);
    assert_eq!(sealed(&world, &later, &message, &found), None);
}

/// RFC 8617 §4.1.2 recommends that signatures of the message sign those of its author, and does not ask
/// for it.
#[tokio::test]
async fn a_chain_need_not_sign_the_authors_signatures() {
    let world = World::new();
    let author = hop(&world, 80);
    let digest = Digester::whole(Purpose::Sign, MESSAGE.as_bytes());
    let signed = author.signer.sign(&digest, world.env.wall()).unwrap();
    let message = format!("{signed}{MESSAGE}");
    let sealer = hop(&world, 81);
    let message = sealed(&world, &sealer, &message, &ArcVerdict::default()).unwrap();
    let (set, _) = message.split_once("DKIM-Signature:").unwrap();
    assert!(set.contains("h=from") && !set.to_ascii_lowercase().contains("dkim-signature"));
    assert_eq!(world.verdicts(&message).await.arc.result, ArcResult::Pass);
}
