use std::time::Duration;

use env::{Env, Monotonic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{Seed, Simulation};

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const SECOND: Duration = Duration::from_secs(1);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn world(latency: Latency) -> (Simulation, Env, Env) {
    let simulation = Simulation::new(Seed(5), latency);
    let (server, client) = (simulation.machine(SERVER), simulation.machine(CLIENT));
    (simulation, server, client)
}

fn seconds(env: &Env) -> f64 {
    (env.monotonic() - Monotonic::default()).as_secs_f64()
}

#[test]
fn a_stream_carries_bytes_in_order_and_each_way_takes_its_time() {
    let (simulation, server, client) = world(Latency { min: SECOND, max: SECOND });
    simulation.run(async {
        let listener = server.listen(address("0.0.0.0:25")).await.unwrap();
        let mut ours = client.connect(address("192.0.2.1:25")).await.unwrap();
        assert_eq!(seconds(&client), 2.0);
        let mut theirs = listener.accept().await.unwrap();
        assert_eq!(theirs.peer.ip(), CLIENT);
        assert_eq!(theirs.local, address("192.0.2.1:25"));
        ours.write_all(b"pi").await.unwrap();
        ours.write_all(b"ng").await.unwrap();
        let mut bytes = [0; 4];
        theirs.stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!((&bytes, seconds(&client)), (b"ping", 3.0));
        theirs.stream.write_all(b"bye").await.unwrap();
        drop(theirs);
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&rest[..], seconds(&client)), (&b"bye"[..], 4.0));
        let error = ours.write_all(b"?").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn jitter_reorders_nothing() {
    let (simulation, server, client) = world(Latency { min: Duration::ZERO, max: SECOND });
    simulation.run(async {
        let listener = server.listen(address("0.0.0.0:25")).await.unwrap();
        let mut ours = client.connect(address("192.0.2.1:25")).await.unwrap();
        let mut theirs = listener.accept().await.unwrap().stream;
        for byte in 0..100 {
            ours.write_all(&[byte]).await.unwrap();
        }
        ours.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        theirs.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, (0..100).collect::<Vec<u8>>());
    });
}

#[test]
fn a_writer_waits_where_nobody_reads() {
    let (simulation, server, client) = world(Latency::NONE);
    simulation.run(async {
        let listener = server.listen(address("0.0.0.0:25")).await.unwrap();
        let mut ours = client.connect(address("192.0.2.1:25")).await.unwrap();
        let mut theirs = listener.accept().await.unwrap().stream;
        let much = vec![7; limits::STREAM_BYTES_MAX + 1];
        assert!(client.timeout(SECOND, ours.write_all(&much)).await.is_err());
        let reader = server.spawn("reader", async move {
            let mut bytes = Vec::new();
            theirs.read_to_end(&mut bytes).await.unwrap();
            bytes.len()
        });
        ours.write_all(&much).await.unwrap();
        drop(ours);
        assert_eq!(reader.await, Ok(2 * limits::STREAM_BYTES_MAX + 1));
    });
}

#[test]
fn addresses_belong_to_machines() {
    let (simulation, server, client) = world(Latency::NONE);
    simulation.run(async {
        let kind = |error: io::Error| error.kind();
        let local = server.listen(address("127.0.0.1:80")).await.unwrap();
        server.connect(address("127.0.0.1:80")).await.unwrap();
        assert!(local.accept().await.unwrap().peer.ip().is_loopback());
        for to in ["127.0.0.1:80", "192.0.2.1:80", "192.0.2.9:80"] {
            let refused = client.connect(address(to)).await.map(drop).map_err(kind);
            assert_eq!(refused, Err(io::ErrorKind::ConnectionRefused), "{to}");
        }
        let taken = server.listen(address("127.0.0.1:80")).await.map(drop).map_err(kind);
        assert_eq!(taken, Err(io::ErrorKind::AddrInUse));
        let foreign = server.listen(address("192.0.2.9:80")).await.map(drop).map_err(kind);
        assert_eq!(foreign, Err(io::ErrorKind::AddrNotAvailable));
        drop(local);
        server.listen(address("127.0.0.1:80")).await.unwrap();
        let any = server.listen(address("192.0.2.1:0")).await.unwrap().local_address().unwrap();
        assert!(any.port() >= EPHEMERAL_PORT_FIRST);
    });
}

#[test]
fn datagrams_arrive_whole_or_not_at_all() {
    let (simulation, server, client) = world(Latency { min: SECOND, max: SECOND });
    simulation.run(async {
        let ours = client.datagrams(address("192.0.2.2:9")).await.unwrap();
        let theirs = server.datagrams(address("[::]:9")).await.unwrap();
        ours.send_to(b"to nobody", address("192.0.2.1:10")).await.unwrap();
        for number in 0..=limits::DATAGRAMS_MAX {
            ours.send_to(&number.to_le_bytes(), address("192.0.2.1:9")).await.unwrap();
        }
        let mut bytes = [0; 4];
        let early = server.timeout(SECOND / 2, theirs.receive(&mut bytes)).await;
        assert!(early.is_err(), "it is still on its way, and is not lost by this");
        for number in 0..limits::DATAGRAMS_MAX {
            let (taken, from) = theirs.receive(&mut bytes).await.unwrap();
            assert_eq!((taken, from), (4, address("192.0.2.2:9")));
            assert_eq!(bytes[..], number.to_le_bytes()[..4]);
        }
        assert_eq!(seconds(&server), 1.0);
        let lost = server.timeout(SECOND, theirs.receive(&mut bytes)).await;
        assert!(lost.is_err(), "one did not fit the queue");
    });
}
