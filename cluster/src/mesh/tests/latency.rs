//! How fast the fast path is, on this machine.

use super::{
    super::*,
    world::{Node, ask, introduce},
};

/// Datagrams measured, one after the other.
const ROUNDS: usize = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; run with --release --nocapture"]
async fn latency_over_loopback() {
    let mut nodes = [Node::start(1).await, Node::start(2).await];
    introduce(&nodes.each_ref());
    let (env, two) = (Env::system(), nodes[1].epoch);
    ask(&nodes[0].mesh, two, "who").await.unwrap();
    let mut datagrams = Vec::new();
    let mut requests = Vec::new();
    for _ in 0..ROUNDS {
        let begun = env.monotonic();
        nodes[0].mesh.send(two, Bytes::from_static(b"12345678"));
        nodes[1].datagram().await;
        datagrams.push(env.monotonic() - begun);
        let begun = env.monotonic();
        ask(&nodes[0].mesh, two, "who").await.unwrap();
        requests.push(env.monotonic() - begun);
    }
    for (what, mut times) in [("datagram, one way", datagrams), ("request and answer", requests)] {
        times.sort_unstable();
        let at = |per_mille: usize| times[times.len() * per_mille / 1000];
        println!("{what}: median {:?}, 99 % {:?}, 99.9 % {:?}", at(500), at(990), at(999));
        assert!(at(500) < std::time::Duration::from_millis(20), "the issue's bound for a wake-up");
    }
}
