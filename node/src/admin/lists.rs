//! Aliases and groups.

use mail::{
    directory::{self, Address, ListKind},
    keys::directory::Target,
};
use serde::{Deserialize, Serialize};

use super::{Admin, AdminError, Page, PageQuery};
use crate::names;

/// Rows of the directory that one page of a list looks through, so that a store with many
/// accounts and few aliases still answers in bounded time.
const SCAN_ROWS_MAX: usize = 5000;

/// An alias or a group, as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListInfo {
    /// Its address.
    pub address: String,
    /// An alias's targets or a group's members.
    pub members: Vec<String>,
}

/// A member comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// It is a member from now on.
    Add,
    /// It is none from now on.
    Remove,
}

/// Makes an alias or a group.
///
/// # Errors
/// [`AdminError::Exists`], [`AdminError::Missing`] for the domain, [`AdminError::NoTarget`],
/// [`AdminError::TooMany`].
pub async fn add(
    admin: &Admin,
    kind: ListKind,
    address: &str,
    members: &[String],
) -> Result<ListInfo, AdminError> {
    let address = &names::address(address)?;
    let members =
        &members.iter().map(|name| names::address(name)).collect::<Result<Vec<_>, _>>()?;
    if kind == ListKind::Alias && members.is_empty() {
        return Err(AdminError::NoTarget(address.to_string()));
    }
    admin
        .run(async |tx, run| {
            let added = directory::add_list(&tx, address, kind, members).await;
            run.settle(added.map_err(AdminError::from), |error| {
                matches!(error, AdminError::Exists(_))
            })?;
            info(address, directory::record(&tx, address).await?, kind)
        })
        .await
}

/// One page of the aliases or groups, in order of domain and local part. A page can be short, or
/// empty, and still not be the last.
///
/// # Errors
/// [`AdminError::Page`].
pub async fn list(
    admin: &Admin,
    kind: ListKind,
    query: &PageQuery,
) -> Result<Page<ListInfo>, AdminError> {
    let bad = |text: &str| AdminError::Page(text.to_owned());
    let after = query
        .after
        .as_deref()
        .map(|text| Address::parse(text).map_err(|_| bad(text)))
        .transpose()?;
    let rows = query.rows();
    let scanned = admin
        .run(async |tx, _| Ok(directory::addresses(&tx, after.as_ref(), SCAN_ROWS_MAX).await?))
        .await?;
    let mut last_row = (scanned.len() == SCAN_ROWS_MAX)
        .then(|| scanned.last().map(|(address, _)| address.to_string()))
        .flatten();
    let mut items = Vec::new();
    for (address, target) in scanned {
        if items.len() == rows {
            last_row = items.last().map(|item: &ListInfo| item.address.clone());
            break;
        }
        if let Ok(item) = info(&address, Some(target), kind) {
            items.push(item);
        }
    }
    Ok(Page { items, next: last_row })
}

/// One alias or group.
///
/// # Errors
/// [`AdminError::Missing`], [`AdminError::OtherKind`].
pub async fn show(admin: &Admin, kind: ListKind, address: &str) -> Result<ListInfo, AdminError> {
    let address = &names::address(address)?;
    admin.run(async |tx, _| info(address, directory::record(&tx, address).await?, kind)).await
}

/// Removes an alias or a group.
///
/// # Errors
/// [`AdminError::Missing`], [`AdminError::OtherKind`].
pub async fn remove(admin: &Admin, kind: ListKind, address: &str) -> Result<(), AdminError> {
    let address = &names::address(address)?;
    admin
        .run(async |tx, run| {
            let removed = directory::remove_list(&tx, address, kind).await;
            run.settle(removed.map_err(AdminError::from), |error| {
                matches!(error, AdminError::Missing(_))
            })
        })
        .await
}

/// Adds or removes one member; nothing changes where it is one, or none, already.
///
/// # Errors
/// [`AdminError::Missing`], [`AdminError::OtherKind`], [`AdminError::TooMany`], and
/// [`AdminError::NoTarget`] for an alias's last target.
pub async fn change_member(
    admin: &Admin,
    kind: ListKind,
    address: &str,
    change: MemberChange,
    member: &str,
) -> Result<ListInfo, AdminError> {
    let address = &names::address(address)?;
    let member = &[names::address(member)?];
    let (add, remove): (&[Address], &[Address]) = match change {
        MemberChange::Add => (member, &[]),
        MemberChange::Remove => (&[], member),
    };
    admin
        .run(async |tx, _| {
            directory::change_list(&tx, address, kind, add, remove).await?;
            let changed = info(address, directory::record(&tx, address).await?, kind)?;
            if kind == ListKind::Alias && changed.members.is_empty() {
                return Err(AdminError::NoTarget(address.to_string()));
            }
            Ok(changed)
        })
        .await
}

fn info(address: &Address, target: Option<Target>, kind: ListKind) -> Result<ListInfo, AdminError> {
    match (target, kind) {
        (Some(Target::Alias(list)), ListKind::Alias)
        | (Some(Target::Group(list)), ListKind::Group) => {
            Ok(ListInfo { address: address.to_string(), members: list.addresses })
        }
        (Some(_), ListKind::Alias) => Err(AdminError::OtherKind(address.to_string(), "an alias")),
        (Some(_), ListKind::Group) => Err(AdminError::OtherKind(address.to_string(), "a group")),
        (None, _) => Err(AdminError::Missing(address.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{domains, tests::memory},
        *,
    };

    async fn with_domain() -> Admin {
        let admin = memory();
        domains::add(&admin, "example.org").await.unwrap();
        admin
    }

    #[tokio::test]
    async fn members_come_and_go() {
        let admin = with_domain().await;
        let kind = ListKind::Group;
        add(&admin, kind, "Team@example.org", &[]).await.unwrap();
        for member in ["b@example.com", "A@example.com", "a@example.com"] {
            change_member(&admin, kind, "team@example.org", MemberChange::Add, member)
                .await
                .unwrap();
        }
        let shown = show(&admin, kind, "team@example.org").await.unwrap();
        assert_eq!(shown.members, ["a@example.com", "b@example.com"]);
        let left =
            change_member(&admin, kind, "team@example.org", MemberChange::Remove, "a@example.com");
        assert_eq!(left.await.unwrap().members, ["b@example.com"]);
        remove(&admin, kind, "team@example.org").await.unwrap();
        let gone = show(&admin, kind, "team@example.org").await;
        assert!(matches!(gone, Err(AdminError::Missing(_))));
    }

    #[tokio::test]
    async fn an_alias_keeps_a_target() {
        let admin = with_domain().await;
        let kind = ListKind::Alias;
        let none = add(&admin, kind, "info@example.org", &[]).await;
        assert!(matches!(none, Err(AdminError::NoTarget(_))));
        add(&admin, kind, "info@example.org", &["a@example.com".to_owned()]).await.unwrap();
        let emptied =
            change_member(&admin, kind, "info@example.org", MemberChange::Remove, "a@example.com");
        assert!(matches!(emptied.await, Err(AdminError::NoTarget(_))));
        let kept = show(&admin, kind, "info@example.org").await.unwrap();
        assert_eq!(kept.members, ["a@example.com"]);
    }

    #[tokio::test]
    async fn the_other_kind_is_left_alone() {
        let admin = with_domain().await;
        let to = ["a@example.com".to_owned()];
        add(&admin, ListKind::Alias, "info@example.org", &to).await.unwrap();
        let wrong = remove(&admin, ListKind::Group, "info@example.org").await;
        assert!(matches!(wrong, Err(AdminError::OtherKind(_, "a group"))));
        let wrong = show(&admin, ListKind::Group, "info@example.org").await;
        assert!(matches!(wrong, Err(AdminError::OtherKind(_, "a group"))));
        let taken = add(&admin, ListKind::Group, "info@example.org", &to).await;
        assert!(matches!(taken, Err(AdminError::Exists(_))));
        let nowhere = add(&admin, ListKind::Group, "info@example.com", &to).await;
        assert!(matches!(nowhere, Err(AdminError::Missing(_))));
    }

    #[tokio::test]
    async fn lists_are_paged() {
        let admin = with_domain().await;
        let to = ["x@example.com".to_owned()];
        for name in ["a", "b", "c"] {
            add(&admin, ListKind::Alias, &format!("{name}@example.org"), &to).await.unwrap();
            add(&admin, ListKind::Group, &format!("{name}-group@example.org"), &to).await.unwrap();
        }
        let mut query = PageQuery { after: None, limit: Some(2) };
        let first = list(&admin, ListKind::Alias, &query).await.unwrap();
        let names = |page: &Page<ListInfo>| {
            page.items.iter().map(|item| item.address.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&first), ["a@example.org", "b@example.org"]);
        query.after = first.next;
        let second = list(&admin, ListKind::Alias, &query).await.unwrap();
        assert_eq!(names(&second), ["c@example.org"]);
        assert_eq!(second.next, None);
        query.after = Some("nonsense".to_owned());
        let bad = list(&admin, ListKind::Alias, &query).await;
        assert!(matches!(bad, Err(AdminError::Page(_))));
    }
}
