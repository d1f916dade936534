//! P9: every buffer has a bound and a hostile peer cannot exceed it, as far as a peer can see it. That
//! no peer causes a panic is told by the world itself.

use env::BoxFuture;

use crate::{Check, Property, Violation, What, World};

pub(super) struct Bounds;

impl Check for Bounds {
    fn name(&self) -> &'static str {
        "bounds"
    }

    fn property(&self) -> Property {
        Property::P9
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        Box::pin(async {
            world.facts().with(|facts| {
                let beyond = facts.iter().filter_map(|fact| match fact.what {
                    What::Bound { what, reached, most } if reached > most => {
                        let what = format!("{what}: {reached}, at most {most} were to be");
                        Some(Violation::at(Property::P9, fact.at, what))
                    }
                    _ => None,
                });
                beyond.collect()
            })
        })
    }
}
