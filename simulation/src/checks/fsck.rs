//! The server's own check of the whole store finds nothing, and could look at everything.

use env::BoxFuture;
use node::admin::fsck::{Checker, Cure, Line, Request};
use tokio::sync::mpsc;

use crate::{Check, Property, Violation, World};

pub(super) struct Fsck;

impl Check for Fsck {
    fn name(&self) -> &'static str {
        "fsck"
    }

    fn property(&self) -> Property {
        Property::P5
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        Box::pin(async {
            let begun =
                Checker::new(world.blobs()).begin(&world.admin(), &Request::default()).await;
            let check = match begun {
                Ok(check) => check,
                Err(error) => return vec![Violation::new(Property::World, error.to_string())],
            };
            let (sender, mut lines) = mpsc::channel(64);
            let running = world.env().spawn("fsck", async move { check.run(&sender).await });
            let mut found = Vec::new();
            while let Some(line) = lines.recv().await {
                found.extend(violation(&line));
            }
            if running.await.is_err() {
                found.push(Violation::new(Property::World, "fsck panicked"));
            }
            found
        })
    }
}

fn violation(line: &Line) -> Option<Violation> {
    let property = |code: &str| match code.contains("blob") || code.contains("reference") {
        true => Property::P5,
        false => Property::P4,
    };
    match line {
        // Worth knowing, and no damage.
        Line::Finding(finding) if finding.remedy == Cure::None => None,
        Line::Finding(finding) => {
            let what = format!("fsck: {}: {}", finding.code, finding.detail);
            Some(Violation::new(property(&finding.code), what))
        }
        Line::Unchecked { detail, .. } => {
            Some(Violation::new(Property::World, format!("fsck could not check: {detail}")))
        }
        Line::Stopped { reason } => {
            Some(Violation::new(Property::World, format!("fsck stopped: {reason}")))
        }
        Line::Progress { .. } | Line::Mended(_) | Line::NotMended { .. } | Line::Done(_) => None,
    }
}
