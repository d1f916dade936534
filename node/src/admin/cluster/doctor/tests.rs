//! Each finding, with its cause planted.

use cluster::{dkim::Found, membership::registry::End, work::enqueue};
use futures_util::FutureExt;
use mail::AccountId;

use super::{
    super::{
        super::tests::memory,
        tests::{beat, end, plant_failure, register, write},
        wish,
    },
    *,
};

/// Keeps a node's heart beating, by a clock that is ahead.
async fn live(admin: &Admin, name: &str, epoch: Epoch, ahead_ms: i64) {
    let name = &cluster::NodeName::parse(name).unwrap();
    for count in 1.. {
        let beat = beat(count, admin.env.wall().unix_ms() + ahead_ms);
        let beaten = admin.db.run(|tx| async move { registry::beat(&tx, epoch, name, beat).await });
        beaten.await.unwrap();
        admin.env.sleep(Duration::from_millis(20)).await;
    }
}

async fn codes(admin: &Admin, hearts: &[(&str, Epoch, i64)]) -> Vec<String> {
    let beating = hearts.iter().map(|(name, epoch, ahead)| live(admin, name, *epoch, *ahead));
    // Nobody's heart goes on for ever as well.
    let beating = futures_util::future::join_all(beating).then(|_| std::future::pending::<()>());
    tokio::select! {
        () = beating => unreachable!("hearts go on"),
        report = doctor(admin, None) => {
            let report = report.unwrap();
            let is_note = |it: &Finding| it.severity == Severity::Note;
            assert_eq!(report.healthy, report.findings.iter().all(is_note));
            assert!(report.findings.iter().all(|it| !it.advice.is_empty()));
            report.findings.into_iter().map(|it| it.code).collect()
        }
    }
}

#[tokio::test]
async fn a_healthy_node_is_healthy() {
    let admin = memory();
    let a = register(&admin, "a", 0).await;
    assert_eq!(codes(&admin, &[("a", a, 0)]).await, [] as [&str; 0]);
    wish(&admin, "a", registry::Wish::Drain).await.unwrap();
    assert_eq!(codes(&admin, &[("a", a, 0)]).await, ["node_drained"]);
}

#[tokio::test]
async fn dead_and_late_nodes_are_told_apart() {
    let admin = memory();
    let a = register(&admin, "a", 0).await;
    let b = register(&admin, "b", 0).await;
    register(&admin, "c", 0).await;
    end(&admin, b, End::Died).await;
    let settle = |tx: Transaction| async move {
        // As the settler does at its end.
        tx.clear(&kv::tuple::pack(&(kv::Subspace::Node as u64, "d", b.0)));
        Ok(())
    };
    write(&admin, settle).await;
    assert_eq!(codes(&admin, &[("a", a, 0)]).await, ["heartbeat_late", "node_dead"]);
}

#[tokio::test]
async fn nobody_who_serves_is_an_error() {
    let admin = memory();
    assert_eq!(codes(&admin, &[]).await, ["nobody_serves"]);
}

#[tokio::test]
async fn clocks_that_differ_are_told_whichever_way() {
    let admin = memory();
    let a = register(&admin, "a", 0).await;
    let b = register(&admin, "b", 9_000).await;
    assert_eq!(codes(&admin, &[("a", a, 0), ("b", b, 9_000)]).await, ["clocks_apart"]);
    assert_eq!(codes(&admin, &[("a", a, 0), ("b", b, -9_000)]).await, ["clocks_apart"]);
}

#[tokio::test]
async fn different_releases_are_told() {
    let admin = memory();
    let a = register(&admin, "a", 0).await;
    let record =
        &NodeRecord { name: "b".to_owned(), release: "2.0.0".to_owned(), ..NodeRecord::default() };
    let first = beat(0, admin.env.wall().unix_ms());
    let b = write(&admin, |tx| async move { registry::register(&tx, record, first).await }).await;
    assert_eq!(codes(&admin, &[("a", a, 0), ("b", b, 0)]).await, ["releases_differ"]);
}

#[tokio::test]
async fn what_is_not_given_back_for_long_is_told() {
    let admin = memory();
    let a = register(&admin, "a", 0).await;
    let b = register(&admin, "b", 0).await;
    write(&admin, |tx| async move { registry::end(&tx, b, End::Left, 1).await }).await;
    assert_eq!(codes(&admin, &[("a", a, 0)]).await, ["unsettled"]);
    // One that has only just ended is being settled.
    let admin = memory();
    let a = register(&admin, "a", 0).await;
    let b = register(&admin, "b", 0).await;
    end(&admin, b, End::Left).await;
    assert_eq!(codes(&admin, &[("a", a, 0)]).await, [] as [&str; 0]);
}

#[tokio::test]
async fn late_and_failing_work_is_told() {
    let admin = memory();
    let a = register(&admin, "a", 0).await;
    write(&admin, |tx| async move {
        let due = Timestamp::from_unix_ms(1);
        enqueue(&tx, Kind::Outbound, "example.com", due, &7_u32.to_be_bytes(), b"item").await
    })
    .await;
    plant_failure(&admin, "example.com", 7, WORK_FAILURES_NOTED).await;
    assert_eq!(codes(&admin, &[("a", a, 0)]).await, ["work_late", "work_failing"]);
    plant_failure(&admin, "example.com", 7, WORK_FAILURES_NOTED - 1).await;
    assert_eq!(codes(&admin, &[("a", a, 0)]).await, ["work_late"]);
}

#[tokio::test]
async fn listeners_that_are_nobody_are_told() {
    let admin = memory();
    let a = register(&admin, "a", 0).await;
    write(&admin, |tx| async move {
        interest::listen(&tx, AccountId(1), a.into());
        interest::listen(&tx, AccountId(1), ListenerId(99));
        Ok(())
    })
    .await;
    assert_eq!(codes(&admin, &[("a", a, 0)]).await, ["orphaned_listeners"]);
}

#[tokio::test]
async fn a_store_that_fails_is_told() {
    let admin = memory();
    admin.db.faults().set(kv::Faults { reach: kv::Reach::CutOff, ..kv::Faults::default() });
    assert_eq!(codes(&admin, &[]).await, ["store_read_failing", "store_commit_failing"]);
}

#[tokio::test]
async fn certificates_that_expire_are_told() {
    let admin = memory();
    let now = admin.env.wall();
    let in_days = |days: i64| Timestamp::from_unix_seconds(now.unix_seconds() + days * 86_400);
    let date = |days| {
        // Whole days, as the certificate's library takes them.
        let (year, month, day) = date::civil(in_days(days).unix_seconds() / 86_400);
        let (year, month) = (i32::try_from(year).unwrap(), u8::try_from(month).unwrap());
        rcgen::date_time_ymd(year, month, u8::try_from(day).unwrap())
    };
    let plant = async |host: &str, days: i64| {
        let mut params = rcgen::CertificateParams::new([host.to_owned()]).unwrap();
        params.not_after = date(days);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let (chain, key) = (&[made.der().to_vec()], &zeroize::Zeroizing::new(vec![1]));
        let add = |tx: Transaction| async move {
            cluster::certificates::add(&tx, host, chain, key, now).await
        };
        write(&admin, add).await
    };
    let a = register(&admin, "a", 0).await;
    plant("good.example.org", 30).await;
    plant("*.example.org", 40).await;
    assert_eq!(codes(&admin, &[("a", a, 0)]).await, [] as [&str; 0]);
    plant("soon.example.org", 10).await;
    plant("gone.example.org", -10).await;
    let expected = ["certificate_expired", "certificate_expires"];
    assert_eq!(codes(&admin, &[("a", a, 0)]).await, expected);
}

#[tokio::test]
async fn a_nodes_own_certificate_that_expires_is_told() {
    let admin = memory();
    let a = register(&admin, "a", 0).await;
    for (days, expected) in
        [(30, None), (10, Some("certificate_expires")), (-1, Some("certificate_expired"))]
    {
        let mut look = look(&admin).await.unwrap();
        let node = look.registered.get_mut(&a).unwrap();
        node.beat.certificate_until_ms = look.begun.unix_ms() + days * 86_400_000;
        let found = of_certificates(&admin, &look).await.unwrap();
        let codes: Vec<_> = found.iter().map(|finding| &*finding.code).collect();
        assert_eq!(codes, expected.into_iter().collect::<Vec<_>>(), "{days}");
    }
}

#[tokio::test]
async fn keys_whose_records_are_not_as_they_should_be_are_told() {
    let admin = memory();
    let a = register(&admin, "a", 0).await;
    let now = admin.env.wall();
    let key = |number: u64, state, made, found, trouble: &str| {
        let algorithm = cluster::dkim::Algorithm::Ed25519;
        let secret = zeroize::Zeroizing::new(vec![1]);
        let mut key = Key::new(number, format!("s{number}"), algorithm, secret, "p=".into(), made);
        (key.state, key.found, key.trouble) = (state, found, trouble.to_owned());
        key
    };
    let plant = async |keys: &[Key]| {
        let plant = |tx: Transaction| async move {
            cluster::dkim::forget(&tx, "example.org").await?;
            cluster::dkim::write(&tx, "example.org", &[], keys).await?;
            cluster::dkim::tend(&tx, "example.org", now).await
        };
        write(&admin, plant).await;
        codes(&admin, &[("a", a, 0)]).await
    };
    let late = Timestamp::from_unix_ms(
        now.unix_ms() - i64::try_from(crate::limits::DKIM_LATE.as_millis()).unwrap(),
    );
    let healthy = [
        key(1, State::Retired, late, Found::There, ""),
        key(2, State::InUse, late, Found::There, ""),
        key(3, State::InUse, late, Found::Unasked, ""),
        key(4, State::Seen, late, Found::There, ""),
        key(5, State::Wanted, now, Found::Missing, ""),
    ];
    assert_eq!(plant(&healthy).await, [] as [&str; 0]);
    for (ill, code) in [
        (key(1, State::InUse, late, Found::Missing, ""), "dkim_record_gone"),
        (key(1, State::InUse, late, Found::Other, ""), "dkim_record_gone"),
        (key(1, State::Retired, late, Found::There, "REFUSED"), "dkim_record_stays"),
        (key(1, State::Wanted, now, Found::Missing, "REFUSED"), "dkim_update_fails"),
        (key(1, State::Wanted, late, Found::Missing, ""), "dkim_record_wanted"),
    ] {
        assert_eq!(plant(&[ill]).await, [code]);
    }
    let most = cluster::limits::DKIM_KEYS_PER_DOMAIN_MAX as u64;
    let many: Vec<_> =
        (1..=most).map(|number| key(number, State::Retired, late, Found::There, "")).collect();
    assert_eq!(plant(&many[1..]).await, [] as [&str; 0]);
    assert_eq!(plant(&many).await, ["dkim_keys_full"]);
}
