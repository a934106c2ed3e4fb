use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Fields;

/// What `GET /api/notifications` answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Page {
    /// Oldest first. There may be more also after a page with few or none: the end is where `next` stays as it is.
    pub items: Vec<PageItem>,
    /// The `since` of the next page, and of a reader that takes over from here.
    pub next: String,
    /// For a page that was read back with `before`: the `before` of the page before it, or null where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// Whether history no longer reached back to `since`.
    pub gap: bool,
    /// The cursor up to which the signed-in user has read, where that was ever said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<String>,
}

impl Page {
    /// Reads one; items that cannot be read are left out: they are of a version to come.
    #[must_use]
    pub fn read(fields: &Fields) -> Self {
        Self {
            items: fields.objects("items").iter().filter_map(PageItem::read).collect(),
            next: fields.text("next").unwrap_or_default(),
            previous: fields.text("previous"),
            gap: fields.is_true("gap"),
            read: fields.text("read"),
        }
    }
}

/// One notification of a page.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PageItem {
    /// Where a reader stands after it.
    pub cursor: String,
    /// The replica that won the race for it.
    pub claimed_by: String,
    /// The notification, in the producer's own bytes.
    #[cfg_attr(feature = "schema", schemars(with = "crate::frame::Complete"))]
    pub notification: Box<RawValue>,
}

impl PageItem {
    fn read(fields: &Fields) -> Option<Self> {
        let (cursor, claimed_by) = (fields.text("cursor")?, fields.text("claimed_by")?);
        Some(Self { cursor, claimed_by, notification: fields.json("notification")? })
    }
}
