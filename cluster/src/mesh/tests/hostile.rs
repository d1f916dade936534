//! Peers that do not keep to the protocol, some of them with a certificate that is in the roster.

use futures_util::FutureExt;

use super::{
    super::*,
    world::{Node, ask, patiently},
};

/// A bare QUIC endpoint with an identity of its own.
struct Bare {
    env: Env,
    trust: Trust,
    endpoint: quinn::Endpoint,
    _runtime: Arc<runtime::Runtime>,
}

impl Bare {
    async fn new() -> Self {
        let env = Env::system();
        let strangers = Arc::new(Strangers::new(env.clone()));
        let (_, roster) = watch::channel(Arc::default());
        let trust = Trust::new(&env, Identity::generate(&env), roster, strangers);
        let runtime = Arc::new(runtime::Runtime::new(env.clone()));
        let address = "127.0.0.1:0".parse().unwrap();
        let bound = endpoint::bind(&env, address, &trust, Arc::clone(&runtime)).await;
        let (endpoint, _socket) = bound.unwrap();
        Self { env, trust, endpoint, _runtime: runtime }
    }

    fn peer(&self) -> (Epoch, Peer) {
        let certificate = self.trust.certificate().to_vec();
        (Epoch(66), Peer { address: self.endpoint.local_addr().unwrap(), certificate })
    }

    async fn connect(&self, node: &Node) -> quinn::Connection {
        let Peer { address, certificate } = node.peer().1;
        let config = endpoint::client_config(&self.env, &self.trust, &certificate);
        let connecting = self.endpoint.connect_with(config, address, identity::NAME).unwrap();
        patiently(connecting).await.unwrap()
    }
}

#[tokio::test]
async fn a_stranger_gets_a_handshake_and_nothing_else() {
    let mut node = Node::start(1).await;
    let stranger = Bare::new().await;
    let connection = stranger.connect(&node).await;
    let _lost = connection.send_datagram(Bytes::from_static(b"let me in"));
    let refusal = patiently(connection.closed()).await;
    assert!(matches!(refusal, quinn::ConnectionError::ConnectionClosed(_)), "{refusal}");
    node.until(|counts| counts.handshakes_refused == 1).await;
    assert!(node.datagrams.try_recv().is_err());
}

#[tokio::test]
async fn somebody_elses_certificate_is_of_no_use_without_its_key() {
    let node = Node::start(1).await;
    let thief = Bare::new().await;
    // The roster has another certificate at the address that we call: the thief's is not it.
    let victim = Identity::generate(&thief.env);
    node.know(&[(
        Epoch(66),
        Peer { certificate: victim.certificate().to_vec(), ..thief.peer().1 },
    )]);
    node.until(|_| !node.mesh.shared.links().is_empty()).await;
    let accepting = patiently(thief.endpoint.accept()).await.expect("it is called");
    assert!(patiently(accepting.into_future()).await.is_err(), "and refused");
    node.until(|counts| counts.dials_failed >= 1).await;
    assert_eq!(node.mesh.counts().connections_opened, 0);
}

#[tokio::test]
async fn a_peer_cannot_make_a_node_hold_more_than_its_bounds() {
    let mut node = Node::start(99).await;
    let bare = Bare::new().await;
    node.know(&[bare.peer()]);
    node.until(|_| node.mesh.shared.links() == [Epoch(66)]).await;
    let connection = bare.connect(&node).await;
    patiently(connection.accept_uni()).await.expect("the greeting");

    // Streams: as many as there may be, and not one more.
    let mut open = Vec::new();
    for _ in 0..limits::MESH_STREAMS_MAX {
        let (mut send, answer) = patiently(connection.open_bi()).await.unwrap();
        send.write_all(b"never ending").await.unwrap();
        open.push((send, answer));
    }
    let mut one_more = std::pin::pin!(connection.open_bi());
    assert!(one_more.as_mut().now_or_never().is_none());
    open.truncate(open.len() / 2);
    let (mut send, mut answer) = patiently(one_more).await.expect("some have ended");

    // A request: the node stops reading it.
    let long = vec![b'x'; 2 * limits::MESH_REQUEST_BYTES_MAX];
    assert!(patiently(send.write_all(&long)).await.is_err(), "it is told to stop");
    let cut = patiently(answer.read(&mut [0])).await;
    assert_eq!(cut, Err(quinn::ReadError::Reset(request::TOO_LARGE)));

    // Datagrams, larger than any of ours.
    let large = connection.max_datagram_size().unwrap();
    assert!(large > limits::MESH_DATAGRAM_BYTES_MAX);
    connection.send_datagram(vec![0; large].into()).unwrap();
    connection.send_datagram(Bytes::from_static(b"small")).unwrap();
    assert_eq!(node.datagram().await, (Epoch(66), Bytes::from_static(b"small")));
    assert_eq!(node.mesh.counts().datagrams_dropped, 1);

    // Unidirectional streams: none.
    let mut uni = std::pin::pin!(connection.open_uni());
    assert!(uni.as_mut().now_or_never().is_none());
}

#[tokio::test]
async fn a_peer_that_connects_again_takes_its_old_connections_place() {
    let node = Node::start(99).await;
    let bare = Bare::new().await;
    node.know(&[bare.peer()]);
    node.until(|_| node.mesh.shared.links() == [Epoch(66)]).await;
    let mut connections = vec![];
    for _ in 0..5 {
        let connection = bare.connect(&node).await;
        patiently(connection.accept_uni()).await.expect("the greeting");
        connections.push(connection);
    }
    let newest = connections.pop().unwrap();
    for older in connections {
        let closed = patiently(older.closed()).await;
        assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "{closed}");
    }
    assert_eq!(node.mesh.counts().connections, 1);
    assert_eq!(newest.close_reason(), None);
}

#[tokio::test]
async fn noise_is_ignored() {
    let nodes = [Node::start(1).await, Node::start(2).await];
    super::introduce(&nodes.each_ref());
    let env = Env::system();
    let socket = env.datagrams("127.0.0.1:0".parse().unwrap()).await.unwrap();
    for length in 0..400 {
        let mut noise = vec![0; length * 3];
        env.fill_random(&mut noise);
        socket.send_to(&noise, nodes[0].mesh.local_address()).await.unwrap();
    }
    assert_eq!(ask(&nodes[1].mesh, nodes[0].epoch, "who").await.unwrap(), ["2"]);
}
