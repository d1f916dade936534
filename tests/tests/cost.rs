//! What the common operations cost, counted by the server itself, beside the README's table.
//!
//! The table is the contract: a change that raises a figure has to change the table, and so does
//! one that lowers it. Bytes depend on the lengths of names and numbers; the table gives them
//! rounded up, and a measured figure may be a fifth below.

use std::{collections::BTreeMap, fmt, ops::Sub};

use blackbox::{
    Deadline,
    http::get,
    imap::Imap,
    message, report,
    server::{ALICE, BOB, Server},
    smtp::Smtp,
    workspace,
};

/// Messages in the mailbox that is worked on.
const MESSAGES: u32 = 1_050;

/// Length of the body of the messages whose delivery is counted.
const BODY_BYTES: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    writes: u64,
    reads: u64,
    keys_read: u64,
    keys_written: u64,
    bytes_written: u64,
    blob_puts: u64,
    blob_reads: u64,
}

impl Sub for Cost {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            writes: self.writes - earlier.writes,
            reads: self.reads - earlier.reads,
            keys_read: self.keys_read - earlier.keys_read,
            keys_written: self.keys_written - earlier.keys_written,
            bytes_written: self.bytes_written - earlier.bytes_written,
            blob_puts: self.blob_puts - earlier.blob_puts,
            blob_reads: self.blob_reads - earlier.blob_reads,
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writes, reads, keys_read, keys_written, bytes_written, blob_puts, blob_reads } =
            self;
        let bytes = bytes_written.next_multiple_of(100);
        write!(
            f,
            "{writes} | {reads} | {keys_read} | {keys_written} | {bytes} | {blob_puts} | {blob_reads}"
        )
    }
}

impl Cost {
    /// What the server has done since its start.
    fn so_far(server: &Server) -> Self {
        let body = get(server, "/metrics").body;
        let samples: BTreeMap<&str, u64> = body
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
            .collect();
        let sample = |name: &str| {
            let name = format!("rookery_{name}_total");
            *samples.get(name.as_str()).unwrap_or_else(|| panic!("{name} is not told:\n{body}"))
        };
        Self {
            writes: sample("store_transactions_committed"),
            reads: sample("store_transactions_read_only"),
            keys_read: sample("store_keys_read") + sample("store_rows_read"),
            keys_written: sample("store_keys_written")
                + sample("store_keys_cleared")
                + sample("store_ranges_cleared"),
            bytes_written: sample("store_written_bytes"),
            blob_puts: sample("blob_puts"),
            blob_reads: sample("blob_reads"),
        }
    }

    /// The same, once what runs behind the answers has come to rest.
    fn at_rest(server: &Server) -> Self {
        let deadline = Deadline::usual();
        let mut last = Self::so_far(server);
        let mut same = 0;
        // Longer than a look for due work takes to come: a checkpoint is such work.
        while same < 75 {
            assert!(!deadline.is_over(), "the server does not come to rest");
            std::thread::sleep(std::time::Duration::from_millis(20));
            let now = Self::so_far(server);
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        last
    }

    /// What `operation` cost.
    fn of(server: &Server, operation: impl FnOnce()) -> Self {
        let before = Self::at_rest(server);
        operation();
        Self::at_rest(server) - before
    }
}

/// The README's rows: operation, and the figures as they stand there.
fn stated() -> BTreeMap<String, Cost> {
    let readme = std::fs::read_to_string(workspace::root().join("README.md")).expect("it is there");
    let rows = readme.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let figures: Option<Vec<u64>> =
            cells.get(1..)?.iter().map(|cell| cell.replace(',', "").parse().ok()).collect();
        let &[writes, reads, keys_read, keys_written, bytes_written, blob_puts, blob_reads] =
            &figures?[..]
        else {
            return None;
        };
        let cost =
            Cost { writes, reads, keys_read, keys_written, bytes_written, blob_puts, blob_reads };
        Some((cells[0].to_owned(), cost))
    });
    rows.collect()
}

/// Operation ids that an operation looks for.
fn ids(operation: &str) -> u64 {
    match operation {
        "deliver to one" | "move one" => 1,
        "deliver to ten" => 10,
        _ => 0,
    }
}

/// Whether an operation id is looked for under the day before as well: the first try may have
/// been then.
#[expect(clippy::disallowed_methods, reason = "the server's clock is the system's")]
fn is_first_hour_of_the_day() -> bool {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("it is later than 1970").as_secs() % 86_400 < 3_600
}

fn differs(found: Cost, stated: Cost) -> bool {
    let bytes = found.bytes_written;
    let bytes_fit = bytes <= stated.bytes_written && stated.bytes_written * 4 <= bytes * 5 + 400;
    !bytes_fit || Cost { bytes_written: 0, ..found } != Cost { bytes_written: 0, ..stated }
}

/// Fills the mailbox, and leaves its view as it is when nothing has happened for a while.
fn fill(server: &Server) -> Imap {
    let mut smtp = Smtp::exchange(server);
    for number in 0..MESSAGES {
        smtp.deliver(BOB, ALICE, message(BOB, ALICE, &format!("f{number}"), "").as_bytes());
    }
    let mut imap = server.imap(ALICE);
    imap.ok("CREATE Kept");
    imap.ok("SELECT INBOX");
    imap.ok("UID FETCH 1:* (FLAGS)");
    imap
}

#[test]
fn operations_cost_what_the_readme_says() {
    let first_hour = is_first_hour_of_the_day();
    let server = Server::start();
    let ten: Vec<String> = (0..10).map(|number| format!("r{number}@example.org")).collect();
    for address in &ten {
        server.cli(&["account", "add", address, "--password-stdin"]);
    }
    let ten: Vec<&str> = ten.iter().map(String::as_str).collect();
    let mut imap = fill(&server);
    let mut smtp = Smtp::exchange(&server);
    let body = "0123456789abcde\r\n".repeat(BODY_BYTES / 17);
    let mut deliver = |to: &[&str], id: &str| {
        smtp.envelope(BOB, to);
        let reply = smtp.data(message(BOB, ALICE, id, &body).as_bytes());
        assert_eq!(reply.code, 250, "{reply}");
    };
    deliver(&[BOB], "warm-up");

    // Opens the view anew where a checkpoint has come since.
    Cost::at_rest(&server);
    imap.ok("UID STORE 6 +FLAGS ($warm)");

    let one = Cost::of(&server, || deliver(&[BOB], "one"));
    let mut found = vec![
        ("deliver to one", one),
        ("deliver to ten", Cost::of(&server, || deliver(&ten, "ten"))),
        ("set a flag on one", Cost::of(&server, || drop(imap.ok("UID STORE 5 +FLAGS ($a)")))),
        (
            "set a flag on a thousand",
            Cost::of(&server, || drop(imap.ok("UID STORE 1:1000 +FLAGS ($b)"))),
        ),
        ("move one", Cost::of(&server, || drop(imap.ok("UID MOVE 5 Kept")))),
    ];
    imap.ok("UID STORE 6 +FLAGS (\\Deleted)");
    found.push(("expunge one", Cost::of(&server, || drop(imap.ok("EXPUNGE")))));
    found.push(("SELECT", Cost::of(&server, || drop(imap.ok("SELECT INBOX")))));
    let flags = || drop(imap.ok("UID FETCH 1:* (FLAGS)"));
    found.push(("FETCH of all flags", Cost::of(&server, flags)));
    let mut idler = server.imap(BOB);
    idler.ok("SELECT INBOX");
    idler.idle();
    let told = Cost::of(&server, || {
        deliver(&[BOB], "two");
        idler.wait_for("EXISTS");
    });
    // Beside the delivery's own bytes, which differ by a few in two deliveries.
    let told = Cost { bytes_written: one.bytes_written, ..told } - one;
    found.push(("learn of one delivery by IDLE", told));

    let stated = stated();
    let mut wrong = Vec::new();
    assert_eq!(first_hour, is_first_hour_of_the_day(), "the hour was over meanwhile: run it again");
    for (operation, mut cost) in found {
        if first_hour {
            cost.keys_read -= ids(operation);
        }
        let row = format!("| {operation} | {cost} |");
        report(&row);
        if stated.get(operation).is_none_or(|stated| differs(cost, *stated)) {
            wrong.push(row);
        }
    }
    assert_eq!(wrong, [] as [String; 0], "the README's table says otherwise");
}
