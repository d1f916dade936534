//! One stream: two directions, each a bounded queue of segments with their times of arrival.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker, ready},
};

use env::Monotonic;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::Network;
use crate::limits::{STREAM_BYTES_MAX, STREAM_SEGMENTS_MAX};

/// What one side writes and the other reads.
#[derive(Default)]
struct Direction {
    flow: Mutex<Flow>,
}

#[derive(Default)]
struct Flow {
    segments: VecDeque<Segment>,
    /// Bytes in `segments`.
    bytes: usize,
    /// Nothing overtakes: no later segment arrives before this.
    last_arrival: Monotonic,
    /// The writer has ended; the reader learns of it then.
    end: Option<Monotonic>,
    reading: Reading,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Default, PartialEq, Eq)]
enum Reading {
    #[default]
    Open,
    Gone,
}

struct Segment {
    arrival: Monotonic,
    bytes: VecDeque<u8>,
}

impl Direction {
    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().expect("no code panics while it holds a stream")
    }

    fn end(&self, network: &Network) {
        let arrival = network.arrival();
        let mut flow = self.lock();
        if flow.end.is_none() {
            flow.end = Some(arrival.max(flow.last_arrival));
            wake(&mut flow.reader);
        }
    }
}

/// One side of a stream. Dropping it ends both directions, after what was written.
pub(super) struct End {
    network: Arc<Network>,
    incoming: Arc<Direction>,
    outgoing: Arc<Direction>,
    /// Until the next segment arrives.
    arriving: Option<Pin<Box<Sleep>>>,
}

/// Two connected sides.
pub(super) fn pair(network: &Arc<Network>) -> (End, End) {
    let (there, back) = (Arc::<Direction>::default(), Arc::<Direction>::default());
    let end = |incoming: &Arc<Direction>, outgoing: &Arc<Direction>| End {
        network: Arc::clone(network),
        incoming: Arc::clone(incoming),
        outgoing: Arc::clone(outgoing),
        arriving: None,
    };
    (end(&back, &there), end(&there, &back))
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Flow {
    /// When there is something to read, be it the end; `None` where nothing is on its way.
    fn next_arrival(&self) -> Option<Monotonic> {
        self.segments.front().map(|segment| segment.arrival).or(self.end)
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
                    flow.take(now, buffer);
                    return Poll::Ready(Ok(()));
                }
                Some(arrival) => {
                    drop(flow);
                    let clock = &this.network.clock;
                    let arriving = this.arriving.get_or_insert_with(|| clock.sleep_until(arrival));
                    ready!(arriving.as_mut().poll(cx));
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
        let mut flow = self.outgoing.lock();
        if flow.reading == Reading::Gone || flow.end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = STREAM_BYTES_MAX - flow.bytes;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if room == 0 || flow.segments.len() >= STREAM_SEGMENTS_MAX {
            flow.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = bytes.len().min(room);
        let arrival = self.network.arrival().max(flow.last_arrival);
        flow.last_arrival = arrival;
        flow.bytes += taken;
        flow.segments
            .push_back(Segment { arrival, bytes: bytes[..taken].iter().copied().collect() });
        wake(&mut flow.reader);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.end(&self.network);
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.outgoing.end(&self.network);
        let mut flow = self.incoming.lock();
        flow.reading = Reading::Gone;
        flow.segments.clear();
        flow.bytes = 0;
        wake(&mut flow.writer);
    }
}
