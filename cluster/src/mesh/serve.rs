//! Serving one connection: what its peer sends and asks.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use quinn::{ReadToEndError, RecvStream, SendStream};

use super::{
    ReplySender,
    request::{CUT, TOO_LARGE},
    shared::{Line, Shared, Side},
};
use crate::{
    Epoch,
    limits::{
        MESH_DATAGRAM_BYTES_MAX, MESH_REQUEST_BYTES_MAX, MESH_REQUEST_READ_TIMEOUT,
        MESH_STREAMS_MAX,
    },
};

/// Serves until the connection is over.
pub(super) async fn serve(shared: Arc<Shared>, line: Arc<Line>) {
    // However this ends, the line goes with it: nobody would listen to it any more.
    let _serving = Serving { shared: &shared, line: &line };
    let connection = &line.connection;
    if line.side == Side::Accepted && greet(connection).await.is_err() {
        return;
    }
    // Each answer is a task of its own, which ends with this one.
    let mut answers = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(_ended) = answers.next(), if !answers.is_empty() => {}
            datagram = connection.read_datagram() => {
                let Ok(datagram) = datagram else { break };
                receive(&shared, &line, datagram);
            }
            asked = connection.accept_bi(), if answers.len() < MESH_STREAMS_MAX as usize => {
                let Ok((send, request)) = asked else { break };
                let answer = answer(Arc::clone(&shared), line.epoch(), send, request);
                answers.push(shared.env.spawn("mesh-answer", answer));
            }
        }
    }
}

struct Serving<'a> {
    shared: &'a Shared,
    line: &'a Line,
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.shared.detach(self.line);
    }
}

async fn greet(connection: &quinn::Connection) -> Result<(), quinn::ConnectionError> {
    let mut greeting = connection.open_uni().await?;
    // The one error is a stream that was finished before.
    let _finished = greeting.finish();
    Ok(())
}

fn receive(shared: &Shared, line: &Line, datagram: Bytes) {
    if datagram.len() > MESH_DATAGRAM_BYTES_MAX {
        return shared.counters.datagrams_dropped.add_one();
    }
    shared.counters.datagrams_received.add_one();
    shared.service.datagram(line.epoch(), datagram);
}

async fn answer(shared: Arc<Shared>, from: Epoch, mut send: SendStream, mut asked: RecvStream) {
    let reading = asked.read_to_end(MESH_REQUEST_BYTES_MAX);
    let request = match shared.env.timeout(MESH_REQUEST_READ_TIMEOUT, reading).await {
        Ok(Ok(request)) => Bytes::from(request),
        broken => {
            let long = matches!(broken, Ok(Err(ReadToEndError::TooLong)));
            // The one error is a stream that the peer has given up already.
            let _told = send.reset(if long { TOO_LARGE } else { CUT });
            return;
        }
    };
    shared.counters.requests_received.add_one();
    let given_up = send.stopped();
    let answer = shared.service.request(from, request, ReplySender::new(send));
    tokio::select! {
        biased;
        () = answer => {}
        _ = given_up => {}
    }
}
