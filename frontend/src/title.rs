//! How many are unread, in few characters: in the window's title, at the bell and at the list.

use leptos::prelude::document;

use crate::inbox::Inbox;

/// A larger number is shown as this one.
const TOLD_MAX: usize = 99;

/// How many unread ones to tell of: what somebody looks at is being read.
#[must_use]
pub fn to_tell(inbox: &Inbox) -> usize {
    if inbox.reading().looking() && !inbox.rows().away() { 0 } else { inbox.unread() }
}

/// A number of unread ones in few characters; none for none.
#[must_use]
pub fn count_words(unread: usize) -> Option<String> {
    match unread {
        0 => None,
        1..=TOLD_MAX => Some(unread.to_string()),
        _ => Some(format!("{TOLD_MAX}+")),
    }
}

/// Says in the window's title how many are unread.
pub fn show(inbox: &Inbox) {
    let title = match count_words(to_tell(inbox)) {
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
