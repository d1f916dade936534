//! P7, as far as nodes have names: each node is registered under the name that it has, and under no
//! other; whatever registered besides has been found dead.

use std::collections::BTreeSet;

use cluster::membership::registry;
use env::BoxFuture;
use kv::Transaction;
use mail::StoreError;

use crate::{Check, Property, Violation, World};

pub(super) struct Names;

impl Check for Names {
    fn name(&self) -> &'static str {
        "names"
    }

    fn property(&self) -> Property {
        Property::P7
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        Box::pin(async {
            let read = |tx: Transaction| async move {
                Ok::<_, StoreError>((registry::registered(&tx).await?, registry::ended(&tx).await?))
            };
            let (registered, ended) = match world.db().run(read).await {
                Ok(read) => read,
                Err(error) => return vec![Violation::new(Property::World, error.to_string())],
            };
            let violation = |what: String| Violation::new(Property::P7, what);
            let names: BTreeSet<String> = world.nodes().map(|it| world.node_name(it)).collect();
            let held: BTreeSet<String> =
                registered.iter().map(|(_, node)| node.record.name.clone()).collect();
            let mut found: Vec<Violation> = names
                .difference(&held)
                .map(|name| violation(format!("{name} is not registered")))
                .collect();
            for (epoch, node) in &registered {
                if !names.contains(&node.record.name) {
                    let name = &node.record.name;
                    found.push(violation(format!("{name}, {epoch:?}, is not found dead")));
                }
            }
            if registered.len() != held.len() {
                found.push(violation(format!("a name is registered twice: {registered:?}")));
            }
            found.extend(ended.iter().map(|(epoch, node)| {
                violation(format!("what {}, {epoch:?}, held is not settled", node.name))
            }));
            found
        })
    }
}
