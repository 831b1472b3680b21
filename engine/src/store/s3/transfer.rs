//! Bytes on their way: content that is sent piece by piece, requests that are given up when nothing
//! moves.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use crate::store::Body;
use crate::store::limits::Pace;
use crate::{Cancel, Result};

/// Pieces that are handed to the connection.
const PIECE: usize = 128 << 10;
/// Between two looks at what moves, and at the cancel flag.
const GLANCE: Duration = Duration::from_millis(50);

/// When something moved last.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    began: Instant,
    /// Milliseconds since it began.
    moved: Arc<AtomicU64>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), moved: Arc::default() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Something moved.
    pub(super) fn moved(&self) {
        self.moved.store(self.now(), Ordering::Relaxed);
    }

    /// Nothing will move for that long, on purpose.
    fn pausing(&self, pause: Duration) {
        let until = self.now().saturating_add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        self.moved.store(until, Ordering::Relaxed);
    }

    fn still(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.moved.load(Ordering::Relaxed)))
    }
}

/// Waits for a request; `None` when nothing moved for `stall`.
pub(super) async fn watched<T>(
    request: impl Future<Output = T>,
    progress: &Progress,
    stall: Duration,
    cancel: &Cancel,
) -> Result<Option<T>> {
    let mut request = pin!(request);
    loop {
        if let Ok(done) = tokio::time::timeout(GLANCE, &mut request).await {
            return Ok(Some(done));
        }
        cancel.check()?;
        if progress.still() > stall {
            return Ok(None);
        }
    }
}

/// Waits as the pace says after so many bytes.
pub(super) async fn paced(pace: &Pace, bytes: usize, progress: &Progress) {
    let pause = pace.charge(bytes as u64);
    if !pause.is_zero() {
        progress.pausing(pause);
        tokio::time::sleep(pause).await;
    }
}

/// Content on its way out.
pub(super) struct Outgoing {
    body: Body,
    part: usize,
    at: usize,
    left: u64,
    pace: Arc<Pace>,
    pause: Option<Pin<Box<Sleep>>>,
    progress: Progress,
}

impl Outgoing {
    pub(super) fn new(body: Body, pace: Arc<Pace>, progress: Progress) -> Self {
        let left = body.len();
        Self { body, part: 0, at: 0, left, pace, pause: None, progress }
    }

    fn next_piece(&mut self) -> Option<Bytes> {
        loop {
            let part = self.body.parts().get(self.part)?;
            let piece = part.len().saturating_sub(self.at).min(PIECE);
            if piece > 0 {
                let bytes = part.slice(self.at..self.at + piece);
                self.at += piece;
                self.left -= piece as u64;
                return Some(bytes);
            }
            self.part += 1;
            self.at = 0;
        }
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(context));
            this.pause = None;
        }
        this.progress.moved();
        let Some(piece) = this.next_piece() else { return Poll::Ready(None) };
        let pause = this.pace.charge(piece.len() as u64);
        if !pause.is_zero() {
            this.progress.pausing(pause);
            this.pause = Some(Box::pin(tokio::time::sleep(pause)));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
