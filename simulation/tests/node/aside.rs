//! Nodes that stand aside, and lose their name meanwhile.

use std::{net::Ipv4Addr, time::Duration};

use blob::BlobStore;
use cluster::membership::registry::Wish;
use env::Env;
use kv::{Database, Faults, LargeValues};
use node::{
    Node, StartError, Started, Stores,
    admin::{Admin, cluster as administration},
    config::{Config, Names, PortBase},
};
use simulation::{Latency, Seed, Simulation};

const NAME: &str = "mx-1";

/// Several heartbeats.
const SOON: Duration = Duration::from_secs(10);

/// A process that runs under [`NAME`] on a machine of its own.
async fn start(env: &Env, stores: &Stores, data: &std::path::Path) -> Result<Started, StartError> {
    let mut config = Config::dev(Some(data.to_owned()), PortBase::default()).expect("ports");
    config.cluster.node = NAME.to_owned();
    config.names = Names::Given(dns::Zone::new());
    let listen = &mut config.listen;
    for list in [&mut listen.smtp, &mut listen.lmtp, &mut listen.imap, &mut listen.http] {
        list.clear();
    }
    for list in [&mut listen.submission, &mut listen.submissions, &mut listen.imaps] {
        list.clear();
    }
    let pending = std::future::pending();
    Node::start_on_unless(stores.clone(), config, env.clone(), pending).await
}

#[test]
fn whoever_stands_aside_ends_when_its_name_is_taken() {
    let simulation =
        Simulation::new(Seed(1), Latency { min: Duration::ZERO, max: Duration::from_millis(1) });
    let machines = [1, 2].map(|host| simulation.machine(Ipv4Addr::new(192, 0, 2, host).into()));
    simulation.run(async {
        let [first, second] = &machines;
        let db = Database::memory_with_faults(first.clone(), Faults::default());
        let large = LargeValues::memory(first.clone());
        let blobs = BlobStore::embedded(large, first.clone()).await.expect("memory opens");
        let stores = Stores::new(db.clone(), blobs);
        let data = tempfile::tempdir().expect("a folder for the certificate");
        let Ok(Started::Serving(node)) = Box::pin(start(first, &stores, data.path())).await else {
            panic!("the node serves");
        };
        let admin = Admin { db: db.clone(), env: first.clone() };
        administration::wish(&admin, NAME, Wish::Drain).await.expect("it is registered");
        node.drain().await;

        let mut aside = Box::pin(start(first, &stores, data.path()));
        let waited = first.timeout(SOON, aside.as_mut()).await;
        assert!(waited.is_err(), "a drained node stands aside");
        let other_data = tempfile::tempdir().expect("a folder for the certificate");
        let other = Box::pin(start(second, &stores, other_data.path()));
        let both = async {
            tokio::select! {
                ended = aside => ended.err(),
                _ = other => None,
            }
        };
        let ended = first.timeout(SOON, both).await.expect("the first one ends");
        assert!(matches!(ended, Some(StartError::Superseded)), "{ended:?}");
    });
}
