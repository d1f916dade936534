//! Requests and their answers: one bidirectional stream each.
//!
//! The request is everything up to the end of its stream. The answer is frames, each headed by its
//! length in four bytes, big-endian, and the end of the stream at the end of a frame. An answer
//! that was broken off is reset, and never looks complete.

use std::sync::Arc;

use bytes::Bytes;
use env::{Env, Monotonic};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};

use super::{MeshError, shared::Shared};
use crate::{
    Epoch,
    limits::{MESH_FIRST_FRAME_TIMEOUT, MESH_FRAME_BYTES_MAX, MESH_REQUEST_BYTES_MAX},
};

/// Why a stream is reset.
pub(super) const TOO_LARGE: VarInt = VarInt::from_u32(1);
pub(super) const CUT: VarInt = VarInt::from_u32(2);

/// Bytes of a frame's length.
const HEADER_BYTES: usize = 4;

pub(super) async fn request(
    shared: &Arc<Shared>,
    to: Epoch,
    request: &Bytes,
) -> Result<Reply, MeshError> {
    check_size(request, MESH_REQUEST_BYTES_MAX)?;
    let deadline = shared.env.monotonic() + MESH_FIRST_FRAME_TIMEOUT;
    let asking = shared.env.timeout(MESH_FIRST_FRAME_TIMEOUT, ask(shared, to, request));
    let stream = asking.await.map_err(|env::Elapsed| MeshError::TimedOut)??;
    shared.counters.requests_sent.add_one();
    Ok(Reply::new(shared.env.clone(), stream, deadline))
}

async fn ask(shared: &Arc<Shared>, to: Epoch, request: &Bytes) -> Result<RecvStream, MeshError> {
    loop {
        let line = shared.line(to).await?;
        // Nothing is sent yet, so another connection will do.
        let Ok((stream, answer)) = line.connection.open_bi().await else { continue };
        let mut asking = Outgoing::new(stream);
        match asking.write(&mut [request.clone()]).await {
            Ok(()) => asking.finish(),
            // The answer's own end says why.
            Err(MeshError::HungUp) => {}
            Err(error) => return Err(error),
        }
        return Ok(answer);
    }
}

fn check_size(bytes: &[u8], max: usize) -> Result<(), MeshError> {
    let bytes = bytes.len();
    if bytes <= max { Ok(()) } else { Err(MeshError::TooLarge { bytes, max }) }
}

/// An answer, as it comes in. Dropping it hangs up.
pub struct Reply {
    env: Env,
    stream: RecvStream,
    /// For the first frame; none afterwards.
    deadline: Option<Monotonic>,
    header: [u8; HEADER_BYTES],
    header_read: usize,
    frame: Option<Vec<u8>>,
    frame_read: usize,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply")
    }
}

impl Reply {
    fn new(env: Env, stream: RecvStream, deadline: Monotonic) -> Self {
        Self {
            env,
            stream,
            deadline: Some(deadline),
            header: [0; HEADER_BYTES],
            header_read: 0,
            frame: None,
            frame_read: 0,
        }
    }

    /// The next frame; `None` after the last. A frame may be empty. Only the first has a time
    /// limit. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`MeshError::TimedOut`] for the first frame; [`MeshError::Lost`], [`MeshError::Cut`], and
    /// [`MeshError::TooLarge`] for a frame that is. The answer is over.
    pub async fn next(&mut self) -> Result<Option<Bytes>, MeshError> {
        let Some(deadline) = self.deadline else { return self.read_frame().await };
        let (env, left) = (self.env.clone(), deadline - self.env.monotonic());
        let first = env.timeout(left, self.read_frame()).await;
        let first = first.map_err(|env::Elapsed| MeshError::TimedOut)??;
        self.deadline = None;
        Ok(first)
    }

    async fn read_frame(&mut self) -> Result<Option<Bytes>, MeshError> {
        let frame = match &mut self.frame {
            Some(frame) => frame,
            None => {
                while self.header_read < HEADER_BYTES {
                    let read = self.stream.read(&mut self.header[self.header_read..]).await;
                    match read.map_err(|error| read_error(&error))? {
                        Some(bytes) => self.header_read += bytes,
                        None if self.header_read == 0 => return Ok(None),
                        None => return Err(MeshError::Cut),
                    }
                }
                let (bytes, max) = (u32::from_be_bytes(self.header) as usize, MESH_FRAME_BYTES_MAX);
                if bytes > max {
                    // The one error is a stream that is over already.
                    let _stopped = self.stream.stop(TOO_LARGE);
                    return Err(MeshError::TooLarge { bytes, max });
                }
                self.frame_read = 0;
                self.frame.insert(vec![0; bytes])
            }
        };
        while self.frame_read < frame.len() {
            let read = self.stream.read(&mut frame[self.frame_read..]).await;
            match read.map_err(|error| read_error(&error))? {
                Some(bytes) => self.frame_read += bytes,
                None => return Err(MeshError::Cut),
            }
        }
        self.header_read = 0;
        Ok(self.frame.take().map(Bytes::from))
    }
}

fn read_error(error: &ReadError) -> MeshError {
    match error {
        ReadError::ConnectionLost(_) => MeshError::Lost,
        ReadError::Reset(_)
        | ReadError::ClosedStream
        | ReadError::IllegalOrderedRead
        | ReadError::ZeroRttRejected => MeshError::Cut,
    }
}

/// Where an answer goes. Dropped without [`ReplySender::finish`], the answer is told to be cut off,
/// and frames that were not yet received are lost.
pub struct ReplySender {
    outgoing: Outgoing,
}

impl std::fmt::Debug for ReplySender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReplySender")
    }
}

impl ReplySender {
    pub(super) fn new(stream: SendStream) -> Self {
        Self { outgoing: Outgoing::new(stream) }
    }

    /// Sends a frame of at most [`MESH_FRAME_BYTES_MAX`] bytes; waits while the peer is slow.
    /// Dropping the future breaks the answer off.
    ///
    /// # Errors
    /// [`MeshError::TooLarge`], [`MeshError::HungUp`], [`MeshError::Lost`]; [`MeshError::Cut`] after
    /// a send that was dropped.
    pub async fn send(&mut self, frame: Bytes) -> Result<(), MeshError> {
        check_size(&frame, MESH_FRAME_BYTES_MAX)?;
        let bytes = u32::try_from(frame.len()).expect("a frame's bytes have a bound");
        let header = Bytes::copy_from_slice(&bytes.to_be_bytes());
        self.outgoing.write(&mut [header, frame]).await
    }

    /// Writes what may be no frame at all.
    #[cfg(test)]
    pub(super) async fn send_raw(&mut self, bytes: Bytes) -> Result<(), MeshError> {
        self.outgoing.write(&mut [bytes]).await
    }

    /// Ends the answer. Everything sent before still arrives.
    pub fn finish(self) {
        self.outgoing.finish();
    }
}

/// The sending half of a stream. Dropped before its end it is reset, where QUIC's own would end it
/// and what is missing would not be missed.
struct Outgoing {
    stream: SendStream,
    state: Sending,
}

#[derive(PartialEq, Eq)]
enum Sending {
    Whole,
    /// A write is under way. If it was dropped, what comes after would be read as its rest.
    Partial,
    Finished,
}

impl Outgoing {
    fn new(stream: SendStream) -> Self {
        Self { stream, state: Sending::Whole }
    }

    async fn write(&mut self, parts: &mut [Bytes]) -> Result<(), MeshError> {
        if self.state != Sending::Whole {
            return Err(MeshError::Cut);
        }
        self.state = Sending::Partial;
        self.stream.write_all_chunks(parts).await.map_err(|error| match error {
            WriteError::Stopped(_) => MeshError::HungUp,
            WriteError::ConnectionLost(_) => MeshError::Lost,
            WriteError::ClosedStream | WriteError::ZeroRttRejected => MeshError::Cut,
        })?;
        self.state = Sending::Whole;
        Ok(())
    }

    fn finish(mut self) {
        if self.state == Sending::Whole {
            self.state = Sending::Finished;
            // The one error is a peer that has hung up.
            let _finished = self.stream.finish();
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if self.state != Sending::Finished {
            // The one error is a peer that has hung up.
            let _reset = self.stream.reset(CUT);
        }
    }
}
