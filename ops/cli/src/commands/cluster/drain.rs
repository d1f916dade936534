//! Having a node stand aside, and watching it do so.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use node::admin::cluster::{self, NodeInfo, NodeState, Status, Wish};
use serde_json::json;

use crate::{
    args::TargetArgs, backend::Backend, commands::with_backend, error::CliError, output::Output,
    pause::Pause, remote::RemoteError,
};

/// How often the node is looked at.
const PERIOD: Duration = Duration::from_millis(250);

/// Asks, and does not wait.
pub(super) fn ask(target: &TargetArgs, node: &str) -> Result<(), CliError> {
    with_backend(target, |backend, output| {
        let told = wish(backend, node, Wish::Drain)?;
        output.done(format_args!("node {} is told to drain", told.name), &told)
    })
}

pub(super) fn undrain(target: &TargetArgs, node: &str) -> Result<(), CliError> {
    with_backend(target, |backend, output| {
        let told = wish(backend, node, Wish::Serve)?;
        output.done(format_args!("node {} may serve", told.name), &told)
    })
}

/// Asks, and waits until the node has left or stands aside.
pub(super) fn wait(target: &TargetArgs, node: &str, time: Duration) -> Result<(), CliError> {
    let mut backend = Backend::open(target)?;
    let pause = Pause::new()?;
    let begun = pause.now();
    let mut progress = Progress::new();
    let asked_of = match &backend {
        Backend::Direct(_) => None,
        // Whoever is asked may be the one that goes, and answers no more then.
        Backend::Remote(remote) => remote.get::<Status>(&["cluster"], &[])?.asked,
    };
    let told = wish(&backend, node, Wish::Drain)?;
    let (name, is_asked) = (told.name.clone(), asked_of == Some(told.epoch));
    let mut last = told;
    let ended = loop {
        match look(&backend, &name) {
            Ok(now) => {
                let waited = pause.now().saturating_since(begun);
                progress.show(&now, waited);
                if let Some(ended) = verdict(&now, &last) {
                    break ended;
                }
                last = now;
            }
            Err(CliError::Remote(RemoteError::Unreachable { .. })) if is_asked => {
                break Ok(None);
            }
            // Its store may be free by now, or another server may have it.
            Err(CliError::Remote(RemoteError::Unreachable { .. })) => {
                if let Ok(again) = Backend::open(target) {
                    let left = std::mem::replace(&mut backend, again);
                    left.close()?;
                }
            }
            Err(error) => break Err(error),
        }
        if pause.now().saturating_since(begun) >= time {
            break Err(CliError::NotDrained {
                node: name.clone(),
                state: last.state.as_str().to_owned(),
            });
        }
        pause.sleep(PERIOD);
    };
    progress.end();
    backend.close()?;
    let output = Output::new(target);
    match ended? {
        Some(node) => {
            let state = node.state.as_str();
            output.done(format_args!("node {name} is drained ({state})"), &node)
        }
        None => {
            let told = json!({ "name": name, "state": "gone", "drain": true });
            output.done(format_args!("node {name} is drained: it answers no more"), &told)
        }
    }
}

/// What a look says of the drain, if that is over.
fn verdict(now: &NodeInfo, last: &NodeInfo) -> Option<Result<Option<NodeInfo>, CliError>> {
    match now.state {
        NodeState::Drained | NodeState::Left => Some(Ok(Some(now.clone()))),
        // It was dead when it was told, which is as good.
        NodeState::Dead if last.state == NodeState::Dead => Some(Ok(Some(now.clone()))),
        NodeState::Dead => Some(Err(CliError::NotDrained {
            node: now.name.clone(),
            state: now.state.as_str().to_owned(),
        })),
        NodeState::Up | NodeState::Starting | NodeState::Draining | NodeState::Silent => None,
    }
}

fn wish(backend: &Backend, node: &str, wish: Wish) -> Result<NodeInfo, CliError> {
    match backend {
        Backend::Direct(direct) => direct.run(cluster::wish(&direct.admin, node, wish)),
        Backend::Remote(remote) => {
            let wish = match wish {
                Wish::Drain => "drain",
                Wish::Serve => "serve",
            };
            Ok(remote.put(&["cluster", "nodes", node, "wish"], &json!({ "wish": wish }))?)
        }
    }
}

fn look(backend: &Backend, node: &str) -> Result<NodeInfo, CliError> {
    match backend {
        Backend::Direct(direct) => direct.run(cluster::node(&direct.admin, node)),
        Backend::Remote(remote) => Ok(remote.get(&["cluster", "nodes", node], &[])?),
    }
}

/// One line on standard error that is written over again and again, for people.
struct Progress {
    is_shown: bool,
    width: usize,
}

impl Progress {
    fn new() -> Self {
        Self { is_shown: io::stderr().is_terminal(), width: 0 }
    }

    fn show(&mut self, node: &NodeInfo, waited: Duration) {
        let text = format!(
            "{}: {}, {} sessions, {} claims, {} s",
            node.name,
            node.state.as_str(),
            node.sessions,
            node.claims,
            waited.as_secs()
        );
        if self.is_shown {
            // Where nobody sees it, nothing is lost.
            let _unseen = write!(io::stderr(), "\r{text:<old$}", old = self.width);
            self.width = text.chars().count();
        }
    }

    fn end(&mut self) {
        if self.width > 0 {
            let _unseen = writeln!(io::stderr());
            self.width = 0;
        }
    }
}
