//! Orders from standard input.

use std::io::BufRead;

use tokio::sync::mpsc;

/// Lines that may wait while one is acted on.
const ORDERS_WAITING_MAX: usize = 16;

/// What is to happen to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// It is cut off, as by a crash.
    Kill,
    /// It says goodbye.
    Drain,
    /// It starts.
    Start,
}

impl Action {
    /// How it is answered once it is done.
    pub(super) fn done(self) -> &'static str {
        match self {
            Self::Kill => "killed",
            Self::Drain => "drained",
            Self::Start => "started",
        }
    }
}

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) action: Action,
    /// From 1.
    pub(super) node: u8,
}

/// Reads orders on a thread of its own until standard input ends; the nodes run on after that.
pub(super) fn read() -> mpsc::Receiver<Result<Order, String>> {
    let (sender, orders) = mpsc::channel(ORDERS_WAITING_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(parse(&line)).is_err() {
                return;
            }
        }
    });
    orders
}

fn parse(line: &str) -> Result<Order, String> {
    let usage = || format!("`{line}` is none of: kill N, drain N, start N");
    let (action, node) = line.trim().split_once(' ').ok_or_else(usage)?;
    let action = match action {
        "kill" => Action::Kill,
        "drain" => Action::Drain,
        "start" => Action::Start,
        _ => return Err(usage()),
    };
    Ok(Order { action, node: node.trim().parse().map_err(|_| usage())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_two_words() {
        assert_eq!(parse("kill 2"), Ok(Order { action: Action::Kill, node: 2 }));
        assert_eq!(parse(" start 1 "), Ok(Order { action: Action::Start, node: 1 }));
        for bad in ["", "kill", "kill x", "kill 300", "burn 1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
