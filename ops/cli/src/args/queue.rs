//! `rookery queue …`

use std::{str::FromStr, time::Duration};

use clap::Subcommand;
use node::admin::queue::QueueState;

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// List what is queued, a row for each message and domain
    List(ListArgs),
    /// Show a message, and each recipient with its last error
    Show {
        /// As the list, the log and the reply to its sender's client show it
        id: String,
    },
    /// Try messages at once; what is held stays
    Retry(SelectArgs),
    /// Keep messages, neither trying nor giving them up; with --domain alone, what comes later too
    Hold(SelectArgs),
    /// Try messages again that were held; with --domain alone, end its hold
    Release(SelectArgs),
    /// Take messages out of the queue
    Cancel {
        #[command(flatten)]
        select: SelectArgs,
        /// Tell their senders; otherwise nobody is told
        #[arg(long)]
        notify: bool,
    },
    /// Try everything at once: the same as retry --all
    Flush,
    /// Count the queue: by domain, by state, and the oldest
    Stats {
        /// Domains to name, those with the most messages
        #[arg(long, value_name = "N", default_value_t = 20)]
        top: usize,
    },
}

/// What to list.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Only to this domain
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) domain: Option<String>,
    /// Only from this address, or @DOMAIN; <> for reports
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) sender: Option<String>,
    /// Only what was accepted so long ago, such as 90s, 30m, 4h or 2d
    #[arg(long, value_name = "AGE")]
    pub(crate) older_than: Option<Age>,
    /// Only this message
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Only what is due, deferred, held or future
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<QueueState>,
    /// So many rows at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
}

/// Which messages: ids, a filter, or all.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true)
    .args(["ids", "domain", "sender", "older_than", "all"]))]
pub(crate) struct SelectArgs {
    /// These messages
    #[arg(value_name = "ID", conflicts_with_all = ["domain", "sender", "older_than", "all"])]
    pub(crate) ids: Vec<String>,
    /// Those to this domain
    #[arg(long, value_name = "DOMAIN", conflicts_with = "all")]
    pub(crate) domain: Option<String>,
    /// Those from this address, or @DOMAIN; <> for reports
    #[arg(long, value_name = "ADDRESS", conflicts_with = "all")]
    pub(crate) sender: Option<String>,
    /// Those accepted so long ago, such as 90s, 30m, 4h or 2d
    #[arg(long, value_name = "AGE", conflicts_with = "all")]
    pub(crate) older_than: Option<Age>,
    /// All that are in the queue
    #[arg(long)]
    pub(crate) all: bool,
}

/// A span of time as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age(pub(crate) Duration);

impl FromStr for Age {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "an age is a number with s, m, h or d behind it";
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(WRONG)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(WRONG),
        };
        let is_number = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
        let number: u64 = number.parse().ok().filter(|_| is_number).ok_or(WRONG)?;
        number.checked_mul(seconds).map(|all| Self(Duration::from_secs(all))).ok_or(WRONG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read() {
        let seconds = |text: &str| text.parse::<Age>().ok().map(|age| age.0.as_secs());
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("4h"), Some(14_400));
        assert_eq!(seconds("2d"), Some(172_800));
        for bad in ["", "s", "90", "+5m", "-1h", "1w", "1ü", "99999999999999999999d"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
