//! What all hosts of a world share: the executor and the network.

use std::sync::Arc;

use crate::{Seed, executor::Core, network::Network};

pub(crate) struct Fabric {
    pub(crate) seed: Seed,
    pub(crate) core: Arc<Core>,
    pub(crate) network: Arc<Network>,
}
