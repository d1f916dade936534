//! What we sign and seal, judged; what we say of it; what others say in our name.

use std::net::IpAddr;

use dns::{Resolver, Zone};
use env::{Env, Timestamp};
use origin::{
    ArcResult, Connection, Digest, Digester, DkimError, DkimKey, DkimResult, DmarcResult, Judge,
    Purpose, SignError, Signer, SigningKey, SpfResult, SpfVerdict, Verdicts, limits,
};

pub(crate) const MESSAGE: &str = "Received: by somebody\r\n\
    From: =?utf-8?q?Ann?= <ann@example.org>\r\nTo: bob@example.net\r\nSubject: Lunch\r\n\
    Date: Mon, 1 Jan 2024 12:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n\
    \r\nShall we?\r\n\r\n";

pub(crate) struct World {
    pub(crate) env: Env,
    pub(crate) zone: Zone,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { env: Env::system(), zone: Zone::new() }
    }

    pub(crate) fn judge(&self) -> Judge {
        Judge::new(&self.env, Resolver::fixed(self.zone.clone()), "mx.example.net")
    }

    /// A signer whose keys are published.
    pub(crate) async fn signer(&self, domain: &str) -> Signer {
        let rsa = SigningKey::generate_rsa(&self.env).await.unwrap();
        let keys = vec![
            DkimKey { selector: "r".to_owned(), key: rsa },
            DkimKey { selector: "e".to_owned(), key: SigningKey::generate_ed25519(&self.env) },
        ];
        for key in &keys {
            self.zone.txt(&key.record_name(domain), key.key.record());
        }
        Signer::new(domain, keys)
    }

    pub(crate) async fn connection(&self) -> Connection {
        let peer: IpAddr = "192.0.2.1".parse().unwrap();
        self.judge().judge_connection(peer, "out.example.org").await
    }

    pub(crate) async fn verdicts(&self, message: &str) -> Verdicts {
        let digest = Digester::whole(Purpose::Judge, message.as_bytes());
        self.judge().judge_message(&SpfVerdict::default(), &digest).await
    }

    fn now(&self) -> Timestamp {
        self.env.wall()
    }
}

fn for_signing(message: &str) -> Digest {
    Digester::whole(Purpose::Sign, message.as_bytes())
}

fn results(verdicts: &Verdicts) -> Vec<DkimResult> {
    verdicts.dkim.iter().map(|verdict| verdict.result).collect()
}

#[tokio::test]
async fn both_signatures_pass_and_notice_changes() {
    let world = World::new();
    let signer = world.signer("example.org").await;
    let signed = signer.sign(&for_signing(MESSAGE), world.now()).unwrap();
    assert!(signed.lines().all(|line| line.len() <= 78), "{signed}");
    let message = format!("{signed}{MESSAGE}");
    let verdicts = world.verdicts(&message).await;
    assert_eq!(results(&verdicts), [DkimResult::Pass; 2], "{:?}", verdicts.dkim);
    assert_eq!(verdicts.dkim[0].identity, "@example.org");
    for (from, to) in [
        ("Shall we?", "Shall I?"),
        ("Subject: Lunch", "Subject: Dinner"),
        ("To: bob", "Cc: eve@example.com\r\nTo: bob"),
        ("To: bob", "From: eve@example.com\r\nTo: bob"),
        ("d=example.org", "d=example.com"),
    ] {
        let changed = message.replace(from, to);
        assert_ne!(changed, message);
        for result in results(&world.verdicts(&changed).await) {
            assert_ne!(result, DkimResult::Pass, "{to:?}");
        }
    }
    // A field that is not signed may come on the way.
    let added = format!("X-Seen: yes\r\n{message}");
    assert_eq!(results(&world.verdicts(&added).await), [DkimResult::Pass; 2]);
}

#[tokio::test]
async fn signing_and_judging_stream() {
    let world = World::new();
    let signer = world.signer("example.org").await;
    let line = "All work and no play makes Jack a dull boy.  \r\n";
    let (header, lines) = (MESSAGE.split_once("\r\n\r\n").unwrap().0, 40_000);
    let mut digester = Digester::new(Purpose::Sign);
    let feed = |digester: &mut Digester, first: &str| {
        digester.write(first.as_bytes());
        digester.write(format!("{header}\r\n\r\n").as_bytes());
        for _ in 0..lines {
            digester.write(line.as_bytes());
        }
    };
    feed(&mut digester, "");
    let signed = signer.sign(&digester.finish(), world.now()).unwrap();
    let mut digester = Digester::new(Purpose::Judge);
    feed(&mut digester, &signed);
    let verdicts = world.judge().judge_message(&SpfVerdict::default(), &digester.finish()).await;
    assert_eq!(results(&verdicts), [DkimResult::Pass; 2]);
}

#[tokio::test]
async fn what_is_presumed_of_a_body_holds_or_does_not() {
    let world = World::new();
    let signer = world.signer("example.org").await;
    let signed = signer.sign(&for_signing(MESSAGE), world.now()).unwrap();
    let message = format!("{signed}{MESSAGE}");
    let (header, body) = message.split_once("\r\n\r\n").unwrap();
    for (body, expected) in [(body, DkimResult::Pass), ("Shall I?\r\n", DkimResult::Fail)] {
        let mut digester = Digester::new(Purpose::Judge);
        digester.write(header.as_bytes());
        assert!(digester.presume().is_none(), "the header is not whole");
        digester.write(b"\r\n\r\n");
        let judge = world.judge();
        let presumed = digester.presume().unwrap();
        let found = judge.judge_message(&SpfVerdict::default(), &presumed).await;
        assert_eq!(results(&found), [DkimResult::Pass; 2]);
        digester.write(body.as_bytes());
        let digest = digester.finish();
        assert_eq!(digest.bears_out(), expected == DkimResult::Pass);
        let found = judge.judge_message(&SpfVerdict::default(), &digest).await;
        assert_eq!(results(&found), [expected; 2]);
    }
}

#[tokio::test]
async fn keys_come_and_go_as_documents_and_stay_hidden() {
    let env = Env::system();
    let rsa = SigningKey::generate_rsa(&env).await.unwrap();
    let ed25519 = SigningKey::generate_ed25519(&env);
    for key in [&rsa, &ed25519] {
        let again = SigningKey::from_pkcs8(&key.to_pkcs8()).unwrap();
        assert_eq!(again.record(), key.record());
        let shown = format!("{key:?}");
        assert!(shown.starts_with("SigningKey(") && shown.len() < 40, "{shown}");
    }
    assert!(rsa.record().len() > 400 && ed25519.record().starts_with("v=DKIM1; k=ed25519; p="));
    assert!(SigningKey::from_pkcs8(b"nonsense").is_err());
    let mut cut = rsa.to_pkcs8();
    cut.truncate(200);
    assert!(SigningKey::from_pkcs8(&cut).is_err());
}

#[tokio::test]
async fn what_keys_say_counts() {
    let world = World::new();
    let signer = world.signer("example.org").await;
    let signed = signer.sign(&for_signing(MESSAGE), world.now()).unwrap();
    let message = format!("{signed}{MESSAGE}");
    let key = "e._domainkey.example.org";
    let record = {
        let found = Resolver::fixed(world.zone.clone()).txt(key).await.unwrap();
        String::from_utf8(found.records[0].clone()).unwrap()
    };
    for (text, reason) in [
        (record.replace("p=", "s=web; p="), DkimError::KeyNotForThis),
        (record.replace("p=", "h=sha1; p="), DkimError::KeyNotForThis),
        (record.replace("k=ed25519", "k=rsa"), DkimError::BadKey),
        (record.replace("k=ed25519", "k=odd"), DkimError::UnknownAlgorithm),
        ("v=DKIM1; p=".to_owned(), DkimError::KeyRevoked),
        ("v=DKIM2; p=AAAA".to_owned(), DkimError::BadKey),
        ("k=ed25519; p=AAAA".to_owned(), DkimError::BadKey),
        ("p=MAA=".to_owned(), DkimError::BadKey),
    ] {
        world.zone.remove(key).txt(key, &text);
        let found = world.verdicts(&message).await.dkim;
        assert_eq!((found[0].result, found[1].reason), (DkimResult::Pass, Some(reason)), "{text}");
    }
    world.zone.remove(key);
    assert_eq!(world.verdicts(&message).await.dkim[1].reason, Some(DkimError::NoKey));
    world.zone.temporary(key);
    assert_eq!(world.verdicts(&message).await.dkim[1].result, DkimResult::TempError);
    world.zone.remove(key).txt(key, record.replace("p=", "t=y:s; p="));
    let found = world.verdicts(&message).await.dkim;
    assert!(found[1].testing && found[1].result == DkimResult::Pass);
    // RFC 6376 §3.6.1: literals count in any case.
    world.zone.remove(key).txt(key, record.replace("k=ed25519", "k=Ed25519"));
    assert_eq!(world.verdicts(&message).await.dkim[1].result, DkimResult::Pass);
}

#[tokio::test]
async fn old_signatures_and_uncovered_bodies_do_not_count() {
    let world = World::new();
    let signer = world.signer("example.org").await.expiring_after(3600);
    let long_ago = Timestamp::from_unix_seconds(world.now().unix_seconds() - 7200);
    let signed = signer.sign(&for_signing(MESSAGE), long_ago).unwrap();
    let found = world.verdicts(&format!("{signed}{MESSAGE}")).await.dkim;
    assert_eq!(found[0].reason, Some(DkimError::Expired));
    let signed = signer.sign(&for_signing(MESSAGE), world.now()).unwrap();
    let found = world.verdicts(&format!("{signed}{MESSAGE}")).await.dkim;
    assert_eq!(found[0].result, DkimResult::Pass);

    let partly = signed.replace("v=1;", "v=1; l=5;");
    let found = world.verdicts(&format!("{partly}{MESSAGE}")).await.dkim;
    assert_eq!(found[0].reason, Some(DkimError::BodyChanged));
}

#[tokio::test]
async fn floods_are_bounded() {
    let world = World::new();
    let signer = world.signer("example.org").await;
    let signed = signer.sign(&for_signing(MESSAGE), world.now()).unwrap();
    let before = world.zone.lookups();
    let found = world.verdicts(&format!("{}{MESSAGE}", signed.repeat(500))).await;
    assert_eq!(found.dkim.len(), limits::SIGNATURES_MAX);
    assert!(world.zone.lookups() - before < 10, "a key is looked up once");

    let huge = format!("X: {}\r\n{MESSAGE}", "y".repeat(limits::HEADER_BYTES_MAX));
    let found = world.verdicts(&huge).await;
    assert_eq!(found.dkim[0].reason, Some(DkimError::HeaderTooLarge));
    assert_eq!(found.dmarc.result, DmarcResult::PermError);
    let digest = for_signing(&huge);
    assert_eq!(signer.sign(&digest, world.now()), Err(SignError::HeaderTooLarge));
    assert_eq!(signer.sign(&for_signing("A: b\r\n\r\n"), world.now()), Err(SignError::NoAuthor));
    let judged = Digester::whole(Purpose::Judge, MESSAGE.as_bytes());
    assert_eq!(signer.sign(&judged, world.now()), Err(SignError::NotDigested));
}

#[tokio::test]
async fn a_chain_of_seals_holds_until_somebody_breaks_it() {
    let world = World::new();
    let mut message = MESSAGE.to_owned();
    for number in 1..=3u32 {
        let hop = format!("hop{number}.example");
        let signer = world.signer(&hop).await;
        let chain = world.verdicts(&message).await.arc;
        let expected = if number == 1 { ArcResult::None } else { ArcResult::Pass };
        assert_eq!((chain.result, chain.instances), (expected, number - 1), "{chain:?}");
        let digest = for_signing(&message);
        let told = vec![format!("spf=pass smtp.mailfrom=a@b{number}.example")];
        let sealed = signer.seal(&digest, &chain, &hop, &told, world.now()).unwrap().unwrap();
        message = format!("{sealed}{message}");
    }
    let chain = world.verdicts(&message).await.arc;
    let sealers: Vec<_> = chain.sets.iter().map(|set| set.domain.as_str()).collect();
    assert_eq!(sealers, ["hop1.example", "hop2.example", "hop3.example"], "{chain:?}");
    assert!(chain.sets[1].results.contains("smtp.mailfrom=a@b2.example"), "{chain:?}");

    let broken = message.replace("a@b1.example", "a@c1.example");
    let chain = world.verdicts(&broken).await.arc;
    assert_eq!((chain.result, chain.instances), (ArcResult::Fail, 3));
    let signer = world.signer("hop4.example").await;
    let digest = for_signing(&broken);
    let seal =
        |digest, chain| signer.seal(digest, chain, "hop4.example", &[], world.now()).unwrap();
    let sealed = seal(&digest, &chain).unwrap();
    assert!(sealed.contains("cv=fail") && sealed.contains("i=4"), "{sealed}");
    let marked = format!("{sealed}{broken}");
    let chain = world.verdicts(&marked).await.arc;
    assert_eq!(chain.result, ArcResult::Fail);
    assert_eq!(seal(&for_signing(&marked), &chain), None, "nothing goes on top of it");
}

#[tokio::test]
async fn what_was_found_is_said_and_forgeries_are_found() {
    let world = World::new();
    world
        .zone
        .ptr([192, 0, 2, 1], "out.example.org")
        .address("out.example.org", [192, 0, 2, 1])
        .txt("out.example.org", "v=spf1 a -all")
        .txt("example.org", "v=spf1 ip4:192.0.2.0/24 -all")
        .txt("_dmarc.example.org", "v=DMARC1; p=reject");
    let signer = world.signer("example.org").await;
    let signed = signer.sign(&for_signing(MESSAGE), world.now()).unwrap();
    let forged = "Authentication-Results: MX.example.net; dmarc=pass\r\n";
    let other = "Authentication-Results: elsewhere.example; dmarc=pass\r\n";
    let message = format!("{other}{signed}{forged}{MESSAGE}");

    let judge = world.judge();
    let connection = world.connection().await;
    let sender = judge.judge_sender(&connection, "ann@example.org").await;
    assert_eq!(sender.result, SpfResult::Pass);
    let digest = Digester::whole(Purpose::Judge, message.as_bytes());
    let verdicts = judge.judge_message(&sender, &digest).await;
    let header = judge.authentication_results(&connection, &sender, &verdicts);
    for part in [
        "Authentication-Results: mx.example.net;\r\n\t",
        "iprev=pass (out.example.org) policy.iprev=192.0.2.1;",
        "spf=pass smtp.helo=out.example.org;",
        "spf=pass smtp.mailfrom=ann@example.org;",
        "dkim=pass header.d=example.org header.i=@example.org header.s=r header.b=",
        "dmarc=pass header.from=example.org\r\n",
    ] {
        assert!(header.contains(part), "{part:?} in {header}");
    }
    let ranges = judge.forged_results(&digest);
    assert_eq!(ranges.len(), 1);
    assert_eq!(&message[ranges[0].clone()], forged);
}

#[tokio::test]
async fn an_address_with_anything_in_it_stays_on_its_line() {
    let world = World::new();
    let judge = world.judge();
    let connection = judge.judge_connection("192.0.2.1".parse().unwrap(), "a\r\nX: y").await;
    let sender = judge.judge_sender(&connection, "\"a\r\nX: y\"@example.org").await;
    let header = judge.authentication_results(&connection, &sender, &Verdicts::default());
    assert!(header.trim_end().split("\r\n").skip(1).all(|line| line.starts_with('\t')), "{header}");
}
