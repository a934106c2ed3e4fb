use std::sync::Arc;

use carillon_broker::{EntryKind, MessageRef};
use carillon_protocol::{CloseCode, Cursor};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::delivery::frame::Frame;
use crate::delivery::hub::Direct;
use crate::delivery::pages::SharedPage;

/// Frames to write, in the order of the fields.
#[derive(Debug, Default)]
pub struct Output {
    /// Gap frames.
    pub gaps: Vec<Utf8Bytes>,
    /// Frames of entries.
    pub frames: Vec<Arc<Frame>>,
    /// Missed entries of a topic. They are older than the reader's position, so they carry the reader's cursor.
    pub missed: Vec<Utf8Bytes>,
    /// Frames outside of the sequence, and the cursor to put into them.
    pub direct: Option<(Vec<Direct>, Cursor)>,
    /// The code to close with; no frames follow.
    pub close: Option<CloseCode>,
    /// The page that the frames are from. It counts in the budget until they are written.
    pub(super) page: Option<SharedPage>,
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.gaps.is_empty()
            && self.frames.is_empty()
            && self.missed.is_empty()
            && self.direct.is_none()
            && self.close.is_none()
    }

    /// Whether a page stays in the budget until this output is written.
    pub(crate) fn is_charged(&self) -> bool {
        self.page.is_some()
    }

    /// The page that stays in the budget until this output is written.
    pub(crate) fn page(&self) -> Option<&SharedPage> {
        self.page.as_ref()
    }

    pub(super) fn close(code: CloseCode) -> Self {
        Self { close: Some(code), ..Self::default() }
    }

    /// The reason beside the close code.
    pub fn close_reason(&self) -> &'static str {
        match self.close {
            Some(CloseCode::REFUSED) => "the token or session was revoked",
            Some(CloseCode::SLOW) => "too many frames waited for this connection; resume from your cursor",
            Some(CloseCode::INTERNAL) => "this replica cannot read history; resume from your cursor",
            _ => "",
        }
    }

    /// Returns all frames as texts.
    pub fn texts(&self) -> impl Iterator<Item = Utf8Bytes> {
        (0..).map_while(|at| self.text(at))
    }

    /// Returns the frame at an index over all fields.
    pub(crate) fn text(&self, at: usize) -> Option<Utf8Bytes> {
        let missed = self.gaps.len();
        let frames = missed + self.missed.len();
        let directs = frames + self.frames.len();
        match at {
            _ if at < missed => self.gaps.get(at).cloned(),
            _ if at < frames => self.missed.get(at - missed).cloned(),
            _ if at < directs => self.frames.get(at - frames).map(|frame| frame.text.clone()),
            _ => {
                let (direct, cursor) = self.direct.as_ref()?;
                direct.get(at - directs).map(|one| one.frame(cursor))
            }
        }
    }

    /// The number of notifications.
    pub fn notifications(&self) -> usize {
        let of_frames = self.frames.iter().filter(|frame| frame.kind == EntryKind::Notification).count();
        of_frames + self.missed.len()
    }

    /// Messages from one user to another.
    pub fn messages(&self) -> impl Iterator<Item = &Arc<MessageRef>> {
        self.frames.iter().filter_map(|frame| frame.message.as_ref())
    }
}
