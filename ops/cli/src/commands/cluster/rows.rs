//! Rows of the cluster's tables.

use env::Env;
use node::admin::cluster::{ItemInfo, NodeInfo, SessionInfo, WorkInfo, WorkLag, ZoneInfo};

use crate::output::Row;

fn now_ms() -> i64 {
    Env::system().wall().unix_ms()
}

/// A span of time as people say it, its largest unit alone.
pub(super) fn span(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let seconds = ms.unsigned_abs() / 1_000;
    match seconds {
        0..120 => format!("{sign}{seconds}s"),
        120..7_200 => format!("{sign}{}m", seconds / 60),
        7_200..172_800 => format!("{sign}{}h", seconds / 3_600),
        _ => format!("{sign}{}d", seconds / 86_400),
    }
}

fn or_dash(text: Option<String>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned())
}

pub(in crate::commands) fn ago(at_ms: Option<i64>) -> String {
    or_dash(at_ms.map(|at| span(now_ms().saturating_sub(at))))
}

/// How long it is until then; with a minus where that is past.
pub(in crate::commands) fn until(at_ms: i64) -> String {
    span(at_ms.saturating_sub(now_ms()))
}

impl Row for NodeInfo {
    const HEADER: &'static [&'static str] = &[
        "NODE", "STATE", "RELEASE", "EPOCH", "SINCE", "BEAT", "SESSIONS", "CLAIMS", "ADDRESS",
        "ADMIN",
    ];
    fn cells(&self) -> Vec<String> {
        let state = match self.drain {
            true => format!("{} (told to drain)", self.state.as_str()),
            false => self.state.as_str().to_owned(),
        };
        vec![
            self.name.clone(),
            state,
            self.release.clone(),
            self.epoch.to_string(),
            ago(self.since_ms.or(self.ended_ms)),
            or_dash(self.beat_age_ms.map(span)),
            self.sessions.to_string(),
            self.claims.to_string(),
            or_dash(Some(self.address.clone())),
            or_dash(Some(self.admin_address.clone())),
        ]
    }
}

impl Row for WorkLag {
    const HEADER: &'static [&'static str] = &["WORK", "DUE", "LATE", "CLAIMED", "FAILING"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.kind.clone(),
            self.due.to_string(),
            span(i64::try_from(self.lag_ms).unwrap_or(i64::MAX)),
            self.claimed.to_string(),
            self.failing.to_string(),
        ]
    }
}

impl Row for WorkInfo {
    const HEADER: &'static [&'static str] =
        &["WORK", "ZONES", "DUE", "OLDEST", "ITEMS", "FAILING", "CLAIMED BY"];
    fn cells(&self) -> Vec<String> {
        let by: Vec<_> = self
            .claimed
            .iter()
            .map(|it| {
                let node = it.node.clone().unwrap_or_else(|| format!("epoch {}", it.epoch));
                format!("{node}: {}", it.zones)
            })
            .collect();
        vec![
            self.kind.clone(),
            self.zones.to_string(),
            self.due.to_string(),
            ago(self.oldest_due_ms),
            self.items.to_string(),
            self.failing.to_string(),
            or_dash(Some(by.join(", "))),
        ]
    }
}

impl Row for ZoneInfo {
    const HEADER: &'static [&'static str] = &["ZONE", "DUE IN", "CLAIMED BY", "ITEMS", "FAILING"];
    fn cells(&self) -> Vec<String> {
        let by = self.node.clone().or(self.epoch.map(|epoch| format!("epoch {epoch}")));
        vec![
            self.zone.clone(),
            or_dash(self.due_ms.map(|due| span(due.saturating_sub(now_ms())))),
            or_dash(by),
            self.items.to_string(),
            self.failing.to_string(),
        ]
    }
}

impl Row for ItemInfo {
    const HEADER: &'static [&'static str] = &["ITEM", "DUE IN", "FAILURES", "LAST", "REASON"];
    fn cells(&self) -> Vec<String> {
        vec![
            or_dash(Some(self.id.clone())),
            span(self.due_ms.saturating_sub(now_ms())),
            self.failures.to_string(),
            ago(self.last_failed_ms),
            or_dash(self.reason.clone()),
        ]
    }
}

impl Row for SessionInfo {
    const HEADER: &'static [&'static str] =
        &["SESSION", "NODE", "PROTOCOL", "PEER", "SINCE", "ACCOUNT", "IN", "OUT"];
    fn cells(&self) -> Vec<String> {
        let account = self.address.clone().or(self.account.map(|id| format!("account {id}")));
        vec![
            self.id.clone(),
            self.node.clone(),
            self.protocol.clone(),
            self.peer.clone(),
            ago(Some(self.since_ms)),
            or_dash(account),
            self.bytes_in.to_string(),
            self.bytes_out.to_string(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_one_unit() {
        for (ms, expected) in [
            (0, "0s"),
            (-1_500, "-1s"),
            (119_999, "119s"),
            (120_000, "2m"),
            (7_200_000, "2h"),
            (200_000_000, "2d"),
        ] {
            assert_eq!(span(ms), expected);
        }
    }
}
