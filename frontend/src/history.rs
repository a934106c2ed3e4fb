//! Reads what came before the page was there.

use carillon_protocol::limits::{ENTRY_MAX_BYTES, PAGE_MAX_BYTES, PAGE_MAX_ITEMS};
use carillon_protocol::{Cursor, Delivery};

use crate::access::Access;
use crate::fields::Fields;
use crate::http::{Fault, get};
use crate::inbox::Past;

/// Pages that are read before the socket takes over, which brings the rest.
pub const FILL_MAX_PAGES: usize = 20;
/// A page of fewer bytes would have had room for another item.
const FULL_MIN_BYTES: usize = PAGE_MAX_BYTES - 2 * ENTRY_MAX_BYTES;

/// Everything after `since`, or, where nothing is named, from the beginning. What the user has read does
/// not matter then, where there is more than one page.
pub async fn read(access: &Access, since: Option<String>) -> Result<Past, Fault> {
    let mut past = Past { since: since.clone(), ..Past::default() };
    let mut at = since;
    for _ in 0..FILL_MAX_PAGES {
        let page = get(&path(at.as_deref()), access).await?;
        let items = page.objects("items");
        let bytes: usize = items.iter().filter_map(|item| item.raw("notification")).map(str::len).sum();
        let whole = items.len() < PAGE_MAX_ITEMS && bytes < FULL_MIN_BYTES;
        past.gap |= page.is_true("gap");
        past.items.extend(items.iter().filter_map(delivery));
        past.next = page.text("next").unwrap_or_default();
        past.read = page.text("read").or(past.read);
        if whole {
            break;
        }
        at = Some(match past.read.as_deref().filter(|read| is_later(read, &past.next)) {
            Some(read) => {
                past.items.clear();
                past.since = Some(read.to_owned());
                read.to_owned()
            }
            None => past.next.clone(),
        });
    }
    Ok(past)
}

fn path(since: Option<&str>) -> String {
    let path = format!("/api/notifications?limit={PAGE_MAX_ITEMS}");
    match since {
        None => path,
        Some(since) => format!("{path}&since={}", String::from(js_sys::encode_uri_component(since))),
    }
}

/// What cannot be read is not shown: it is of a version to come.
fn delivery(item: &Fields) -> Option<Delivery> {
    let notification = serde_json::from_str(item.raw("notification")?).ok()?;
    Some(Delivery { notification, claimed_by: item.text("claimed_by")?, cursor: item.text("cursor")? })
}

fn is_later(cursor: &str, than: &str) -> bool {
    let pair = cursor.parse::<Cursor>().ok().zip(than.parse::<Cursor>().ok());
    pair.is_some_and(|(cursor, than)| cursor.epoch == than.epoch && cursor.position > than.position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_of_a_page_is_read_and_one_that_lacks_something_is_not() {
        let json = r#"{"cursor":"a.1-0","claimed_by":"bff-2","notification":{"id":"n","body":"b"}}"#;
        let read = delivery(&Fields::read(json).unwrap()).unwrap();
        assert_eq!(
            (read.notification.id.as_str(), read.claimed_by.as_str(), read.cursor.as_str()),
            ("n", "bff-2", "a.1-0")
        );
        assert!(delivery(&Fields::read(r#"{"cursor":"a.1-0","claimed_by":"bff-2"}"#).unwrap()).is_none());
    }

    #[test]
    fn a_cursor_is_later_only_within_one_data_set() {
        assert!(is_later("a.2-0", "a.1-9") && !is_later("a.1-0", "a.1-0") && !is_later("b.2-0", "a.1-0"));
    }
}
