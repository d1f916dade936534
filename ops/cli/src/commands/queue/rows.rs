//! The queue's tables.

use node::admin::queue::{
    DomainStats, Ordered, QueueStats, QueuedInfo, QueuedMessage, QueuedRecipient, QueuedShare,
};

use crate::{
    commands::cluster::rows::{ago, until},
    output::Row,
    size::Bytes,
};

fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

fn sender(text: &str) -> String {
    if text.is_empty() { "<>".to_owned() } else { text.to_owned() }
}

/// A server's words on one line, as far as a table has room.
fn short(words: Option<&str>) -> String {
    const MOST: usize = 80;
    let words = or_dash(words).split_whitespace().collect::<Vec<_>>().join(" ");
    let clean: String = words.chars().filter(|c| !c.is_control()).collect();
    match clean.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &clean[..at]),
        None => clean,
    }
}

impl Row for QueuedInfo {
    const HEADER: &'static [&'static str] = &[
        "ID",
        "SENDER",
        "DOMAIN",
        "RCPTS",
        "SIZE",
        "AGE",
        "STATE",
        "TRIES",
        "DUE IN",
        "LAST ERROR",
    ];
    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.sender.as_deref().map_or_else(|| "?".to_owned(), sender),
            self.domain.clone(),
            self.recipients.to_string(),
            Bytes(self.size).to_string(),
            ago(Some(self.received_ms)),
            self.state.as_str().to_owned(),
            self.tries.to_string(),
            self.due_ms.map_or_else(|| "-".to_owned(), until),
            short(self.error.as_deref()),
        ]
    }
}

impl Row for QueuedRecipient {
    const HEADER: &'static [&'static str] = &["  RECIPIENT", "STATUS", "SERVER", "LAST ERROR"];
    fn cells(&self) -> Vec<String> {
        let words = or_dash(self.error.as_deref());
        let clean: String = words.chars().filter(|c| !c.is_control()).collect();
        vec![
            format!("  {}", self.address),
            or_dash(self.status.as_deref()),
            or_dash(self.remote.as_deref()),
            clean,
        ]
    }
}

impl Row for DomainStats {
    const HEADER: &'static [&'static str] = &[
        "DOMAIN", "MESSAGES", "DUE", "DEFERRED", "HELD", "FUTURE", "OLDEST", "NEXT IN", "NODE",
        "TROUBLE",
    ];
    fn cells(&self) -> Vec<String> {
        vec![
            self.domain.clone(),
            self.messages.to_string(),
            self.due.to_string(),
            self.deferred.to_string(),
            self.held.to_string(),
            self.future.to_string(),
            ago(self.oldest_ms),
            self.next_ms.map_or_else(|| "-".to_owned(), until),
            or_dash(self.node.as_deref()),
            short(self.trouble.as_deref()),
        ]
    }
}

pub(super) fn fields(message: &QueuedMessage) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("id", message.id.clone()),
        ("sender", sender(&message.sender)),
        ("size", Bytes(message.size).to_string()),
        ("age", ago(Some(message.received_ms))),
    ];
    let account = message.account.map(|account| account.to_string());
    let hold = message.hold_until_ms.map(until);
    let by = message
        .deliver_by_ms
        .map(|by| format!("{} ({} when late)", until(by), or_dash(message.deliver_by.as_deref())));
    let priority = (message.priority != 0).then(|| message.priority.to_string());
    let tls = match (message.require_tls, message.tls_optional) {
        (true, _) => Some("required".to_owned()),
        (false, true) => Some("optional".to_owned()),
        (false, false) => None,
    };
    let told = [
        ("account", account),
        ("envelope id", message.envelope_id.clone()),
        ("returns", message.returns.clone()),
        ("may leave in", hold),
        ("to be delivered in", by),
        ("priority", priority),
        ("tls", tls),
    ];
    fields.extend(told.into_iter().filter_map(|(name, value)| Some((name, value?))));
    fields
}

/// A line about a domain's share of a message.
pub(super) fn share(share: &QueuedShare) -> String {
    let mut line = format!("{}: {}, {} tries", share.domain, share.state.as_str(), share.tries);
    if let Some(due_ms) = share.due_ms {
        line.push_str(&format!(", due in {}", until(due_ms)));
    }
    if let Some(node) = &share.node {
        line.push_str(&format!(", at {node}"));
    }
    if let Some(trouble) = &share.trouble {
        line.push_str(&format!(", not reached: {}", short(Some(trouble))));
    }
    line
}

pub(super) fn totals(stats: &QueueStats) -> Vec<(&'static str, String)> {
    vec![
        ("messages", stats.messages.to_string()),
        ("domains", stats.domains.to_string()),
        ("due", stats.due.to_string()),
        ("deferred", stats.deferred.to_string()),
        ("held", stats.held.to_string()),
        ("future", stats.future.to_string()),
        ("oldest", ago(stats.oldest_ms)),
        ("held domains", or_dash(Some(&stats.held_domains.join(", ")))),
    ]
}

pub(super) fn ordered(ordered: &Ordered) -> String {
    let counted = |count: u64, one: &str, many: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    };
    let messages = counted(ordered.messages, "message", "messages");
    let domains = counted(ordered.domains, "domain", "domains");
    match (ordered.messages, ordered.domains) {
        (_, 0) => messages,
        (0, _) => domains,
        _ => format!("{messages} and {domains}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ordered_is_counted_in_words() {
        let text = |messages, domains| ordered(&Ordered { messages, domains, next: None });
        assert_eq!(text(0, 0), "0 messages");
        assert_eq!(text(1, 0), "1 message");
        assert_eq!(text(0, 1), "1 domain");
        assert_eq!(text(5, 2), "5 messages and 2 domains");
    }

    #[test]
    fn words_of_servers_fit_a_line() {
        assert_eq!(short(Some("450 4.2.1\r\n come\x1b[2J back")), "450 4.2.1 come[2J back");
        assert_eq!(short(None), "-");
        assert_eq!(short(Some(&"ü".repeat(90))), format!("{}…", "ü".repeat(80)));
    }
}
