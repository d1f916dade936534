//! Domains that we take mail for.

use mail::{directory, keys::directory::Domain};
use serde::{Deserialize, Serialize};

use super::{Admin, AdminError, Page, PageQuery, dkim};
use crate::names;

/// A domain, as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainInfo {
    /// Its name, in A-labels.
    pub domain: String,
    /// Where mail goes whose address does not exist.
    pub catch_all: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub created_ms: i64,
}

impl DomainInfo {
    fn new(domain: String, record: Domain) -> Self {
        Self { domain, catch_all: record.catch_all, created_ms: record.created_ms }
    }
}

pub(super) async fn read(tx: &kv::Transaction, domain: &str) -> Result<DomainInfo, AdminError> {
    Ok(DomainInfo::new(domain.to_owned(), directory::domain(tx, domain).await?))
}

/// Adds a domain, without keys to sign by: [`dkim::add_domain`] makes those.
///
/// # Errors
/// [`AdminError::Name`], [`AdminError::Exists`].
pub async fn add(admin: &Admin, domain: &str) -> Result<DomainInfo, AdminError> {
    let domain = &names::domain(domain)?;
    let now = admin.env.wall();
    admin
        .run(async |tx, run| {
            let added = directory::add_domain(&tx, domain, now).await.map_err(AdminError::from);
            run.settle(added, |error| matches!(error, AdminError::Exists(_)))?;
            let record = directory::domain(&tx, domain).await?;
            Ok(DomainInfo::new(domain.clone(), record))
        })
        .await
}

/// One page of the domains, in order of their names.
///
/// # Errors
/// [`AdminError::Unavailable`].
pub async fn list(admin: &Admin, query: &PageQuery) -> Result<Page<DomainInfo>, AdminError> {
    let rows = query.rows();
    let found = admin
        .run(async |tx, _| Ok(directory::domains(&tx, query.after.as_deref(), rows).await?))
        .await?;
    let next = (found.len() == rows).then(|| found.last().map(|(name, _)| name.clone())).flatten();
    let items = found.into_iter().map(|(name, record)| DomainInfo::new(name, record)).collect();
    Ok(Page { items, next })
}

/// One domain.
///
/// # Errors
/// [`AdminError::Missing`].
pub async fn show(admin: &Admin, domain: &str) -> Result<DomainInfo, AdminError> {
    let domain = &names::domain(domain)?;
    admin
        .run(async |tx, _| {
            Ok(DomainInfo::new(domain.clone(), directory::domain(&tx, domain).await?))
        })
        .await
}

/// Removes a domain that has no address left.
///
/// # Errors
/// [`AdminError::Missing`], [`AdminError::InUse`].
pub async fn remove(admin: &Admin, domain: &str) -> Result<(), AdminError> {
    let domain = &names::domain(domain)?;
    admin
        .run(async |tx, run| {
            let removed = directory::remove_domain(&tx, domain).await.map_err(AdminError::from);
            if removed.is_ok() {
                dkim::forget(&tx, domain).await?;
            }
            run.settle(removed, |error| matches!(error, AdminError::Missing(_)))
        })
        .await
}

/// Says where mail goes whose address does not exist; `None` refuses it again.
///
/// # Errors
/// [`AdminError::Missing`], [`AdminError::Name`].
pub async fn set_catch_all(
    admin: &Admin,
    domain: &str,
    target: Option<&str>,
) -> Result<DomainInfo, AdminError> {
    let domain = &names::domain(domain)?;
    let target = &target.map(names::address).transpose()?.map(|target| target.to_string());
    admin
        .run(async |tx, _| {
            let mut record = directory::domain(&tx, domain).await?;
            record.catch_all.clone_from(target);
            directory::set_domain(&tx, domain, &record);
            Ok(DomainInfo::new(domain.clone(), record))
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::{super::tests::memory, *};

    #[tokio::test]
    async fn domains_come_and_go() {
        let admin = memory();
        add(&admin, "B.example").await.unwrap();
        add(&admin, "a.example").await.unwrap();
        assert!(matches!(add(&admin, "b.example").await, Err(AdminError::Exists(_))));
        assert!(matches!(add(&admin, "b example").await, Err(AdminError::Name(_))));
        let first = list(&admin, &PageQuery { after: None, limit: Some(1) }).await.unwrap();
        assert_eq!(first.items[0].domain, "a.example");
        assert_eq!(first.next.as_deref(), Some("a.example"));
        let second = list(&admin, &PageQuery { after: first.next, limit: None }).await.unwrap();
        assert_eq!(second.items.len(), 1);
        assert_eq!((second.items[0].domain.as_str(), second.next), ("b.example", None));
        remove(&admin, "a.example").await.unwrap();
        assert!(matches!(remove(&admin, "a.example").await, Err(AdminError::Missing(_))));
        assert!(matches!(show(&admin, "a.example").await, Err(AdminError::Missing(_))));
    }

    #[tokio::test]
    async fn a_domain_with_addresses_stays() {
        let admin = memory();
        add(&admin, "example.org").await.unwrap();
        let kind = mail::directory::ListKind::Alias;
        let to = ["bob@example.com".to_owned()];
        super::super::lists::add(&admin, kind, "info@example.org", &to).await.unwrap();
        assert!(matches!(remove(&admin, "example.org").await, Err(AdminError::InUse(_))));
    }

    #[tokio::test]
    async fn the_catch_all_is_set_and_unset() {
        let admin = memory();
        add(&admin, "example.org").await.unwrap();
        let info = set_catch_all(&admin, "example.org", Some("Bob@example.org")).await.unwrap();
        assert_eq!(info.catch_all.as_deref(), Some("bob@example.org"));
        assert_eq!(show(&admin, "example.org").await.unwrap(), info);
        set_catch_all(&admin, "example.org", None).await.unwrap();
        assert_eq!(show(&admin, "example.org").await.unwrap().catch_all, None);
        let missing = set_catch_all(&admin, "example.com", None).await;
        assert!(matches!(missing, Err(AdminError::Missing(_))));
    }
}
