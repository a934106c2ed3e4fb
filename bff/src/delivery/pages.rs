//! Pages of history for readers that are behind. Readers with the same audiences and position share one read and one encoded
//! page, and all pages in memory are within a budget of bytes.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use carillon_broker::{Broker, BrokerError, Gap};
use carillon_protocol::{Audience, Cursor};
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::delivery::frame::Frame;
use crate::delivery::reads::Reads;
use crate::limits::budget::{Budget, Permit};
use crate::metrics::{self, Limit};

/// Maximum bytes of pages that are being read or wait to be written.
pub(crate) const PAGES_MAX_BYTES: usize = 32 * 1024 * 1024;
/// Maximum bytes of one page, except for a single entry that is larger. They are taken from the budget before the read.
pub(crate) const PAGE_BYTES: usize = 64 * 1024;
/// A reader waits this long for the budget and then starts over, so that its heartbeats continue.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// The shortest time between two log lines about report_failure reads.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// A page younger than this is shared with another reader; an older one may lack newer entries.
const SHARED_FOR: Duration = Duration::from_millis(100);

/// A page that was read.
#[derive(Debug)]
pub(crate) struct Page {
    /// The frames, in order.
    pub(crate) frames: Vec<Arc<Frame>>,
    /// The cursor before the first frame.
    pub(crate) from: Cursor,
    /// The cursor of a reader that has taken the whole page.
    pub(crate) reached: Cursor,
    /// Entries that history lacks before or between the frames.
    pub(crate) gaps: Vec<Gap>,
    read_at: Instant,
    _permit: Permit,
}

type Key = (Arc<[Audience]>, Cursor);

/// Reads pages and shares them.
pub(crate) struct Pages {
    reads: Reads,
    budget: Arc<Budget>,
    /// Pages that are being read or written.
    shared: Mutex<HashMap<Key, Weak<OnceCell<Page>>>>,
    warned: Mutex<Option<Instant>>,
}

/// A page that readers share.
#[derive(Clone, Debug)]
pub(crate) struct SharedPage(Arc<OnceCell<Page>>);

impl SharedPage {
    /// Returns the page, once it is read.
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

    /// The bounded reads of history, which `GET /api/notifications` uses too.
    pub(crate) fn reads(&self) -> &Reads {
        &self.reads
    }

    /// The budget of bytes to write, which large single frames are charged to as well.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Returns the entries after a cursor, or `None` when the budget gave no room in time.
    pub(crate) async fn read(
        &self,
        audiences: &Arc<[Audience]>,
        since: &Cursor,
        network: Option<IpNet>,
    ) -> Result<Option<SharedPage>, BrokerError> {
        let cell = self.cell(audiences, since);
        let read = async || {
            let permit = self.permit(network).await.ok_or(None)?;
            // Taken before the read, so that the page is never older than it seems.
            let read_at = Instant::now();
            let history = self.reads.after(audiences, since, usize::MAX, PAGE_BYTES).await;
            let history = history.map_err(|error| {
                self.report_failure(&error);
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

    /// Returns the cell of the page at this cursor, which may be empty still.
    fn cell(&self, audiences: &Arc<[Audience]>, since: &Cursor) -> Arc<OnceCell<Page>> {
        let mut shared = self.shared.lock();
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

    /// Counts a report_failure read, and logs one from time to time: many readers may get the same error each second.
    fn report_failure(&self, error: &BrokerError) {
        if matches!(error, BrokerError::Away(_)) {
            return;
        }
        metrics::history_failed();
        let mut warned = self.warned.lock();
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
