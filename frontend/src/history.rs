//! Fetches the notifications from before the page was opened, from the newest end: those that a reader sees first are
//! fetched first, however many there are.

use carillon_protocol::Delivery;
use carillon_protocol::http::{Page, PageItem};

use crate::access::Access;
use crate::http::{Fault, get};
use crate::inbox::{LIST_MAX_ROWS, Past};

/// Fetches as many notifications after `since`, or of all, as the list shows.
pub async fn read(access: &Access, since: Option<String>) -> Result<Past, Fault> {
    let page = get(&path(since.as_deref()), access).await?;
    Ok(past(Page::read(&page), since))
}

fn path(since: Option<&str>) -> String {
    let path = format!("/api/notifications?before=now&limit={LIST_MAX_ROWS}");
    match since {
        None => path,
        Some(since) => format!("{path}&since={}", String::from(js_sys::encode_uri_component(since))),
    }
}

/// Where there is more before the page, it begins after its oldest item, which is left out.
fn past(page: Page, since: Option<String>) -> Past {
    let Page { items, next, previous, gap, read } = page;
    let mut items: Vec<_> = items.into_iter().filter_map(delivery).collect();
    if let Some(previous) = &previous {
        items.retain(|item| item.cursor != *previous);
    }
    Past { items, sent: Vec::new(), since: previous.or(since), next, gap, read }
}

/// What cannot be read is not shown: it is of a version to come.
fn delivery(item: PageItem) -> Option<Delivery> {
    let PageItem { cursor, claimed_by, notification } = item;
    Some(Delivery { notification: serde_json::from_str(notification.get()).ok()?, claimed_by, cursor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_of_a_page_is_read_and_one_without_a_notification_is_not() {
        let item = |json: &str| serde_json::from_str::<PageItem>(json).unwrap();
        let json = r#"{"cursor":"a.1-0","claimed_by":"bff-2","notification":{"id":"n","body":"b"}}"#;
        let read = delivery(item(json)).unwrap();
        assert_eq!(
            (read.notification.id.as_str(), read.claimed_by.as_str(), read.cursor.as_str()),
            ("n", "bff-2", "a.1-0")
        );
        assert!(delivery(item(r#"{"cursor":"a.1-0","claimed_by":"bff-2","notification":7}"#)).is_none());
    }

    #[test]
    fn a_page_begins_where_it_was_left_or_after_its_oldest_item() {
        let item = |n: u32| {
            format!(r#"{{"cursor":"a.{n}-0","claimed_by":"b","notification":{{"id":"{n}","body":"b"}}}}"#)
        };
        let page = |previous: &str| {
            let items = [item(4), item(5)].join(",");
            let page = format!(r#"{{"items":[{items}],"next":"a.9-0","gap":false{previous}}}"#);
            let past = past(serde_json::from_str(&page).unwrap(), Some("a.3-0".to_owned()));
            let ids = past.items.iter().map(|item| item.notification.id.clone()).collect::<Vec<_>>();
            (ids, past.since.unwrap(), past.next)
        };
        let all = vec!["4".to_owned(), "5".to_owned()];
        assert_eq!(page(""), (all, "a.3-0".to_owned(), "a.9-0".to_owned()));
        let rest = vec!["5".to_owned()];
        assert_eq!(page(r#","previous":"a.4-0""#), (rest, "a.4-0".to_owned(), "a.9-0".to_owned()));
    }
}
