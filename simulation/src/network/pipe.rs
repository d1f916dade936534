//! One stream: two directions, each a bounded queue of segments with their times of arrival.
//!
//! What is sent into a cut has no time of arrival until the cut is over. An end whose host has
//! crashed resets the stream; one that is dropped otherwise ends it after what was written.

use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use env::Monotonic;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Network;
use crate::{
    executor::Sleep,
    host::Life,
    limits::{STREAM_BYTES_MAX, STREAM_SEGMENTS_MAX},
};

/// After every moment of a world: what is held up by a cut.
const HELD: Monotonic = Monotonic::from_start(Duration::MAX);

/// What one side writes and the other reads.
#[derive(Default)]
pub(super) struct Direction {
    flow: Mutex<Flow>,
}

#[derive(Default)]
struct Flow {
    segments: VecDeque<Segment>,
    /// Bytes in `segments`.
    bytes: usize,
    /// Nothing overtakes: no later segment arrives before this.
    last_arrival: Monotonic,
    /// How it ended, and when the reader learns of it.
    end: Option<(Ending, Monotonic)>,
    /// The reader is gone, which the writer learns then.
    deaf: Option<Monotonic>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Finished,
    Reset,
}

struct Segment {
    arrival: Monotonic,
    bytes: VecDeque<u8>,
}

impl Direction {
    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().expect("no code panics while it holds a stream")
    }

    fn end(&self, how: Ending, arrival: Monotonic) {
        let mut flow = self.lock();
        if flow.end.is_none() {
            flow.end = Some((how, arrival.max(flow.last_arrival)));
            wake(&mut flow.reader);
        }
    }

    /// Ends it at once for both: what has not arrived is lost.
    pub(super) fn reset(&self, now: Monotonic) {
        let mut flow = self.lock();
        flow.segments.retain(|segment| segment.arrival <= now);
        flow.bytes = flow.segments.iter().map(|segment| segment.bytes.len()).sum();
        flow.end = Some((Ending::Reset, now));
        flow.deaf = Some(now);
        wake(&mut flow.reader);
        wake(&mut flow.writer);
    }

    /// What a cut has held up arrives then.
    pub(super) fn release(&self, arrival: Monotonic) {
        let mut flow = self.lock();
        let held = |at: &mut Monotonic| {
            if *at == HELD {
                *at = arrival;
            }
        };
        flow.segments.iter_mut().for_each(|segment| held(&mut segment.arrival));
        flow.end.iter_mut().for_each(|(_, at)| held(at));
        flow.deaf.iter_mut().for_each(held);
        held(&mut flow.last_arrival);
        wake(&mut flow.reader);
        wake(&mut flow.writer);
    }
}

/// One side of a stream.
pub(super) struct End {
    network: Arc<Network>,
    owner: Life,
    peer: IpAddr,
    incoming: Arc<Direction>,
    outgoing: Arc<Direction>,
    /// Until the next segment arrives.
    arriving: Option<(Monotonic, Pin<Box<Sleep>>)>,
}

/// Two connected sides.
pub(super) fn pair(network: &Arc<Network>, ours: &Life, theirs: &Life) -> (End, End) {
    let (there, back) = (Arc::<Direction>::default(), Arc::<Direction>::default());
    let end = |owner: &Life, peer: &Life, incoming, outgoing| End {
        network: Arc::clone(network),
        owner: owner.clone(),
        peer: peer.address(),
        incoming: Arc::clone(incoming),
        outgoing: Arc::clone(outgoing),
        arriving: None,
    };
    (end(ours, theirs, &back, &there), end(theirs, ours, &there, &back))
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Flow {
    /// When there is something to read, be it the end; `None` where nothing is on its way.
    fn next_arrival(&self) -> Option<Monotonic> {
        let next = self.segments.front().map(|segment| segment.arrival);
        next.or(self.end.map(|(_, at)| at)).filter(|at| *at != HELD)
    }

    /// Moves what has arrived.
    fn take(&mut self, now: Monotonic, buffer: &mut ReadBuf<'_>) {
        while buffer.remaining() > 0
            && let Some(segment) = self.segments.front_mut()
            && segment.arrival <= now
        {
            let (bytes, _) = segment.bytes.as_slices();
            let taken = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..taken]);
            segment.bytes.drain(..taken);
            self.bytes -= taken;
            if segment.bytes.is_empty() {
                self.segments.pop_front();
            }
        }
        wake(&mut self.writer);
    }
}

impl End {
    /// What the other side writes, and what this one does.
    pub(super) fn directions(&self) -> (Arc<Direction>, Arc<Direction>) {
        (Arc::clone(&self.incoming), Arc::clone(&self.outgoing))
    }

    fn arrival(&self) -> Monotonic {
        self.network.arrival(self.owner.address(), self.peer).unwrap_or(HELD)
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let now = this.network.clock.now();
            let mut flow = this.incoming.lock();
            match flow.next_arrival() {
                Some(arrival) if arrival <= now => {
                    this.arriving = None;
                    let is_reset = matches!(flow.end, Some((Ending::Reset, _)));
                    if flow.segments.is_empty() && is_reset {
                        return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                    }
                    flow.take(now, buffer);
                    return Poll::Ready(Ok(()));
                }
                Some(arrival) => {
                    // A reset may come before what was awaited.
                    flow.reader = Some(cx.waker().clone());
                    drop(flow);
                    if this.arriving.as_ref().is_none_or(|(at, _)| *at != arrival) {
                        let sleep = Box::pin(this.network.clock.sleep_until(arrival));
                        this.arriving = Some((arrival, sleep));
                    }
                    if let Some((_, sleep)) = &mut this.arriving {
                        ready!(sleep.as_mut().poll(cx));
                    }
                    this.arriving = None;
                }
                None => {
                    flow.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let now = self.network.clock.now();
        let came_to_end = |at: Option<Monotonic>| at.is_some_and(|at| at <= now);
        let reset = self.incoming.lock().end.filter(|(how, _)| *how == Ending::Reset);
        let mut flow = self.outgoing.lock();
        if flow.end.is_some() || came_to_end(flow.deaf) || came_to_end(reset.map(|(_, at)| at)) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if flow.deaf.is_some() {
            // It goes to nobody, which the writer does not know yet.
            return Poll::Ready(Ok(bytes.len()));
        }
        let room = STREAM_BYTES_MAX - flow.bytes;
        if room == 0 || flow.segments.len() >= STREAM_SEGMENTS_MAX {
            flow.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = bytes.len().min(room);
        let arrival = self.arrival().max(flow.last_arrival);
        flow.last_arrival = arrival;
        flow.bytes += taken;
        if flow.segments.is_empty() {
            // Otherwise the reader knows of one that arrives before.
            wake(&mut flow.reader);
        }
        flow.segments
            .push_back(Segment { arrival, bytes: bytes[..taken].iter().copied().collect() });
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let arrival = self.arrival();
        self.outgoing.end(Ending::Finished, arrival);
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let arrival = self.arrival();
        let crashed = !self.owner.is_alive();
        let how = if crashed { Ending::Reset } else { Ending::Finished };
        self.outgoing.end(how, arrival);
        let mut flow = self.incoming.lock();
        flow.deaf = Some(arrival);
        flow.segments.clear();
        flow.bytes = 0;
        wake(&mut flow.writer);
    }
}
