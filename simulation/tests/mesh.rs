//! The mesh between simulated machines: late and lost packets, silence, restarts, virtual time.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cluster::{
    Epoch, limits,
    mesh::{Identity, Mesh, MeshError, Peer, Peers, ReplySender, Service},
};
use env::{BoxFuture, Env};
use simulation::{Event, Latency, Loss, Seed, Simulation, Trace};
use tokio::sync::{mpsc, watch};

const LATENCY: Latency = Latency { min: Duration::from_millis(1), max: Duration::from_millis(20) };

/// Longer than anything here takes in virtual time: a run that hangs fails by this.
const PATIENCE: Duration = Duration::from_secs(86_400);

const SILENCE: Loss = Loss { per_mille: 1000 };

struct Node {
    env: Env,
    epoch: Epoch,
    mesh: Mesh,
    heard: mpsc::UnboundedReceiver<Bytes>,
    /// Frames that a flood has got rid of.
    flooded: Arc<AtomicUsize>,
    certificate: Vec<u8>,
    roster: watch::Sender<Arc<Peers>>,
    _own: watch::Sender<Option<Epoch>>,
}

impl Node {
    async fn start(env: &Env, machine: u8, epoch: u64) -> Self {
        let address = SocketAddr::new(Ipv4Addr::new(192, 0, 2, machine).into(), 7000);
        let identity = Identity::generate(env);
        let certificate = identity.certificate().to_vec();
        let epoch = Epoch(epoch);
        let (own, own_watch) = watch::channel(Some(epoch));
        let (roster, roster_watch) = watch::channel(Arc::default());
        let (hearing, heard) = mpsc::unbounded_channel();
        let flooded = Arc::new(AtomicUsize::new(0));
        let service = Arc::new(Simple { hearing, flooded: Arc::clone(&flooded) });
        let mesh = Mesh::start(env.clone(), address, identity, own_watch, roster_watch, service);
        let mesh = mesh.await.expect("the address is free");
        Self { env: env.clone(), epoch, mesh, heard, flooded, certificate, roster, _own: own }
    }

    async fn ask(&self, to: Epoch, what: &'static str) -> Result<Vec<Bytes>, MeshError> {
        let mut reply = self.mesh.request(to, Bytes::from_static(what.as_bytes())).await?;
        let mut frames = Vec::new();
        while let Some(frame) = reply.next().await? {
            frames.push(frame);
        }
        Ok(frames)
    }

    /// Sends until the other has heard it; the number of tries.
    async fn wake(&self, other: &mut Self) -> u32 {
        for tries in 1.. {
            self.mesh.send(other.epoch, Bytes::from_static(b"wake up"));
            let hearing = other.heard.recv();
            if self.env.timeout(Duration::from_millis(200), hearing).await.is_ok() {
                return tries;
            }
        }
        unreachable!("patience ends before the numbers do")
    }
}

fn introduce(nodes: &[&Node]) {
    let peer = |node: &&Node| {
        let (address, certificate) = (node.mesh.local_address(), node.certificate.clone());
        (node.epoch, Peer { address, certificate })
    };
    let roster: Arc<Peers> = Arc::new(nodes.iter().map(peer).collect());
    for node in nodes {
        node.roster.send_replace(Arc::clone(&roster));
    }
}

struct Simple {
    hearing: mpsc::UnboundedSender<Bytes>,
    flooded: Arc<AtomicUsize>,
}

impl Service for Simple {
    fn datagram(&self, _: Epoch, bytes: Bytes) {
        // The node may be gone.
        let _unheard = self.hearing.send(bytes);
    }

    fn request(&self, _: Epoch, request: Bytes, mut reply: ReplySender) -> BoxFuture<'static, ()> {
        let flooded = Arc::clone(&self.flooded);
        Box::pin(async move {
            match &request[..] {
                b"silence" => std::future::pending().await,
                b"flood" => {
                    while reply.send(vec![7; 1000].into()).await.is_ok() {
                        flooded.fetch_add(1, Ordering::Relaxed);
                    }
                }
                _ => {
                    for _ in 0..20 {
                        // Who hangs up needs no more.
                        let _sent = reply.send(vec![7; 1000].into()).await;
                    }
                    reply.finish();
                }
            }
        })
    }
}

/// Runs `script` with two nodes that know each other, and fails where it hangs.
fn play<T>(seed: u64, script: impl AsyncFnOnce(&Simulation, Node, Node) -> T) -> T {
    let simulation = Simulation::new(Seed(seed), LATENCY);
    let env = |machine| simulation.machine(Ipv4Addr::new(192, 0, 2, machine).into());
    let (first, second, patient) = (env(1), env(2), env(3));
    let played = simulation.run(async {
        let (one, two) = (Node::start(&first, 1, 1).await, Node::start(&second, 2, 2).await);
        introduce(&[&one, &two]);
        patient.timeout(PATIENCE, Box::pin(script(&simulation, one, two))).await
    });
    played.unwrap_or_else(|_| panic!("seed {}: hangs", Seed(seed)))
}

/// Every fifth packet is lost, and all the same everything comes through.
fn check_lossy(seed: u64) -> Vec<Event> {
    play(seed, async |simulation, mut one, mut two| {
        simulation.set_loss(Loss { per_mille: 200 });
        let trace = Trace::new(one.env.clone());
        for round in 0..5 {
            let tries = one.wake(&mut two).await;
            trace.note(format!("{round}: woke two with {tries}"));
            let tries = two.wake(&mut one).await;
            trace.note(format!("{round}: woke one with {tries}"));
            // A request is sent again by QUIC, unless all packets of some seconds are lost.
            match two.ask(one.epoch, "frames").await {
                Ok(frames) => {
                    assert_eq!(frames, vec![Bytes::from(vec![7; 1000]); 20]);
                    trace.note(format!("{round}: answered"));
                }
                Err(error) => trace.note(format!("{round}: {error}")),
            }
        }
        trace.note(format!("{:?}", one.mesh.counts()));
        trace.note(format!("{:?}", two.mesh.counts()));
        let events = trace.events();
        assert!(events.iter().any(|event| event.what.ends_with("answered")), "{events:?}");
        events
    })
}

#[test]
fn lost_packets_cost_time_alone() {
    for seed in 1..=8 {
        check_lossy(seed);
    }
}

#[test]
fn a_seed_gives_one_order_of_events_and_another_seed_another() {
    for seed in 11..=14 {
        let trace = check_lossy(seed);
        let again = check_lossy(seed);
        for (line, (first, second)) in trace.iter().zip(&again).enumerate() {
            assert_eq!(first, second, "seed {seed}: the traces part at line {line}");
        }
        assert_eq!(trace.len(), again.len());
    }
    assert_ne!(check_lossy(11), check_lossy(12));
}

#[test]
fn a_peer_that_stops_answering_costs_nobody_more_than_the_time_limit() {
    play(21, async |simulation, mut one, mut two| {
        one.wake(&mut two).await;
        let mut open = one.mesh.request(two.epoch, Bytes::from_static(b"flood")).await.unwrap();
        open.next().await.unwrap().expect("a flood has frames");
        simulation.set_loss(SILENCE);
        let begun = one.env.monotonic();
        let many = 10_000;
        for _ in 0..many {
            one.mesh.send(two.epoch, vec![0; limits::MESH_DATAGRAM_BYTES_MAX].into());
        }
        assert_eq!(one.env.monotonic(), begun, "sending takes no time");
        let counts = one.mesh.counts();
        let kept = limits::MESH_DATAGRAM_BUFFER_BYTES / limits::MESH_DATAGRAM_BYTES_MAX;
        assert!(counts.datagrams_dropped >= many - kept as u64 - 100, "{counts:?}");
        let unanswered = one.ask(two.epoch, "frames").await;
        assert_eq!(unanswered, Err(MeshError::TimedOut));
        assert_eq!(one.env.monotonic() - begun, limits::MESH_FIRST_FRAME_TIMEOUT);
        let lost = loop {
            match open.next().await {
                Ok(frame) => drop(frame.expect("a flood has no end")),
                Err(error) => break error,
            }
        };
        assert_eq!(lost, MeshError::Lost);
        let took = one.env.monotonic() - begun;
        assert!(took <= limits::MESH_IDLE_TIMEOUT + Duration::from_secs(1), "{took:?}");
        one.env.sleep(Duration::from_secs(60)).await;
        assert_eq!((one.mesh.counts().connections, two.mesh.counts().connections), (0, 0));
        let dials = one.mesh.counts().dials_failed;
        assert!((10..=40).contains(&dials), "{dials} tries in a minute");

        simulation.set_loss(Loss::NONE);
        let begun = one.env.monotonic();
        assert!(two.wake(&mut one).await <= 30);
        let bound = limits::MESH_BACKOFF_MAX + 2 * limits::MESH_HANDSHAKE_TIMEOUT;
        assert!(one.env.monotonic() - begun <= bound, "found again within the backoff");
    });
}

#[test]
fn a_service_that_stays_silent_is_not_waited_for() {
    play(31, async |_, one, two| {
        let mut reply = one.mesh.request(two.epoch, Bytes::from_static(b"silence")).await.unwrap();
        assert_eq!(reply.next().await, Err(MeshError::TimedOut));
        drop(reply);
        assert_eq!(one.ask(two.epoch, "frames").await.unwrap().len(), 20);
    });
}

#[test]
fn a_slow_reader_holds_up_its_own_answer_and_no_other() {
    play(41, async |_, one, two| {
        let flood = Bytes::from_static(b"flood");
        let mut slow = Vec::new();
        for _ in 1..limits::MESH_STREAMS_MAX {
            slow.push(one.mesh.request(two.epoch, flood.clone()).await.unwrap());
        }
        one.env.sleep(Duration::from_secs(60)).await;
        let held = two.flooded.load(Ordering::Relaxed) * 1000;
        let windows = slow.len() * limits::MESH_STREAM_WINDOW_BYTES as usize;
        let bound = windows + limits::MESH_SEND_WINDOW_BYTES as usize;
        assert!((windows / 2..=bound).contains(&held), "{held} bytes");
        one.env.sleep(Duration::from_secs(60)).await;
        assert_eq!(two.flooded.load(Ordering::Relaxed) * 1000, held, "it waits");
        assert_eq!(one.ask(two.epoch, "frames").await.unwrap().len(), 20);
        for _ in 0..100 {
            slow[0].next().await.unwrap().expect("a flood has no end");
        }
        drop(slow);
        assert_eq!(one.ask(two.epoch, "frames").await.unwrap().len(), 20);
    });
}

#[test]
fn a_killed_node_comes_back_on_its_address_with_another_epoch() {
    play(51, async |_, mut one, mut two| {
        one.wake(&mut two).await;
        let env = two.env.clone();
        drop(two);
        let mut three = Node::start(&env, 2, 3).await;
        introduce(&[&one, &three]);
        let begun = env.monotonic();
        one.wake(&mut three).await;
        assert!(env.monotonic() - begun < Duration::from_millis(200), "at once");
        three.wake(&mut one).await;
    });
}

#[test]
fn an_hour_without_a_word_keeps_the_connection() {
    play(61, async |_, one, mut two| {
        one.wake(&mut two).await;
        let opened = one.mesh.counts().connections_opened;
        one.env.sleep(Duration::from_secs(3600)).await;
        assert_eq!(one.wake(&mut two).await, 1);
        assert_eq!(one.mesh.counts().connections_opened, opened);
    });
}

#[test]
fn a_fleet_that_connects_at_once_proves_its_addresses_and_gets_in() {
    // So far apart that every handshake is under way before the first is done.
    let latency = Latency { min: Duration::from_millis(20), max: Duration::from_millis(25) };
    let simulation = Simulation::new(Seed(71), latency);
    let machines = 1..=limits::MESH_HANDSHAKES_UNVALIDATED_MAX as u8 + 9;
    let envs: Vec<_> = machines
        .map(|machine| (machine, simulation.machine(Ipv4Addr::new(192, 0, 2, machine).into())))
        .collect();
    simulation.run(async {
        let mut nodes = Vec::new();
        for (machine, env) in &envs {
            nodes.push(Node::start(env, *machine, (*machine).into()).await);
        }
        introduce(&nodes.iter().collect::<Vec<_>>());
        nodes[0].env.sleep(Duration::from_secs(1)).await;
        for node in &nodes {
            let counts = node.mesh.counts();
            assert_eq!(counts.connections, nodes.len() as u64 - 1, "{counts:?}");
            assert_eq!((counts.dials_failed, counts.handshakes_refused), (0, 0), "{counts:?}");
        }
        let called_by_all = nodes.last().expect("there are some").mesh.counts();
        assert!(called_by_all.addresses_validated > 0, "{called_by_all:?}");
        assert_eq!(nodes[0].mesh.counts().addresses_validated, 0, "nobody calls the oldest");
    });
}
