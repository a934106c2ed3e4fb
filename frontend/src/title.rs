//! The number of unread items, in few characters: in the window's title, at the bell and at the list.

use leptos::prelude::document;

use crate::inbox::Inbox;

/// A larger number is shown as this one with a plus.
const SHOWN_MAX: usize = 99;

/// The number of unread items to show; items that are visible count as read.
pub fn to_show(inbox: &Inbox) -> usize {
    if inbox.reading().is_visible() && !inbox.rows().away() { 0 } else { inbox.unread() }
}

/// Returns the number in few characters; `None` for zero.
pub fn count_words(unread: usize) -> Option<String> {
    match unread {
        0 => None,
        1..=SHOWN_MAX => Some(unread.to_string()),
        _ => Some(format!("{SHOWN_MAX}+")),
    }
}

/// Shows the number of unread items in the window's title.
pub fn show(inbox: &Inbox) {
    let title = match count_words(to_show(inbox)) {
        None => "Carillon".to_owned(),
        Some(count) => format!("({count}) Carillon"),
    };
    if document().title() != title {
        document().set_title(&title);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short() {
        assert_eq!(count_words(0), None);
        assert_eq!([1, 99, 100].map(count_words), [Some("1".into()), Some("99".into()), Some("99+".into())]);
    }
}
