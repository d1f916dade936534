//! Nodes over loopback. What takes time, and what needs a bad network, is in the simulation's tests.

mod hostile;
mod latency;
mod world;

use std::time::Duration;

use super::*;
use world::{Node, ask, introduce, patiently};

#[tokio::test]
async fn datagrams_and_requests_go_between_three_nodes() {
    let mut nodes = [Node::start(1).await, Node::start(2).await, Node::start(3).await];
    introduce(&nodes.each_ref());
    for from in 0..3 {
        for to in [(from + 1) % 3, (from + 2) % 3] {
            let (source, target) = (nodes[from].epoch, nodes[to].epoch);
            let largest = Bytes::from(vec![from as u8; limits::MESH_DATAGRAM_BYTES_MAX]);
            nodes[from].mesh.send(target, largest.clone());
            assert_eq!(nodes[to].datagram().await, (source, largest));
            let frames = ask(&nodes[from].mesh, target, "frames 3 1000").await.unwrap();
            assert_eq!(frames, vec![Bytes::from(vec![7; 1000]); 3]);
            assert_eq!(ask(&nodes[from].mesh, target, "who").await.unwrap(), [source.to_string()]);
        }
    }
    for node in &nodes {
        let counts = node.mesh.counts();
        assert_eq!((counts.datagrams_sent, counts.datagrams_received), (2, 2));
        assert_eq!((counts.requests_sent, counts.requests_received), (4, 4));
        assert_eq!((counts.datagrams_dropped, counts.handshakes_refused), (0, 0), "{counts:?}");
    }
}

#[tokio::test]
async fn the_older_node_connects_before_anything_is_sent() {
    let nodes = [Node::start(1).await, Node::start(2).await];
    introduce(&nodes.each_ref());
    for node in &nodes {
        node.until(|counts| counts.connections == 1).await;
    }
}

#[tokio::test]
async fn a_stranger_is_refused_and_let_in_once_it_is_known() {
    let mut nodes = [Node::start(1).await, Node::start(2).await];
    let (one, two) = (nodes[0].epoch, nodes[1].epoch);
    nodes[0].know(&[nodes[1].peer()]);
    nodes[0].mesh.send(two, Bytes::from_static(b"kept"));
    patiently(nodes[1].mesh.stranger()).await;
    nodes[0].until(|counts| counts.dials_failed >= 1).await;
    nodes[1].until(|counts| counts.handshakes_refused >= 1).await;
    assert_eq!(nodes[1].mesh.counts().connections_opened, 0);
    nodes[1].know(&[nodes[0].peer()]);
    assert_eq!(nodes[1].datagram().await, (one, Bytes::from_static(b"kept")));
}

#[tokio::test]
async fn a_peer_that_left_the_roster_is_cut_off() {
    let mut nodes = [Node::start(1).await, Node::start(2).await];
    introduce(&nodes.each_ref());
    let (one, two) = (nodes[0].epoch, nodes[1].epoch);
    let mut open = nodes[0].mesh.request(two, "silence".into()).await.unwrap();
    nodes[1].know(&[]);
    assert_eq!(patiently(open.next()).await, Err(MeshError::Lost));
    nodes[1].until(|counts| counts.connections == 0).await;
    let opened = nodes[1].mesh.counts().connections_opened;
    nodes[0].until(|counts| counts.dials_failed >= 1).await;
    assert_eq!(nodes[1].mesh.counts().connections_opened, opened, "it is not let in again");
    nodes[1].mesh.send(one, Bytes::from_static(b"to nobody"));
    assert_eq!(nodes[1].mesh.counts().datagrams_dropped, 1);
    patiently(nodes[1].mesh.stranger()).await;
    let unknown = nodes[1].mesh.request(one, "who".into()).await;
    assert_eq!(unknown.unwrap_err(), MeshError::Unknown(one));
    assert!(nodes[0].datagrams.try_recv().is_err());
}

#[tokio::test]
async fn a_new_life_on_an_old_address_is_reached_at_once() {
    let one = Node::start(1).await;
    let two = Node::start(2).await;
    introduce(&[&one, &two]);
    assert_eq!(ask(&one.mesh, two.epoch, "who").await.unwrap(), ["1"]);
    let address = two.mesh.local_address();
    two.mesh.close().await;
    let mut three = Node::start_at(3, address).await;
    assert_ne!(three.peer().1.certificate, two.peer().1.certificate);
    introduce(&[&one, &three]);
    one.mesh.send(three.epoch, Bytes::from_static(b"welcome"));
    assert_eq!(three.datagram().await, (one.epoch, Bytes::from_static(b"welcome")));
    assert_eq!(ask(&three.mesh, one.epoch, "who").await.unwrap(), ["3"]);
    let gone = one.mesh.request(two.epoch, "who".into()).await;
    assert_eq!(gone.unwrap_err(), MeshError::Unknown(two.epoch));
}

#[tokio::test]
async fn a_node_that_registers_again_keeps_its_connections_under_its_new_epoch() {
    let mut one = Node::start(1).await;
    let mut two = Node::start(2).await;
    introduce(&[&one, &two]);
    assert_eq!(ask(&one.mesh, two.epoch, "who").await.unwrap(), ["1"]);
    let old = two.peer();
    two.register(Epoch(9));
    // For a moment the roster may have both epochs.
    one.know(&[old, two.peer()]);
    two.know(&[one.peer(), two.peer()]);
    one.until(|_| one.mesh.shared.links() == [Epoch(9)]).await;
    two.mesh.send(one.epoch, Bytes::from_static(b"again"));
    assert_eq!(one.datagram().await, (Epoch(9), Bytes::from_static(b"again")));
    one.mesh.send(Epoch(9), Bytes::from_static(b"hello"));
    assert_eq!(two.datagram().await, (one.epoch, Bytes::from_static(b"hello")));
    assert_eq!(one.mesh.counts().connections_opened, 1);
}

#[tokio::test]
async fn two_that_connect_at_once_stay_connected() {
    let mut nodes = [Node::unregistered(1).await, Node::unregistered(2).await];
    introduce(&nodes.each_ref());
    let (one, two) = (nodes[0].epoch, nodes[1].epoch);
    // Neither knows its own epoch, so each connects because it has something to send.
    nodes[0].mesh.send(two, Bytes::from_static(b"to two"));
    nodes[1].mesh.send(one, Bytes::from_static(b"to one"));
    assert_eq!(nodes[0].datagram().await.1, "to one");
    assert_eq!(nodes[1].datagram().await.1, "to two");
    for _ in 0..100 {
        let (there, back) =
            tokio::join!(ask(&nodes[0].mesh, two, "who"), ask(&nodes[1].mesh, one, "who"));
        assert_eq!((there.unwrap(), back.unwrap()), (vec!["1".into()], vec!["2".into()]));
    }
    for node in &nodes {
        let counts = node.mesh.counts();
        assert!((1..=2).contains(&counts.connections), "{counts:?}");
        assert_eq!(counts.connections_opened, counts.connections, "none was closed: {counts:?}");
    }
}

#[tokio::test]
async fn requests_run_beside_each_other_and_beyond_the_bound_they_wait() {
    let nodes = [Node::start(1).await, Node::start(2).await];
    introduce(&nodes.each_ref());
    let two = nodes[1].epoch;
    let many = 4 * limits::MESH_STREAMS_MAX;
    let answers = (0..many).map(|_| ask(&nodes[0].mesh, two, "frames 2 20000"));
    for answer in futures_util::future::join_all(answers).await {
        assert_eq!(answer.unwrap().len(), 2);
    }
    assert_eq!(nodes[1].mesh.counts().requests_received, u64::from(many));
}

#[tokio::test]
async fn frames_and_requests_have_a_size_and_answers_an_end() {
    let nodes = [Node::start(1).await, Node::start(2).await];
    introduce(&nodes.each_ref());
    let (mesh, two) = (&nodes[0].mesh, nodes[1].epoch);
    let max = limits::MESH_FRAME_BYTES_MAX;
    let largest = ask(mesh, two, &format!("frames 2 {max}")).await.unwrap();
    assert_eq!(largest.iter().map(Bytes::len).collect::<Vec<_>>(), [max, max]);
    assert_eq!(ask(mesh, two, "frames 1 0").await.unwrap(), [""], "an empty frame is one");
    assert_eq!(ask(mesh, two, "frames 0 0").await.unwrap(), [""; 0]);
    let too_large = format!("frames 1 {}", max + 1);
    assert_eq!(ask(mesh, two, &too_large).await, Err(MeshError::Cut), "the service may not");
    let lie = MeshError::TooLarge { bytes: u32::MAX as usize, max };
    assert_eq!(ask(mesh, two, "lie").await, Err(lie));
    assert_eq!(ask(mesh, two, "half").await, Err(MeshError::Cut));
    assert_eq!(ask(mesh, two, "forget").await, Err(MeshError::Cut));
    assert_eq!(ask(mesh, two, "panic").await, Err(MeshError::Cut));
    let (bytes, max) = (limits::MESH_REQUEST_BYTES_MAX + 1, limits::MESH_REQUEST_BYTES_MAX);
    let long = mesh.request(two, Bytes::from(vec![b'x'; bytes])).await;
    assert_eq!(long.unwrap_err(), MeshError::TooLarge { bytes, max });
    assert_eq!(ask(mesh, two, &" ".repeat(max)).await.unwrap(), [max.to_string()]);
}

#[tokio::test]
async fn hanging_up_ends_the_answer() {
    let mut nodes = [Node::start(1).await, Node::start(2).await];
    introduce(&nodes.each_ref());
    let two = nodes[1].epoch;
    for what in ["silence", "flood"] {
        let mut reply = nodes[0].mesh.request(two, what.into()).await.unwrap();
        patiently(reply.next()).await.unwrap();
        drop(reply);
        patiently(nodes[1].ended.recv()).await.expect("the service's future is dropped");
    }
}

#[tokio::test]
async fn a_reply_that_is_polled_in_pieces_loses_nothing() {
    let nodes = [Node::start(1).await, Node::start(2).await];
    introduce(&nodes.each_ref());
    let mut reply = nodes[0].mesh.request(nodes[1].epoch, "frames 50 5000".into()).await.unwrap();
    let mut frames = 0;
    let mut dropped = 0;
    patiently(async {
        loop {
            tokio::select! {
                biased;
                frame = reply.next() => match frame.unwrap() {
                    Some(frame) => {
                        assert_eq!(frame, vec![7; 5000]);
                        frames += 1;
                    }
                    None => break,
                },
                () = tokio::task::yield_now() => dropped += 1,
            }
        }
    })
    .await;
    assert_eq!(frames, 50);
    assert!(dropped > 0);
}

#[tokio::test]
async fn a_backlog_has_a_bound() {
    let node = Node::start(1).await;
    let socket = Env::system().datagrams("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let certificate = Identity::generate(&Env::system()).certificate().to_vec();
    let silent = Peer { address: socket.local_address().unwrap(), certificate };
    node.know(&[(Epoch(2), silent)]);
    node.until(|_| node.mesh.shared.links() == [Epoch(2)]).await;
    let more = 10;
    for _ in 0..limits::MESH_BACKLOG_MAX + more {
        node.mesh.send(Epoch(2), Bytes::from_static(b"?"));
    }
    assert_eq!(node.mesh.counts().datagrams_dropped, more as u64);
    node.know(&[]);
    node.until(|_| node.mesh.shared.links().is_empty()).await;
    let dropped = node.mesh.counts().datagrams_dropped;
    assert_eq!(dropped, (limits::MESH_BACKLOG_MAX + more) as u64, "with the peer goes its backlog");
}

#[tokio::test]
async fn closing_tells_the_peers_and_frees_the_port() {
    let nodes = [Node::start(1).await, Node::start(2).await];
    introduce(&nodes.each_ref());
    let (one, two) = (&nodes[0], &nodes[1]);
    let mut open = two.mesh.request(one.epoch, "silence".into()).await.unwrap();
    patiently(open.next()).await.unwrap();
    let held = one.mesh.request(two.epoch, "silence".into()).await.unwrap();
    patiently(one.mesh.close()).await;
    assert_eq!(patiently(open.next()).await, Err(MeshError::Lost), "sooner than by silence");
    two.until(|counts| counts.connections == 0).await;
    let closed = one.mesh.request(two.epoch, "who".into()).await;
    assert_eq!(closed.unwrap_err(), MeshError::Closed);
    one.mesh.send(two.epoch, Bytes::from_static(b"late"));
    assert_eq!(one.mesh.counts().datagrams_dropped, 1);
    Env::system().datagrams(one.mesh.local_address()).await.expect("the port is free");
    drop(held);
    patiently(one.mesh.close()).await;
}

#[tokio::test]
#[cfg_attr(debug_assertions, should_panic(expected = "a datagram of 1151 bytes"))]
async fn a_datagram_that_is_too_large_is_a_mistake() {
    let node = Node::start(1).await;
    node.mesh.send(Epoch(2), Bytes::from(vec![0; limits::MESH_DATAGRAM_BYTES_MAX + 1]));
    assert_eq!(node.mesh.counts().datagrams_dropped, 1);
}

#[tokio::test]
async fn hints_about_strangers_are_rare() {
    let node = Node::start(1).await;
    for _ in 0..100 {
        node.mesh.send(Epoch(2), Bytes::from_static(b"?"));
    }
    patiently(node.mesh.stranger()).await;
    let again = Env::system().timeout(Duration::from_millis(1), node.mesh.stranger()).await;
    assert!(again.is_err(), "one hint for all of them");
}
