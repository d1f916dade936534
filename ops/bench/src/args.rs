//! The command line of `rookery bench`.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use crate::{
    limits,
    pattern::{Order, Pattern},
    report::Reader,
    tls::TlsMode,
};

/// What to measure.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub(crate) protocol: Protocol,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Protocol {
    /// Send messages by SMTP; with --user as a mail program does
    Smtp(MailArgs),
    /// Send messages by LMTP
    Lmtp(MailArgs),
    /// Work on a mailbox by IMAP
    Imap(ImapArgs),
}

impl Protocol {
    pub(crate) fn common(&self) -> &CommonArgs {
        match self {
            Self::Smtp(mail) | Self::Lmtp(mail) => &mail.common,
            Self::Imap(imap) => &imap.common,
        }
    }
}

/// What all protocols have in common.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    /// The server's name or address
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// The server's port
    #[arg(long)]
    pub(crate) port: u16,
    /// Connections that work at the same time
    #[arg(long, short = 'c', value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..=limits::CONNECTIONS_MAX))]
    pub(crate) connections: u32,
    /// Stop after so many operations; without it --duration says when to stop
    #[arg(long, value_name = "N", conflicts_with = "duration",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Begin operations for so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) duration: Duration,
    /// Work for so many seconds before what is measured
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub(crate) warm_up: Duration,
    /// The longest that one operation, or opening one connection, may take
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// Threads of this client; more than one only where it is the bottleneck
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,
    /// Connections that are opened at the same time
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) opening_max: u32,
    /// Protect connections
    #[arg(long, value_name = "WHEN", default_value = "none")]
    pub(crate) tls: TlsMode,
    /// Trust the certificates in this PEM file
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Trust any certificate; for a server on this machine alone
    #[arg(long, conflicts_with = "ca")]
    pub(crate) insecure: bool,
    /// Log in as this user; an n in braces stands for a number from 1 to --users
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::parse, requires = "password")]
    pub(crate) user: Option<Pattern>,
    /// How many users there are; connections take them in turn
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) users: u64,
    /// The users' password, in ASCII; better in the environment, where others do not see it
    #[arg(long, env = "ROOKERY_BENCH_PASSWORD", hide_env_values = true, value_parser = password)]
    pub(crate) password: Option<String>,
    /// What chance depends on: the same seed makes the same choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// End with exit code 1 where there are more errors
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) errors_max: u64,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Show on standard error how it goes, also where that is no terminal
    #[arg(long)]
    pub(crate) progress: bool,
}

impl CommonArgs {
    pub(crate) fn reader(&self) -> Reader {
        if self.json { Reader::Program } else { Reader::Person }
    }
}

/// Which messages are sent.
#[derive(Debug, Args)]
pub(crate) struct MessageArgs {
    /// Send messages of this size, such as 10KB or 4KiB
    #[arg(long, default_value = "10KB")]
    pub(crate) size: Size,
    /// Send the messages of this folder and its folders, one a file, in turn; each gets a new
    /// Message-ID
    #[arg(long, value_name = "DIR", conflicts_with = "size")]
    pub(crate) messages: Option<PathBuf>,
}

/// Sending by SMTP and LMTP.
#[derive(Debug, Args)]
pub(crate) struct MailArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) message: MessageArgs,
    /// The envelope's sender
    #[arg(long, value_name = "ADDRESS", default_value = "bench@example.org",
          value_parser = Pattern::parse)]
    pub(crate) from: Pattern,
    /// The envelope's recipient; an n in braces stands for a number from 1 to --recipients
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::parse)]
    pub(crate) to: Pattern,
    /// How many recipients there are
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) recipients: u64,
    /// Recipients of one message
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) rcpts_per_message: u64,
    /// Which recipient is next
    #[arg(long, default_value = "round-robin")]
    pub(crate) order: Order,
}

/// Working on a mailbox by IMAP.
#[derive(Debug, Args)]
pub(crate) struct ImapArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) message: MessageArgs,
    /// What an operation is
    #[arg(long)]
    pub(crate) workload: Workload,
    /// The mailbox; it must be there
    #[arg(long, default_value = "INBOX", value_parser = quotable)]
    pub(crate) mailbox: String,
    /// Messages that FETCH asks for and STORE changes: a sequence set, or `one` for one by chance
    #[arg(long, value_name = "SET", default_value = "1:*", value_parser = Set::parse)]
    pub(crate) set: Set,
    /// What SEARCH looks for: `UNSEEN`, `SUBJECT load`, `TEXT "two words"`
    #[arg(long, value_name = "KEYS", default_value = "UNSEEN", value_parser = line)]
    pub(crate) search: String,
}

/// What one operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// FETCH (FLAGS)
    FetchFlags,
    /// FETCH (ENVELOPE)
    FetchEnvelope,
    /// FETCH (BODY.PEEK[])
    FetchBody,
    /// STORE of \Flagged, off again the next time
    Store,
    /// SEARCH
    Search,
    /// APPEND of a message
    Append,
    /// SELECT
    Select,
    /// Sessions that wait in IDLE until the end
    Idle,
    /// A mail program's day: flags of the newest, envelopes, a body, a flag, a search
    Mixed,
}

impl Workload {
    /// As it stands on the command line and in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FetchFlags => "fetch-flags",
            Self::FetchEnvelope => "fetch-envelope",
            Self::FetchBody => "fetch-body",
            Self::Store => "store",
            Self::Search => "search",
            Self::Append => "append",
            Self::Select => "select",
            Self::Idle => "idle",
            Self::Mixed => "mixed",
        }
    }
}

/// Which messages an operation is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Set {
    /// One by chance.
    One,
    /// A sequence set.
    Fixed(String),
}

impl Set {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "one" {
            return Ok(Self::One);
        }
        let wire = |c: char| c.is_ascii_digit() || matches!(c, ':' | ',' | '*');
        if text.is_empty() || !text.chars().all(wire) {
            return Err("expected a sequence set such as 1:* or 5, or `one`".to_owned());
        }
        Ok(Self::Fixed(text.to_owned()))
    }
}

/// The size of a message in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "kb" => 1_000,
            "m" | "mib" => 1 << 20,
            "mb" => 1_000_000,
            _ => return Err("a size is a number with K, M (of 1024), KB or MB (of 1000)".into()),
        };
        let bytes = number.parse().ok().and_then(|number: u64| number.checked_mul(factor));
        match bytes {
            Some(bytes @ limits::MESSAGE_BYTES_MIN..=limits::MESSAGE_BYTES_MAX) => Ok(Self(bytes)),
            _ => Err(format!(
                "a message has {} to {} bytes",
                limits::MESSAGE_BYTES_MIN,
                limits::MESSAGE_BYTES_MAX
            )),
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= Duration::from_secs(7 * 24 * 3600) => Ok(duration),
        _ => Err("expected 0 to 604800 seconds".to_owned()),
    }
}

/// What can stand in a protocol line.
fn line(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err("expected printable text".to_owned());
    }
    Ok(text.to_owned())
}

/// What can stand between quotation marks.
fn quotable(text: &str) -> Result<String, String> {
    if text.contains(['"', '\\']) {
        return Err("quotation marks and backslashes cannot stand here".to_owned());
    }
    line(text)
}

fn password(text: &str) -> Result<String, String> {
    if !text.is_ascii() {
        return Err("only ASCII, as SASLprep is not applied".to_owned());
    }
    line(text)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser, error::ErrorKind};

    use super::*;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn parse(line: &str) -> Result<Protocol, ErrorKind> {
        let parsed = Alone::try_parse_from(line.split(' '));
        parsed.map(|alone| alone.bench.protocol).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_is_consistent() {
        Alone::command().debug_assert();
    }

    #[test]
    fn arguments_are_read() {
        match parse("bench lmtp --port 2424 --to u{n}@example.org --recipients 100 --size 50MB") {
            Ok(Protocol::Lmtp(mail)) => {
                assert_eq!(mail.message.size, Size(50_000_000));
                assert_eq!(mail.to.name(3), "u3@example.org");
                assert_eq!(mail.common.duration, Duration::from_secs(10));
            }
            other => panic!("{other:?}"),
        }
        match parse("bench imap --port 143 --workload store --set one --duration 0.5") {
            Ok(Protocol::Imap(imap)) => {
                assert_eq!((imap.workload, &imap.set), (Workload::Store, &Set::One));
                assert_eq!(imap.common.duration, Duration::from_millis(500));
            }
            other => panic!("{other:?}"),
        }
        for workload in Workload::value_variants() {
            let value = workload.to_possible_value().unwrap();
            assert_eq!(value.get_name(), workload.name());
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let check = |line: &str, expected| assert_eq!(parse(line).unwrap_err(), expected, "{line}");
        let lmtp = |more: &str| format!("bench lmtp --port 1 --to a@example.org {more}");
        check("bench lmtp --port 1", ErrorKind::MissingRequiredArgument);
        check(&lmtp("--size 10"), ErrorKind::ValueValidation);
        check(&lmtp("--size 2000MB"), ErrorKind::ValueValidation);
        check(&lmtp("--size 10KB --messages x"), ErrorKind::ArgumentConflict);
        check(&lmtp("--count 1 --duration 1"), ErrorKind::ArgumentConflict);
        check(&lmtp("--duration=-1"), ErrorKind::ValueValidation);
        check(&lmtp("--duration NaN"), ErrorKind::ValueValidation);
        check(&lmtp("--connections 0"), ErrorKind::ValueValidation);
        check("bench imap --port 1 --workload store --set a", ErrorKind::ValueValidation);
        check("bench imap --port 1 --workload select --mailbox a\"b", ErrorKind::ValueValidation);
    }
}
