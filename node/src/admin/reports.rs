//! Reports that others sent of mail in our domains' names, and of connections to us.

use mail::StoreError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Admin, AdminError, Page, PageQuery};
use crate::{
    hex::hex,
    judging::received::{self, Hash, ReceivedRecord},
};

/// A report, as a list has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportInfo {
    /// Names it here.
    pub id: String,
    /// `aggregate`, `failure` or `tls`.
    pub kind: String,
    /// When it came, milliseconds since 1970.
    pub received_ms: i64,
    /// Who reports, in their own words.
    pub from: String,
    /// The domain that vouches for its message; empty for what an older release kept.
    #[serde(default)]
    pub vouched_by: String,
    /// The domain that it is about.
    pub domain: String,
    /// From when, milliseconds since 1970; 0 where it does not say.
    pub begin_ms: i64,
    /// To when.
    pub end_ms: i64,
    /// Messages, or connections, that it tells of.
    pub messages: u64,
    /// Those of them that failed.
    pub failed: u64,
}

/// A report with what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportDetail {
    /// What a list has of it.
    #[serde(flatten)]
    pub info: ReportInfo,
    /// Its sender's number for it.
    pub their_id: String,
    /// Rows, policies, or the one report.
    pub details: Value,
    /// Rows that are not kept.
    pub left_out: u64,
}

/// One page of the reports, the latest days' first.
///
/// # Errors
/// [`AdminError::Page`], [`AdminError::Unavailable`].
pub async fn list(admin: &Admin, query: &PageQuery) -> Result<Page<ReportInfo>, AdminError> {
    let rows = query.rows();
    let after = match &query.after {
        Some(text) => Some(parse(text).ok_or_else(|| AdminError::Page(text.clone()))?),
        None => None,
    };
    let found = admin.run(async |tx, _| Ok(received::some(&tx, after, rows).await?)).await?;
    let is_full = found.len() == rows;
    let items: Vec<_> = found.iter().map(|(day, hash, record)| info(*day, hash, record)).collect();
    let next = items.last().filter(|_| is_full).map(|last| last.id.clone());
    Ok(Page { items, next })
}

/// One report.
///
/// # Errors
/// [`AdminError::Missing`].
pub async fn show(admin: &Admin, id: &str) -> Result<ReportDetail, AdminError> {
    let missing = || AdminError::Missing(format!("report {id}"));
    let (day, hash) = parse(id).ok_or_else(missing)?;
    let found = admin.run(async |tx, _| Ok(received::one(&tx, day, &hash).await?)).await?;
    let record = found.ok_or_else(missing)?;
    let details = serde_json::from_str(&record.details)
        .map_err(|error| AdminError::from(StoreError::damaged("received report", error)))?;
    Ok(ReportDetail {
        info: info(day, &hash, &record),
        their_id: record.id.clone(),
        details,
        left_out: record.left_out,
    })
}

fn info(day: i64, hash: &Hash, record: &ReceivedRecord) -> ReportInfo {
    let hash = hex(hash);
    ReportInfo {
        id: format!("{day}-{hash}"),
        kind: record.kind().as_str().to_owned(),
        received_ms: record.received_ms,
        from: record.from.clone(),
        vouched_by: record.vouched_by.clone(),
        domain: record.domain.clone(),
        begin_ms: record.begin_ms,
        end_ms: record.end_ms,
        messages: record.messages,
        failed: record.failed,
    }
}

fn parse(id: &str) -> Option<(i64, Hash)> {
    let (day, hash) = id.split_once('-')?;
    let number = u128::from_str_radix(hash, 16).ok().filter(|_| hash.len() == 32)?;
    Some((day.parse().ok()?, number.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::memory, *};

    #[tokio::test]
    async fn ids_name_reports() {
        let (day, hash) = parse("20780-00ff0000000000000000000000000001").unwrap();
        assert_eq!(
            info(day, &hash, &ReceivedRecord::default()).id,
            "20780-00ff0000000000000000000000000001"
        );
        for bad in [
            "",
            "1",
            "1-ff",
            "x-00ff0000000000000000000000000001",
            "1-+0ff000000000000000000000000001z",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
        let admin = memory();
        assert!(list(&admin, &PageQuery::default()).await.unwrap().items.is_empty());
        assert!(matches!(show(&admin, "1-ff").await, Err(AdminError::Missing(_))));
    }
}
