//! Pages of history, read for readers that are behind. Readers that stand at the same place share one read and one encoded
//! page, and all pages that are held are within a budget of bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use carillon_broker::{Broker, BrokerError, Gap};
use carillon_protocol::{Audience, Cursor};
use ipnet::IpNet;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::budget::{Budget, Permit};
use crate::frame::Frame;
use crate::metrics::{self, Limit};
use crate::reads::Reads;

/// Bytes of pages that are read, or wait to be written, at most.
pub(crate) const PAGES_MAX_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of one page at most, but for a single entry that is larger. It is taken from the budget before the read.
pub(crate) const PAGE_BYTES: usize = 64 * 1024;
/// A reader waits this long for its turn, and then asks again: its heartbeats go on.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// A read that was refused is logged at most this often.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// A page that was read this short ago serves another reader at the same place; an older one may lack what came since.
const SHARED_FOR: Duration = Duration::from_millis(100);

/// What was read.
#[derive(Debug)]
pub(crate) struct Page {
    /// In order.
    pub(crate) frames: Vec<Arc<Frame>>,
    /// Where it begins.
    pub(crate) from: Cursor,
    /// How far a reader has come that has taken all of it.
    pub(crate) reached: Cursor,
    /// What is gone before or between.
    pub(crate) gaps: Vec<Gap>,
    read_at: Instant,
    _permit: Permit,
}

type Key = (Arc<[Audience]>, Cursor);

/// Reads pages.
pub(crate) struct Pages {
    reads: Reads,
    budget: Arc<Budget>,
    /// Pages that somebody reads or still writes.
    shared: Mutex<HashMap<Key, Weak<OnceCell<Page>>>>,
    warned: Mutex<Option<Instant>>,
}

/// A page, shared with whoever stands at the same place.
#[derive(Clone, Debug)]
pub(crate) struct SharedPage(Arc<OnceCell<Page>>);

impl SharedPage {
    /// The page, which is there.
    #[must_use]
    pub(crate) fn get(&self) -> Option<&Page> {
        self.0.get()
    }
}

impl Pages {
    pub(crate) fn new(broker: Broker) -> Self {
        Self {
            reads: Reads::new(broker),
            budget: Budget::new(PAGES_MAX_BYTES),
            shared: Mutex::default(),
            warned: Mutex::default(),
        }
    }

    /// What reads history, here and for whoever asks for a page over HTTP.
    pub(crate) fn reads(&self) -> &Reads {
        &self.reads
    }

    /// The budget of what readers are sent, for a frame that is large by itself.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The entries after a cursor; `None` when it is not this reader's turn yet.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub(crate) async fn read(
        &self,
        audiences: &Arc<[Audience]>,
        since: &Cursor,
        network: Option<IpNet>,
    ) -> Result<Option<SharedPage>, BrokerError> {
        let cell = self.place(audiences, since);
        let read = async || {
            let permit = self.permit(network).await.ok_or(None)?;
            // Read at a time that is no later than what it has.
            let read_at = Instant::now();
            let history = self.reads.after(audiences, since, usize::MAX, PAGE_BYTES).await;
            let history = history.map_err(|error| {
                self.failed(&error);
                Some(error)
            })?;
            Ok(page(history, read_at, permit))
        };
        match cell.get_or_try_init(read).await {
            Ok(_) => Ok(Some(SharedPage(cell))),
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }

    /// Where the page of this place is, or will be.
    fn place(&self, audiences: &Arc<[Audience]>, since: &Cursor) -> Arc<OnceCell<Page>> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(audiences), since.clone());
        let is_fresh =
            |cell: &Arc<OnceCell<Page>>| cell.get().is_none_or(|page| page.read_at.elapsed() < SHARED_FOR);
        if let Some(cell) = shared.get(&key).and_then(Weak::upgrade).filter(is_fresh) {
            return cell;
        }
        shared.retain(|_, cell| cell.strong_count() > 0);
        let cell = Arc::default();
        shared.insert(key, Arc::downgrade(&cell));
        cell
    }

    /// Counts a read that was refused, and logs one now and then: each of many readers may get the same refusal each second.
    fn failed(&self, error: &BrokerError) {
        if matches!(error, BrokerError::Away(_)) {
            return;
        }
        metrics::history_failed();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!(%error, "history cannot be read");
        }
    }

    async fn permit(&self, network: Option<IpNet>) -> Option<Permit> {
        if let Some(permit) = self.budget.try_take(PAGE_BYTES, network) {
            return Some(permit);
        }
        metrics::limit_reached(Limit::HistoryReads);
        self.budget.take(PAGE_BYTES, network, TURN_TIMEOUT).await
    }
}

fn page(history: carillon_broker::History, read_at: Instant, mut permit: Permit) -> Page {
    let epoch = &history.reached.epoch;
    let frames: Vec<_> = history
        .entries
        .iter()
        .filter_map(|recalled| Frame::encode(epoch, &recalled.claimed_by, &recalled.stored).map(Arc::new))
        .collect();
    permit.shrink(frames.iter().map(|frame| frame.text.len()).sum());
    let carillon_broker::History { from, reached, gaps, .. } = history;
    Page { frames, from, reached, gaps, read_at, _permit: permit }
}
