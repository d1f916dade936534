//! The functions on a memory store, with registrations made by hand.

use std::{future::Future, time::Duration};

use cluster::{
    membership::registry::{Beat, NodeRecord},
    work::{Kind, enqueue},
};
use env::{BoxFuture, Env};
use kv::{Database, Faults, Probability, Reach};

use super::{super::tests::memory, *};
use crate::logs::Then;

/// Runs one transaction.
pub(super) async fn write<T, Fut>(admin: &Admin, body: impl FnMut(Transaction) -> Fut + Send) -> T
where
    Fut: Future<Output = Result<T, mail::StoreError>> + Send,
{
    admin.db.run(body).await.unwrap()
}

/// Registers a node whose clock is ahead by `ahead_ms`.
pub(super) async fn register(admin: &Admin, name: &str, ahead_ms: i64) -> Epoch {
    let now_ms = admin.env.wall().unix_ms();
    let record = &NodeRecord {
        name: name.to_owned(),
        release: "1.0.0".to_owned(),
        since_ms: now_ms,
        ..NodeRecord::default()
    };
    let beat = beat(0, now_ms + ahead_ms);
    write(admin, |tx| async move { registry::register(&tx, record, beat).await }).await
}

pub(super) fn beat(count: u64, wall_ms: i64) -> Beat {
    Beat {
        count,
        time_to_live_ms: 500,
        activity: Activity::Serving as i32,
        sessions: 7,
        claims: 2,
        wall_ms,
        certificate_until_ms: 0,
    }
}

pub(super) async fn end(admin: &Admin, epoch: Epoch, why: End) {
    let now_ms = admin.env.wall().unix_ms();
    write(admin, |tx| async move { registry::end(&tx, epoch, why, now_ms).await }).await;
}

#[tokio::test]
async fn nodes_are_told_by_their_states() {
    let admin = memory();
    register(&admin, "a", 0).await;
    let dead = register(&admin, "b", 0).await;
    let left = register(&admin, "c", 0).await;
    register(&admin, "d", -60_000).await;
    end(&admin, dead, End::Died).await;
    end(&admin, left, End::Left).await;
    let page = nodes(&admin, &PageQuery::default()).await.unwrap();
    let states: Vec<_> = page.items.iter().map(|it| (it.name.as_str(), it.state)).collect();
    let expected = [
        ("a", NodeState::Up),
        ("b", NodeState::Dead),
        ("c", NodeState::Left),
        ("d", NodeState::Silent),
    ];
    assert_eq!(states, expected);
    let [a, b, ..] = &page.items[..] else { panic!("four nodes") };
    assert_eq!((a.sessions, a.claims, a.release.as_str(), a.ended_ms), (7, 2, "1.0.0", None));
    assert_eq!((b.sessions, b.since_ms), (0, None));
    assert!(b.ended_ms.is_some());
    let first = nodes(&admin, &PageQuery { after: None, limit: Some(3) }).await.unwrap();
    assert_eq!(first.next.as_deref(), Some("c"));
    let rest = nodes(&admin, &PageQuery { after: first.next, limit: Some(3) }).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (1, None));
    assert_eq!(rest.items[0].name, "d");
}

#[tokio::test]
async fn wishes_stay_and_the_dead_are_forgotten() {
    let admin = memory();
    let epoch = register(&admin, "a", 0).await;
    assert!(wish(&admin, "A", Wish::Drain).await.unwrap().drain);
    assert!(matches!(wish(&admin, "x", Wish::Drain).await, Err(AdminError::NoNode(_))));
    assert!(matches!(wish(&admin, "x y", Wish::Drain).await, Err(AdminError::NodeName(_))));
    assert!(matches!(forget(&admin, "a").await, Err(AdminError::NodeRuns(_))));
    end(&admin, epoch, End::Died).await;
    register(&admin, "a", 0).await;
    assert!(node(&admin, "a").await.unwrap().drain, "a restart forgets no wish");
    assert!(!wish(&admin, "a", Wish::Serve).await.unwrap().drain);
    let epoch = Epoch(node(&admin, "a").await.unwrap().epoch);
    end(&admin, epoch, End::Left).await;
    forget(&admin, "a").await.unwrap();
    assert!(matches!(forget(&admin, "a").await, Err(AdminError::NoNode(_))));
}

#[tokio::test]
async fn a_forgotten_name_whose_commit_was_not_seen_is_forgotten() {
    let env = Env::system();
    let faults = Faults { commit_unknown: Probability::ALWAYS, ..Faults::default() };
    let admin = Admin { db: Database::memory(env.clone()), env };
    let epoch = register(&admin, "a", 0).await;
    end(&admin, epoch, End::Left).await;
    admin.db.faults().set(faults);
    let clear = async {
        admin.env.sleep(Duration::from_millis(50)).await;
        admin.db.faults().clear();
    };
    let (forgotten, ()) = tokio::join!(forget(&admin, "a"), clear);
    forgotten.unwrap();
}

async fn defer(admin: &Admin, zone: &str, id: u32, due_ms: i64) {
    write(admin, |tx| async move {
        let due = Timestamp::from_unix_ms(due_ms);
        enqueue(&tx, Kind::Outbound, zone, due, &id.to_be_bytes(), b"item").await
    })
    .await;
}

#[tokio::test]
async fn work_is_counted_up_to_a_bound_that_shows() {
    let admin = memory();
    let now_ms = admin.env.wall().unix_ms();
    let bound = u32::try_from(crate::limits::WORK_GLANCE_MAX).unwrap();
    write(&admin, |tx| async move {
        for number in 0..bound + 5 {
            let (zone, due) = (format!("z{number:05}"), Timestamp::from_unix_ms(now_ms - 9_000));
            enqueue(&tx, Kind::Outbound, &zone, due, b"x", b"item").await?;
        }
        Ok(())
    })
    .await;
    let lag = lags(&admin).await.unwrap().into_iter().find(|lag| lag.kind == "outbound").unwrap();
    let at_least = Counted { count: u64::from(bound), at_least: true };
    assert_eq!(lag.due, at_least);
    assert_eq!(lag.due.to_string(), ">=1000");
    assert!((9_000..60_000).contains(&lag.lag_ms), "{}", lag.lag_ms);
    let kinds = kinds(&admin).await.unwrap();
    let exactly = Counted { count: u64::from(bound) + 5, at_least: false };
    assert_eq!((kinds[0].zones, kinds[0].due, kinds[0].items), (exactly, exactly, exactly));
    assert_eq!(kinds[0].oldest_due_ms, Some(now_ms - 9_000));
    let mut query = PageQuery::default();
    let mut seen = Vec::new();
    loop {
        let page = zones(&admin, "outbound", &query).await.unwrap();
        seen.extend(page.items.into_iter().map(|zone| zone.zone));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert!(seen.is_sorted());
    assert_eq!(seen.len(), bound as usize + 5);
    assert!(matches!(zones(&admin, "weeding", &query).await, Err(AdminError::NoKind(_))));
}

#[tokio::test]
async fn a_zones_items_are_shown_with_what_failed() {
    let admin = memory();
    let now_ms = admin.env.wall().unix_ms();
    for id in 0..5 {
        defer(&admin, "example.com", id, now_ms + i64::from(id)).await;
    }
    plant_failure(&admin, "example.com", 3, 4).await;
    let first = PageQuery { after: None, limit: Some(3) };
    let first = items(&admin, "outbound", "example.com", &first).await.unwrap();
    assert_eq!(first.items.len(), 3);
    let query = PageQuery { after: first.next, limit: Some(3) };
    let rest = items(&admin, "outbound", "example.com", &query).await.unwrap();
    assert_eq!(rest.items.len(), 2);
    let failed = &rest.items[0];
    assert_eq!((failed.id.as_str(), failed.failures), ("00000003", 4));
    assert_eq!(failed.reason.as_deref(), Some("the host is away"));
    assert_eq!(rest.items[1].reason, None);
    let bad = PageQuery { after: Some("what".to_owned()), limit: None };
    let bad = items(&admin, "outbound", "example.com", &bad).await;
    assert!(matches!(bad, Err(AdminError::Page(_))));
    let kinds = kinds(&admin).await.unwrap();
    assert_eq!(kinds[0].failing, Counted { count: 1, at_least: false });
    assert_eq!(kinds[0].worst[0].zone, "example.com");
}

/// Notes failures as the runner does.
pub(super) async fn plant_failure(admin: &Admin, zone: &str, id: u32, count: u32) {
    use prost::Message;
    let key = kv::tuple::pack(&(
        kv::Subspace::Work as u64,
        Kind::Outbound as u64,
        "f",
        zone,
        &id.to_be_bytes()[..],
    ));
    let reason = "the host is away".to_owned();
    let failures = cluster::work::Failures { count, last_ms: 1, reason }.encode_to_vec();
    let (key, failures) = (&key, &failures);
    write(admin, |tx| async move {
        tx.set(key, failures);
        Ok(())
    })
    .await;
}

/// Two nodes that answer with sessions of their own making, and one that does not.
#[derive(Debug)]
struct Three;

impl Fleet for Three {
    fn here(&self) -> Option<Epoch> {
        Some(Epoch(1))
    }

    fn list_sessions(
        &self,
        epoch: Epoch,
        filter: SessionFilter,
    ) -> BoxFuture<'_, Result<Vec<SessionInfo>, NotReached>> {
        Box::pin(async move {
            if epoch.0 > 2 {
                return Err(NotReached("it is asleep".to_owned()));
            }
            let ids = (epoch.0 * 100..epoch.0 * 100 + 5).filter(|id| filter.after < Some(*id));
            Ok(ids.take(filter.limit).map(|id| session(epoch, id)).collect())
        })
    }

    fn end_session(
        &self,
        epoch: Epoch,
        id: u64,
    ) -> BoxFuture<'_, Result<Option<SessionInfo>, NotReached>> {
        Box::pin(async move {
            match epoch.0 {
                1 | 2 => Ok((id / 100 == epoch.0).then(|| session(epoch, id))),
                _ => Err(NotReached("it is asleep".to_owned())),
            }
        })
    }

    fn follow_log(
        &self,
        _: Epoch,
        _: crate::logs::LogQuery,
    ) -> BoxFuture<'_, Result<LogFeed, NotReached>> {
        Box::pin(async { Err(NotReached("it is asleep".to_owned())) })
    }
}

fn session(epoch: Epoch, id: u64) -> SessionInfo {
    SessionInfo {
        id: format!("{id:016x}"),
        node: String::new(),
        epoch: epoch.0,
        protocol: "imap".to_owned(),
        peer: "192.0.2.1".to_owned(),
        since_ms: 0,
        account: None,
        address: None,
        bytes_in: 0,
        bytes_out: 0,
    }
}

#[tokio::test]
async fn sessions_of_all_nodes_are_one_list_that_says_what_is_missing() {
    let admin = memory();
    for name in ["a", "b", "c"] {
        register(&admin, name, 0).await;
    }
    let mut query = SessionQuery { limit: Some(3), ..SessionQuery::default() };
    let (mut seen, mut silent) = (Vec::new(), Vec::new());
    loop {
        let page = list_sessions(&admin, &Three, &query).await.unwrap();
        assert!(page.items.len() <= 3);
        seen.extend(page.items.into_iter().map(|it| format!("{} {}", it.node, it.id)));
        silent.extend(page.unanswered);
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 10);
    assert_eq!(seen[0], format!("a {:016x}", 100));
    assert_eq!(seen[9], format!("b {:016x}", 204));
    assert_eq!(silent.len(), 1);
    assert_eq!((silent[0].node.as_str(), silent[0].reason.as_str()), ("c", "it is asleep"));
    let local = SessionQuery { local: Some(String::new()), ..SessionQuery::default() };
    let local = list_sessions(&admin, &Three, &local).await.unwrap();
    assert_eq!((local.items.len(), local.unanswered.len()), (5, 0));
    let bad = SessionQuery { after: Some("x".to_owned()), ..SessionQuery::default() };
    assert!(matches!(list_sessions(&admin, &Three, &bad).await, Err(AdminError::Page(_))));
}

#[tokio::test]
async fn a_session_is_ended_where_it_is() {
    let admin = memory();
    register(&admin, "a", 0).await;
    register(&admin, "b", 0).await;
    let ended = end_session(&admin, &Three, &format!("{:016x}", 203)).await.unwrap();
    assert_eq!(ended.session.node, "b");
    let none = end_session(&admin, &Three, "ff00").await;
    assert!(matches!(none, Err(AdminError::NoSession(_))));
    assert!(matches!(end_session(&admin, &Three, "me").await, Err(AdminError::NoSession(_))));
    register(&admin, "c", 0).await;
    let perhaps = end_session(&admin, &Three, "ff00").await;
    assert!(matches!(perhaps, Err(AdminError::Unanswered(_, nodes)) if nodes == "c"));
}

#[tokio::test]
async fn a_status_tells_what_is_wrong() {
    let admin = memory();
    let status_of = async |admin: &Admin| status(admin, None, None).await.unwrap();
    assert_eq!(status_of(&admin).await.problems, ["no node serves"]);
    register(&admin, "a", 0).await;
    assert_eq!(status_of(&admin).await.problems, [] as [String; 0]);
    let dead = register(&admin, "b", 0).await;
    end(&admin, dead, End::Died).await;
    assert_eq!(status_of(&admin).await.problems, ["node b is dead"]);
    let away = Faults { reach: Reach::CutOff, ..Faults::default() };
    admin.db.faults().set(away);
    let told = status_of(&admin).await;
    assert!(told.nodes.is_empty());
    assert!(told.problems[0].starts_with("the store's reads: failing"), "{:?}", told.problems);
}

/// What somebody who asks for the logs of nodes that do not answer is told, up to `count` events.
async fn told_of_logs(admin: &Admin, nodes: &[&str], then: Then, count: usize) -> Vec<LogEvent> {
    let fleet: std::sync::Arc<dyn Fleet> = std::sync::Arc::new(Three);
    let nodes = nodes.iter().map(|name| (*name).to_owned()).collect();
    let request = LogRequest { nodes, lines: 5, level: crate::logs::Level::Info, then };
    let following = Following::new(admin, &fleet, request).await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::channel(9);
    let listen = async {
        let mut events = Vec::new();
        while events.len() < count
            && let Some(event) = told.recv().await
        {
            events.push(event);
        }
        // Nobody listens any more.
        drop(told);
        events
    };
    tokio::join!(following.run(tell), listen).1
}

#[tokio::test]
async fn nodes_whose_logs_cannot_be_read_are_told_once() {
    let admin = memory();
    let a = register(&admin, "a", 0).await;
    register(&admin, "b", 0).await;
    let gone = |node: &str, reason: &str| LogEvent::Gone {
        node: node.to_owned(),
        reason: reason.to_owned(),
    };
    let asleep = "it is asleep";
    let events = told_of_logs(&admin, &[], Then::End, 9).await;
    assert_eq!(events, [gone("a", asleep), gone("b", asleep)]);
    assert_eq!(told_of_logs(&admin, &["b"], Then::End, 9).await, [gone("b", asleep)]);
    end(&admin, a, End::Left).await;
    assert_eq!(told_of_logs(&admin, &["a"], Then::End, 9).await, [gone("a", "it does not run")]);
    // Followed, a node that comes is told of, and none that stays asleep is told of twice.
    let coming = async {
        admin.env.sleep(crate::limits::LOG_ROSTER_PERIOD * 3 / 2).await;
        register(&admin, "c", 0).await;
    };
    let (events, ()) = tokio::join!(told_of_logs(&admin, &[], Then::Follow, 2), coming);
    assert_eq!(events, [gone("b", asleep), gone("c", asleep)]);
    let fleet: std::sync::Arc<dyn Fleet> = std::sync::Arc::new(Three);
    let request = LogRequest {
        nodes: vec!["z".to_owned()],
        lines: 1,
        level: crate::logs::Level::Info,
        then: Then::End,
    };
    let refused = Following::new(&admin, &fleet, request).await;
    assert!(matches!(refused, Err(AdminError::NoNode(_))));
}
