//! What domains ask for: DMARC, iprev, and SPF where it fails.

use std::{net::IpAddr, time::Duration};

use origin::{
    Digester, DkimError, DkimResult, DmarcResult, DmarcVerdict, IprevResult, Override, Policy,
    Purpose, ReportsWanted, SpfResult, SpfVerdict, limits,
    reports::{AggregateReport, Evaluated, PublishedPolicy, ReportMetadata, Row},
};

use crate::messages::World;

async fn dmarc(world: &World, from: &str, spf: Option<&str>) -> DmarcVerdict {
    let result = if spf.is_some() { SpfResult::Pass } else { SpfResult::None };
    let domain = spf.unwrap_or_default().to_owned();
    let sender = SpfVerdict { result, domain, ..SpfVerdict::default() };
    let message = format!("From: {from}\r\nSubject: x\r\n\r\nbody\r\n");
    let digest = Digester::whole(Purpose::Judge, message.as_bytes());
    world.judge().judge_message(&sender, &digest).await.dmarc
}

#[tokio::test]
async fn alignment_is_of_one_organization_or_the_same_domain() {
    let world = World::new();
    world
        .zone
        .txt("_dmarc.example.org", "v=DMARC1; p=reject")
        .txt("_dmarc.strict.example", "v=DMARC1; p=reject; aspf=s");
    for (from, spf, result) in [
        ("a@example.org", Some("example.org"), DmarcResult::Pass),
        ("a@mail.example.org", Some("example.org"), DmarcResult::Pass),
        ("a@example.org", Some("bounce.example.org"), DmarcResult::Pass),
        ("a@one.example.org", Some("two.example.org"), DmarcResult::Pass),
        ("a@EXAMPLE.org", Some("example.org"), DmarcResult::Pass),
        ("a@example.org", Some("badexample.org"), DmarcResult::Fail),
        ("a@example.org", Some("example.com"), DmarcResult::Fail),
        ("a@example.org", None, DmarcResult::Fail),
        ("a@strict.example", Some("strict.example"), DmarcResult::Pass),
        ("a@strict.example", Some("mail.strict.example"), DmarcResult::Fail),
        ("a@nothing.example", Some("nothing.example"), DmarcResult::None),
        ("nobody", None, DmarcResult::PermError),
        ("a@example.org, b@example.com", Some("example.org"), DmarcResult::None),
        ("a@example.org, b@strict.example", Some("example.org"), DmarcResult::Fail),
        ("a@example.org, b@example.org", Some("example.org"), DmarcResult::Pass),
        ("a@example.org\r\nFrom: b@example.org", Some("example.org"), DmarcResult::PermError),
    ] {
        let found = dmarc(&world, from, spf).await;
        assert_eq!(found.result, result, "{from} {spf:?} {found:?}");
        let expected = if result == DmarcResult::Fail { Policy::Reject } else { Policy::None };
        assert_eq!(found.disposition, expected, "{from} {spf:?}");
    }
}

/// However its authors are written, a message is not freed of what one of them asks for.
#[tokio::test]
async fn of_several_authors_the_strictest_counts() {
    let world = World::new();
    world
        .zone
        .txt("_dmarc.bank.example", "v=DMARC1; p=reject; rua=mailto:a@bank.example")
        .txt("_dmarc.shop.example", "v=DMARC1; p=quarantine")
        .txt("_dmarc.evil.example", "v=DMARC1; p=none");
    let many = (0..5).map(|at| format!("x@a{at}.example")).collect::<Vec<_>>().join(", ");
    use DmarcResult::{Fail, None as NoRecord, PermError};
    for (from, result, domain, disposition) in [
        ("a@bank.example, b@evil.example", Fail, "bank.example", Policy::Reject),
        ("b@evil.example, a@bank.example", Fail, "bank.example", Policy::Reject),
        ("b@shop.example, a@bank.example", Fail, "bank.example", Policy::Reject),
        ("b@evil.example, a@shop.example", Fail, "shop.example", Policy::Quarantine),
        ("b@evil.example, a@nothing.example", NoRecord, "nothing.example", Policy::None),
        ("b@evil.example\r\nFrom: a@bank.example", PermError, "bank.example", Policy::Reject),
        ("a@bank.example\r\nFrom: b@evil.example", PermError, "bank.example", Policy::Reject),
        ("a@bank.example\r\nFrom: a@bank.example", PermError, "bank.example", Policy::Reject),
        ("a@bank.example, x@[192.0.2.1]", PermError, "bank.example", Policy::Reject),
        ("b@evil.example\r\nFrom: b@evil.example", PermError, "evil.example", Policy::None),
        (&many, PermError, "", Policy::Reject),
    ] {
        let found = dmarc(&world, from, Some("evil.example")).await;
        assert_eq!(
            (found.result, found.author_domain.as_str(), found.disposition),
            (result, domain, disposition),
            "{from}"
        );
        // Who is told of a message is an author's domain that has one.
        assert!(result != PermError || found.record.is_none(), "{from}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_author_does_not_keep_anothers_policy_from_being_applied() {
    let world = World::new();
    world.zone.txt("_dmarc.bank.example", "v=DMARC1; p=reject");
    world.zone.txt("_dmarc.slow.example", "v=DMARC1; p=none");
    world.zone.slow(&world.env, "_dmarc.slow.example", Duration::from_secs(3_600));
    let judging = dmarc(&world, "b@slow.example, a@bank.example", None);
    let bound = limits::POLICY_TIME_MAX + Duration::from_secs(1);
    let found = world.env.timeout(bound, judging).await.unwrap();
    assert_eq!((found.result, found.disposition), (DmarcResult::Fail, Policy::Reject));
}

#[tokio::test]
async fn the_policy_is_found_up_the_tree() {
    let world = World::new();
    world
        .zone
        .txt("_dmarc.example.org", "v=DMARC1; p=reject; sp=quarantine; np=none")
        .txt("_dmarc.own.example.org", "v=DMARC1; p=none")
        .txt("_dmarc.bank", "v=DMARC1; p=quarantine; psd=y; np=reject")
        .txt("_dmarc.uni.example", "v=DMARC1; p=reject")
        .txt("_dmarc.dept.uni.example", "v=DMARC1; p=quarantine; psd=n")
        .address("there.example.org", [192, 0, 2, 9])
        .address("some.bank", [192, 0, 2, 9]);
    for (from, domain, policy) in [
        ("example.org", "example.org", Policy::Reject),
        ("there.example.org", "example.org", Policy::Quarantine),
        ("missing.example.org", "example.org", Policy::None),
        ("own.example.org", "own.example.org", Policy::None),
        ("some.bank", "bank", Policy::Quarantine),
        ("gone.bank", "bank", Policy::Reject),
        ("x.dept.uni.example", "dept.uni.example", Policy::Quarantine),
        ("a.b.c.d.e.f.g.h.i.j.k.example.org", "example.org", Policy::None),
    ] {
        let found = dmarc(&world, &format!("a@{from}"), None).await;
        assert_eq!((found.policy_domain.as_str(), found.policy), (domain, policy), "{from}");
    }
    // Domains below a public suffix are of different organizations, and so are a university's that says
    // so.
    let found = dmarc(&world, "a@some.bank", Some("other.bank")).await;
    assert_eq!(found.result, DmarcResult::Fail);
    let found = dmarc(&world, "a@x.dept.uni.example", Some("uni.example")).await;
    assert_eq!(found.result, DmarcResult::Fail);
    let found = dmarc(&world, "a@x.some.bank", Some("y.some.bank")).await;
    assert_eq!(found.result, DmarcResult::Pass);
}

#[tokio::test]
async fn a_tree_costs_a_bounded_number_of_questions() {
    let world = World::new();
    let deep = format!("a@{}example.org", "x.".repeat(100));
    let before = world.zone.lookups();
    assert_eq!(dmarc(&world, &deep, None).await.result, DmarcResult::None);
    assert_eq!(world.zone.lookups() - before, 8);
}

#[tokio::test]
async fn policies_are_applied_in_part_where_they_say_so() {
    let world = World::new();
    world
        .zone
        .txt("_dmarc.half.example", "v=DMARC1; p=reject; pct=50")
        .txt("_dmarc.zero.example", "v=DMARC1; p=quarantine; pct=0")
        .txt("_dmarc.trying.example", "v=DMARC1; p=reject; t=y");
    let mut applied = 0;
    for _ in 0..200 {
        let found = dmarc(&world, "a@half.example", None).await;
        match (found.disposition, found.reason) {
            (Policy::Reject, Override::None) => applied += 1,
            (Policy::Quarantine, Override::SampledOut) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!((40..160).contains(&applied), "{applied} of 200");
    let found = dmarc(&world, "a@zero.example", None).await;
    assert_eq!((found.disposition, found.reason), (Policy::None, Override::SampledOut));
    let found = dmarc(&world, "a@trying.example", None).await;
    assert_eq!((found.disposition, found.reason), (Policy::Quarantine, Override::Testing));
}

#[tokio::test]
async fn what_cannot_be_asked_is_a_temporary_error() {
    let world = World::new();
    world.zone.temporary("_dmarc.down.example").bogus("_dmarc.forged.example");
    for domain in ["down.example", "forged.example"] {
        let found = dmarc(&world, &format!("a@{domain}"), None).await;
        assert_eq!((found.result, found.disposition), (DmarcResult::TempError, Policy::None));
    }
    world.zone.txt("_dmarc.example.org", "v=DMARC1; p=reject").temporary("_dmarc.mail.example.org");
    let found = dmarc(&world, "a@example.org", Some("mail.example.org")).await;
    assert_eq!((found.result, found.disposition), (DmarcResult::TempError, Policy::None));
}

/// A stranger whose name servers are silent must not keep the author's policy from being applied.
#[tokio::test]
async fn what_strangers_do_not_answer_does_not_matter() {
    let world = World::new();
    world
        .zone
        .txt("_dmarc.example.org", "v=DMARC1; p=reject")
        .temporary("_dmarc.down.example")
        .temporary("down.example")
        .temporary("s._domainkey.down.example")
        .temporary("bounce.example.org")
        .temporary("s._domainkey.example.org");
    let found = dmarc(&world, "a@example.org", Some("down.example")).await;
    assert_eq!((found.result, found.disposition), (DmarcResult::Fail, Policy::Reject));
    let judge = world.judge();
    let connection = world.connection().await;
    for (domain, expected) in [
        ("down.example", (DmarcResult::Fail, Policy::Reject)),
        ("example.org", (DmarcResult::TempError, Policy::None)),
    ] {
        let host = if domain == "example.org" { "bounce.example.org" } else { domain };
        let sender = judge.judge_sender(&connection, &format!("a@{host}")).await;
        assert_eq!(sender.result, SpfResult::TempError);
        let unsigned = "From: a@example.org\r\n\r\n";
        let signature = format!(
            "DKIM-Signature: v=1; a=rsa-sha256; d={domain}; s=s; h=from; c=simple/relaxed; \
             bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
        );
        let quiet = SpfVerdict::default();
        let signed = format!("{signature}{unsigned}");
        for (sender, message) in [(&sender, unsigned), (&quiet, signed.as_str())] {
            let digest = Digester::whole(Purpose::Judge, message.as_bytes());
            let found = judge.judge_message(sender, &digest).await.dmarc;
            assert_eq!((found.result, found.disposition), expected, "{domain} {message}");
        }
    }
}

#[tokio::test]
async fn names_have_to_lead_back() {
    let world = World::new();
    world
        .zone
        .ptr([192, 0, 2, 1], "one.example")
        .address("one.example", [192, 0, 2, 1])
        .ptr([192, 0, 2, 2], "one.example")
        .ptr([192, 0, 2, 3], "down.example")
        .temporary("down.example")
        .ptr([192, 0, 2, 5], "half.example")
        .address("half.example", "2001:db8::1".parse::<IpAddr>().unwrap())
        .temporary("half.example");
    for (peer, result, name) in [
        ("192.0.2.1", IprevResult::Pass, Some("one.example")),
        ("::ffff:192.0.2.1", IprevResult::Pass, Some("one.example")),
        ("192.0.2.2", IprevResult::Fail, None),
        ("192.0.2.3", IprevResult::TempError, None),
        ("192.0.2.4", IprevResult::PermError, None),
        // Its addresses of the other kind tell nothing of this one.
        ("192.0.2.5", IprevResult::TempError, None),
    ] {
        let found = world.judge().judge_connection(peer.parse().unwrap(), "x.example").await.iprev;
        assert_eq!((found.result, found.name.as_deref()), (result, name), "{peer}");
    }
}

#[tokio::test]
async fn an_empty_sender_is_judged_by_the_greeting() {
    let world = World::new();
    world.zone.txt("out.example.org", "v=spf1 ip4:192.0.2.1 -all");
    let connection = world.connection().await;
    let found = world.judge().judge_sender(&connection, "").await;
    assert_eq!((found.result, found.identity.as_str()), (SpfResult::Pass, "out.example.org"));
    assert_eq!(found.mechanism.as_deref(), Some("ip4:192.0.2.1"));
}

#[tokio::test]
async fn reports_go_where_they_are_wanted() {
    let world = World::new();
    world
        .zone
        .txt("_dmarc.example.org", "v=DMARC1; p=none")
        .txt("example.org._report._dmarc.reports.example", "v=DMARC1;")
        .temporary("example.org._report._dmarc.down.example");
    for (at, wanted) in [
        ("example.org", ReportsWanted::Yes),
        ("mail.example.org", ReportsWanted::Yes),
        ("reports.example", ReportsWanted::Yes),
        ("victim.example", ReportsWanted::No),
        ("down.example", ReportsWanted::Unknown),
    ] {
        assert_eq!(world.judge().accepts_reports("example.org", at).await, wanted, "{at}");
    }
}

#[tokio::test]
async fn what_was_judged_goes_into_reports() {
    let world = World::new();
    world
        .zone
        .txt("_dmarc.example.org", "v=DMARC1; p=reject; t=y; rua=mailto:a@example.org")
        .txt("out.example.com", "v=spf1 ip4:192.0.2.1 -all");
    let judge = world.judge();
    let connection = world.connection().await;
    let sender = judge.judge_sender(&connection, "b@out.example.com").await;
    let message = b"From: a@example.org\r\n\r\n";
    let digest = Digester::whole(Purpose::Judge, message);
    let verdicts = judge.judge_message(&sender, &digest).await;
    let policy = PublishedPolicy::of(&verdicts.dmarc).unwrap();
    assert_eq!((policy.domain.as_str(), policy.testing), ("example.org", true));
    let row = Row::of(&connection, &sender, &verdicts, Some("example.net"));
    assert_eq!(
        (row.disposition, row.spf, row.dkim),
        (Policy::Quarantine, Evaluated::Fail, Evaluated::Fail)
    );
    assert_eq!(row.reasons[0].kind, "policy_test_mode");
    assert_eq!(
        (row.header_from.as_str(), row.envelope_from.as_deref()),
        ("example.org", Some("out.example.com"))
    );
    assert_eq!(
        (row.auth_spf[0].result.as_str(), row.auth_spf[0].scope.as_deref()),
        ("pass", Some("mfrom"))
    );
    let mut other = row.clone();
    other.count = 7;
    assert!(row.is_like(&other));
    let mut report = AggregateReport::new(ReportMetadata::default(), policy);
    report.rows = vec![row];
    let read = AggregateReport::parse(report.to_xml().as_bytes()).unwrap();
    assert_eq!(read.rows, report.rows);
}

/// Ten signatures whose keys never come, and one in the author's name behind them.
#[tokio::test(start_paused = true)]
async fn slow_strangers_take_no_time_from_the_author() {
    let world = World::new();
    world.zone.txt("_dmarc.example.org", "v=DMARC1; p=reject");
    let signature = |domain: &str| {
        format!(
            "DKIM-Signature: v=1; a=rsa-sha256; d={domain}; s=s; h=from; c=simple/relaxed; \
             bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
        )
    };
    let mut message = String::new();
    for number in 0..9 {
        let domain = format!("slow{number}.example");
        let key = format!("s._domainkey.{domain}");
        world.zone.txt(&key, "v=DKIM1; p=").slow(&world.env, &key, Duration::from_secs(3_600));
        message.push_str(&signature(&domain));
    }
    message.push_str(&signature("example.org"));
    message.push_str("From: a@example.org\r\n\r\n");
    let bound = limits::KEY_TIME_MAX + Duration::from_secs(1);
    let found = world.env.timeout(bound, world.verdicts(&message)).await.unwrap();
    let temporary = found.dkim.iter().filter(|it| it.result == DkimResult::TempError).count();
    assert_eq!((temporary, found.dkim[9].reason), (9, Some(DkimError::NoKey)));
    assert_eq!((found.dmarc.result, found.dmarc.disposition), (DmarcResult::Fail, Policy::Reject));

    world.zone.slow(&world.env, "_dmarc.example.org", Duration::from_secs(3_600));
    let found = world.verdicts("From: a@example.org\r\n\r\n").await.dmarc;
    assert_eq!(
        (found.result, found.author_domain.as_str()),
        (DmarcResult::TempError, "example.org")
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_domain_is_a_temporary_error() {
    let world = World::new();
    world.zone.txt("slow.example", "v=spf1 -all");
    world.zone.slow(&world.env, "slow.example", Duration::from_secs(3_600));
    let connection = world.connection().await;
    let found = world.judge().judge_sender(&connection, "a@slow.example").await;
    assert_eq!((found.result, found.domain.as_str()), (SpfResult::TempError, "slow.example"));
}
