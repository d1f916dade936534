//! Messages and records that are damaged, or made to damage.

use dns::{Resolver, Zone};
use env::Env;
use origin::{Digester, DmarcRecord, Judge, Purpose, SpfVerdict};
use proptest::prelude::*;

use crate::messages::{MESSAGE, World};

/// A message with two signatures and a seal, and the records of their keys.
fn sealed(runtime: &tokio::runtime::Runtime) -> (World, String) {
    runtime.block_on(async {
        let world = World::new();
        let signer = world.signer("example.org").await;
        let digest = Digester::whole(Purpose::Sign, MESSAGE.as_bytes());
        let signed = format!("{}{MESSAGE}", signer.sign(&digest, world.env.wall()).unwrap());
        let chain = world.verdicts(&signed).await.arc;
        let digest = Digester::whole(Purpose::Sign, signed.as_bytes());
        let told = ["dkim=pass".to_owned()];
        let seal = signer.seal(&digest, &chain, "mx.example.org", &told, world.env.wall());
        (world, format!("{}{signed}", seal.unwrap().unwrap()))
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn damaged_messages_are_judged() {
    let runtime = runtime();
    let (world, message) = sealed(&runtime);
    let header = message.find("\r\n\r\n").unwrap();
    let damage = (0..header, any::<u8>(), 0..3usize);
    let damages = proptest::collection::vec(damage, 1..6);
    let mut runner = proptest::test_runner::TestRunner::default();
    let played = runner.run(&damages, |damages| {
        let mut bytes = message.clone().into_bytes();
        for (place, byte, kind) in damages {
            let place = place.min(bytes.len() - 1);
            match kind {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                _ => drop(bytes.remove(place)),
            }
        }
        let digest = Digester::whole(Purpose::JudgeAndSign, &bytes);
        let judge = world.judge();
        let sender = SpfVerdict::default();
        let verdicts = runtime.block_on(judge.judge_message(&sender, &digest));
        prop_assert!(verdicts.dkim.len() <= 2);
        for range in judge.forged_results(&digest) {
            prop_assert!(range.end <= digest.header().len());
        }
        Ok(())
    });
    played.unwrap();
}

#[test]
fn damaged_records_are_read() {
    let runtime = runtime();
    let terms = "(\\+|-|~|\\?)?(a|mx|ptr|all|exists|include|ip4|ip6|redirect|exp)[:=/]?\
                 (%\\{[a-z][0-9]{0,3}r?[-.+]?\\}|[a-z0-9./:%-]){0,12}";
    let record = proptest::collection::vec(terms, 0..6);
    let tags = "(v=DMARC1; ?)?([a-z]{1,5}=[a-z0-9:,;!@ ]{0,9};? ?){0,6}";
    let key = "(v=DKIM1; ?)?([a-z]{1,2}=[a-zA-Z0-9+/=:]{0,30};? ?){0,6}";
    let mut runner = proptest::test_runner::TestRunner::default();
    let played = runner.run(&(record, tags, key), |(record, tags, key)| {
        let zone = Zone::new();
        zone.txt("example.org", format!("v=spf1 {}", record.join(" ")))
            .txt("_dmarc.example.org", &tags)
            .txt("s._domainkey.example.org", &key);
        let judge = Judge::new(&Env::system(), Resolver::fixed(zone), "mx.example.net");
        let message = "DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s; h=from; \
            bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA; c=relaxed/relaxed\r\n\
            From: a@example.org\r\n\r\n";
        let _unwanted = DmarcRecord::parse(tags.as_bytes());
        runtime.block_on(async {
            let peer = "2001:db8::1".parse().unwrap();
            let connection = judge.judge_connection(peer, "example.org").await;
            let sender = judge.judge_sender(&connection, "a@example.org").await;
            let digest = Digester::whole(Purpose::Judge, message.as_bytes());
            let verdicts = judge.judge_message(&sender, &digest).await;
            let header = judge.authentication_results(&connection, &sender, &verdicts);
            assert!(
                header.split("\r\n").skip(1).all(|line| line.is_empty() || line.starts_with('\t'))
            );
        });
        Ok(())
    });
    played.unwrap();
}

/// Records that include each other, and mechanisms without end, cost a bounded number of questions.
#[tokio::test]
async fn records_that_lead_on_and_on_are_left() {
    let zone = Zone::new();
    for number in 0..30 {
        let next = number + 1;
        zone.txt(
            &format!("n{number}.example"),
            format!("v=spf1 include:n{next}.example include:n{next}.example a mx ptr -all"),
        );
    }
    zone.txt("loop.example", "v=spf1 redirect=loop.example")
        .txt("many.example", format!("v=spf1 {}-all", "a:x.example ".repeat(400)))
        .txt("names.example", "v=spf1 mx -all");
    for number in 0..50 {
        zone.mx("names.example", number, &format!("mx{number}.example"));
    }
    let judge = Judge::new(&Env::system(), Resolver::fixed(zone.clone()), "mx.example.net");
    let connection = judge.judge_connection("192.0.2.1".parse().unwrap(), "x").await;
    for domain in ["n0.example", "loop.example", "many.example", "names.example"] {
        let before = zone.lookups();
        let found = judge.judge_sender(&connection, &format!("a@{domain}")).await;
        assert_eq!(found.result, origin::SpfResult::PermError, "{domain}");
        assert!(zone.lookups() - before <= 25, "{domain}: {}", zone.lookups() - before);
    }
}
