//! Domains and addresses.

use std::collections::BTreeSet;

use kv::Database;
use mail::{
    AccountId,
    directory::{
        self, Address, BadAddress, DirectoryError, Expansion, ListKind, ResolveError, add_list,
        change_list, owns, remove_list, resolve,
    },
    keys::directory::{Domain, Target},
    limits,
};

use crate::fixture::{Fixture, NOW, new_account};

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn list(texts: &[&str]) -> Vec<Address> {
    texts.iter().map(|text| address(text)).collect()
}

/// bob and ann, and a directory around them.
async fn town() -> (Fixture, AccountId, AccountId) {
    let fixture = Fixture::new().await;
    let ann = new_account(&fixture.db, &fixture.env, "ann@example.org", 0).await;
    for (name, kind, members) in [
        ("robert", ListKind::Alias, &["bob@example.org"][..]),
        ("rob", ListKind::Alias, &["robert@example.org"]),
        ("both", ListKind::Group, &["bob@example.org", "ann@example.org"]),
        ("all", ListKind::Group, &["both@example.org", "rob@example.org", "x@far.org"]),
        ("loop1", ListKind::Alias, &["loop2@example.org"]),
        ("loop2", ListKind::Alias, &["loop1@example.org"]),
        ("stale", ListKind::Group, &["nobody@example.org", "ann@example.org"]),
        ("away", ListKind::Alias, &["me@far.org"]),
        ("desk", ListKind::Alias, &["bob+desk@example.org", "ann@example.org"]),
        ("empty", ListKind::Group, &[]),
    ] {
        let tx = fixture.db.begin();
        let name = address(&format!("{name}@example.org"));
        add_list(&tx, &name, kind, &list(members)).await.unwrap();
        tx.commit().await.unwrap();
    }
    let bob = fixture.account;
    (fixture, bob, ann)
}

async fn resolved(db: &Database, text: &str) -> Result<Expansion, ResolveError> {
    resolve(&db.begin(), &address(text)).await
}

#[tokio::test]
async fn addresses_lead_to_accounts_and_elsewhere() {
    let (fixture, bob, ann) = town().await;
    for (text, accounts, remote) in [
        ("bob@example.org", &[bob][..], &[][..]),
        ("BOB@Example.ORG", &[bob], &[]),
        ("bob+lists+more@example.org", &[bob], &[]),
        ("robert@example.org", &[bob], &[]),
        ("rob+tag@example.org", &[bob], &[]),
        ("both@example.org", &[bob, ann], &[]),
        ("all@example.org", &[bob, ann], &["x@far.org"]),
        ("stale@example.org", &[ann], &[]),
        ("away@example.org", &[], &["me@far.org"]),
        ("desk@example.org", &[bob, ann], &[]),
    ] {
        let expected = Expansion {
            accounts: accounts.iter().copied().collect(),
            remote: remote.iter().map(|text| (*text).to_owned()).collect(),
        };
        assert_eq!(resolved(&fixture.db, text).await.unwrap(), expected, "{text}");
    }
    for text in ["nobody@example.org", "loop1@example.org", "empty@example.org", "+@example.org"] {
        let found = resolved(&fixture.db, text).await;
        assert!(matches!(found, Err(ResolveError::Unknown(_))), "{text}");
    }
    let found = resolved(&fixture.db, "bob@far.org").await;
    assert!(matches!(found, Err(ResolveError::NotLocal(domain)) if domain == "far.org"));
}

#[tokio::test]
async fn a_catch_all_takes_what_nobody_else_does() {
    let (fixture, bob, ann) = town().await;
    for (catch_all, expected) in [
        ("ann@example.org", Some(ann)),
        ("rob@example.org", Some(bob)),
        ("nobody@example.org", None),
    ] {
        let tx = fixture.db.begin();
        let record = Domain { catch_all: Some(catch_all.to_owned()), created_ms: 0 };
        directory::set_domain(&tx, "EXAMPLE.org", &record);
        tx.commit().await.unwrap();
        let found = resolved(&fixture.db, "whoever@example.org").await.ok();
        let found = found.map(|found| found.accounts.into_iter().collect::<Vec<_>>());
        assert_eq!(found, expected.map(|account| vec![account]), "{catch_all}");
        let own = resolved(&fixture.db, "bob@example.org").await.unwrap();
        assert_eq!(own.accounts, BTreeSet::from([bob]));
    }
}

#[tokio::test]
async fn expansion_is_bounded_in_steps_and_in_number() {
    let (fixture, bob, _) = town().await;
    let tx = fixture.db.begin();
    for i in 0..=limits::ALIAS_DEPTH_MAX {
        let next =
            if i == 0 { "bob@example.org".to_owned() } else { format!("a{}@example.org", i - 1) };
        let name = address(&format!("a{i}@example.org"));
        add_list(&tx, &name, ListKind::Alias, &[address(&next)]).await.unwrap();
    }
    // Groups of groups: a million names behind one address.
    let inner = |i: usize| -> Vec<Address> {
        (0..limits::GROUP_MEMBERS_MAX).map(|j| address(&format!("m{i}.{j}@far.org"))).collect()
    };
    let groups: Vec<Address> = (0..3).map(|i| address(&format!("g{i}@example.org"))).collect();
    for (i, group) in groups.iter().enumerate() {
        add_list(&tx, group, ListKind::Group, &inner(i)).await.unwrap();
    }
    add_list(&tx, &address("huge@example.org"), ListKind::Group, &groups).await.unwrap();
    tx.commit().await.unwrap();
    let last = limits::ALIAS_DEPTH_MAX - 1;
    let found = resolved(&fixture.db, &format!("a{last}@example.org")).await.unwrap();
    assert_eq!(found.accounts, BTreeSet::from([bob]));
    for text in [format!("a{}@example.org", last + 1), "huge@example.org".to_owned()] {
        let found = resolved(&fixture.db, &text).await;
        assert!(matches!(found, Err(ResolveError::TooMany(_))), "{text}");
    }
    let tx = fixture.db.begin();
    let many: Vec<Address> =
        (0..=limits::GROUP_MEMBERS_MAX).map(|i| address(&format!("{i}@far.org"))).collect();
    let refused = add_list(&tx, &address("n@example.org"), ListKind::Group, &many).await;
    assert!(matches!(refused, Err(DirectoryError::TooMany)));
    let domain = "d".repeat(250);
    let long: Vec<Address> =
        (0..limits::GROUP_MEMBERS_MAX).map(|i| address(&format!("{i}@{domain}"))).collect();
    let refused = add_list(&tx, &address("n@example.org"), ListKind::Group, &long).await;
    assert!(matches!(refused, Err(DirectoryError::TooMany)), "one value must hold them");
}

#[tokio::test]
async fn who_sends_as_whom_and_who_logs_in() {
    let (fixture, bob, ann) = town().await;
    let tx = fixture.db.begin();
    for (text, expected) in [
        ("bob@example.org", true),
        ("bob+x@example.org", true),
        ("robert@example.org", true),
        ("robert+x@example.org", true),
        ("desk@example.org", true),
        ("rob@example.org", false),
        ("ann@example.org", false),
        ("both@example.org", false),
        ("nobody@example.org", false),
        ("bob@far.org", false),
    ] {
        assert_eq!(owns(&tx, bob, &address(text)).await.unwrap(), expected, "{text}");
    }
    for (text, expected) in [
        ("ann@example.org", Some(ann)),
        ("robert@example.org", Some(bob)),
        ("desk@example.org", None),
        ("both@example.org", None),
        ("away@example.org", None),
        ("bob+x@example.org", None),
        ("nobody@example.org", None),
    ] {
        assert_eq!(directory::login(&tx, &address(text)).await.unwrap(), expected, "{text}");
    }
}

#[tokio::test]
async fn lists_and_domains_are_kept() {
    let (fixture, ..) = town().await;
    let tx = fixture.db.begin();
    let both = address("both@example.org");
    let refused = add_list(&tx, &both, ListKind::Group, &[]).await;
    assert!(matches!(refused, Err(DirectoryError::Exists(_))));
    let refused = add_list(&tx, &address("a@far.org"), ListKind::Group, &[]).await;
    assert!(matches!(refused, Err(DirectoryError::Missing(_))));
    let refused = change_list(&tx, &both, ListKind::Alias, &[], &[]).await;
    assert!(matches!(refused, Err(DirectoryError::OtherKind(..))));
    let refused = remove_list(&tx, &address("bob@example.org"), ListKind::Alias).await;
    assert!(matches!(refused, Err(DirectoryError::OtherKind(..))));
    let (add, remove) = (list(&["z@far.org"]), list(&["bob@example.org", "no@far.org"]));
    change_list(&tx, &both, ListKind::Group, &add, &remove).await.unwrap();
    let Some(Target::Group(members)) = directory::record(&tx, &both).await.unwrap() else {
        panic!("a group")
    };
    assert_eq!(members.addresses, ["ann@example.org", "z@far.org"]);
    remove_list(&tx, &both, ListKind::Group).await.unwrap();
    assert_eq!(directory::record(&tx, &both).await.unwrap(), None);
    let refused = remove_list(&tx, &both, ListKind::Group).await;
    assert!(matches!(refused, Err(DirectoryError::Missing(_))));

    directory::add_domain(&tx, "Second.org", NOW).await.unwrap();
    assert!(directory::is_local(&tx, "second.ORG").await.unwrap());
    let refused = directory::add_domain(&tx, "SECOND.org", NOW).await;
    assert!(matches!(refused, Err(DirectoryError::Exists(_))));
    let refused = directory::remove_domain(&tx, "example.org").await;
    assert!(matches!(refused, Err(DirectoryError::InUse(_))));
    let page = directory::domains(&tx, Some("example.org"), 9).await.unwrap();
    assert_eq!(page.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["second.org"]);
    directory::remove_domain(&tx, "Second.org").await.unwrap();
    assert!(matches!(directory::domain(&tx, "second.org").await, Err(DirectoryError::Missing(_))));
    let mut all = Vec::new();
    loop {
        let page = directory::addresses(&tx, all.last(), 4).await.unwrap();
        if page.is_empty() {
            break;
        }
        all.extend(page.into_iter().map(|(address, _)| address));
    }
    assert_eq!(all.len(), 11);
    assert!(all.is_sorted());
}

#[test]
fn addresses_are_split_and_folded() {
    let held = address("Bob+Tag@Example.ORG");
    assert_eq!((held.local(), held.domain()), ("bob+tag", "example.org"));
    assert_eq!(held.without_tag(), Some(address("bob@example.org")));
    assert_eq!(address("bob@x").without_tag(), None);
    assert_eq!(address("+x@x").without_tag(), None);
    let long_local = format!("{}@x", "a".repeat(65));
    let long_domain = format!("a@{}", "a".repeat(256));
    for bad in ["", "@", "a@", "@b", "a", "a b@c", "a@b\r\n", &long_local, &long_domain] {
        assert_eq!(Address::parse(bad), Err(BadAddress), "{bad:?}");
    }
}
