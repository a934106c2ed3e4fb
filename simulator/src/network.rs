//! The network between devices and replicas: bytes arrive late and in order, or the connection ends, or it goes dead without
//! a word.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use carillon_broker::Delay;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Bytes that each of the buffers of a connection holds.
const BUFFER_BYTES: usize = 64 * 1024;
const CHUNK_BYTES: usize = 16 * 1024;

/// A connection, to break it.
#[derive(Clone, Default)]
pub(crate) struct Path {
    cut: CancellationToken,
    hangs: Arc<AtomicBool>,
}

impl Path {
    /// Connects two ends.
    pub(crate) fn connect(delay: &Delay, tasks: &TaskTracker) -> (DuplexStream, DuplexStream, Self) {
        let ((client, near), (server, far)) = (duplex(BUFFER_BYTES), duplex(BUFFER_BYTES));
        let path = Self::default();
        let ((near_reads, near_writes), (far_reads, far_writes)) = (split(near), split(far));
        tasks.spawn(path.clone().carry(near_reads, far_writes, Arc::clone(delay)));
        tasks.spawn(path.clone().carry(far_reads, near_writes, Arc::clone(delay)));
        (client, server, path)
    }

    /// Ends the connection for both ends.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }

    /// From now on nothing arrives, and neither end is told.
    pub(crate) fn hang(&self) {
        self.hangs.store(true, Ordering::Relaxed);
    }

    async fn carry(self, mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>, delay: Delay) {
        let carrying = async {
            let mut chunk = vec![0; CHUNK_BYTES];
            while let Ok(bytes @ 1..) = from.read(&mut chunk).await {
                sleep(delay()).await;
                if self.hangs.load(Ordering::Relaxed) {
                    continue;
                }
                if to.write_all(&chunk[..bytes]).await.is_err() {
                    return;
                }
            }
            let _ = to.shutdown().await;
            // The other direction goes on, until it ends too.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = self.cut.cancelled() => {}
            () = carrying => self.cut.cancel(),
        }
    }
}
