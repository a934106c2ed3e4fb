//! The format of a fan-out message, as append.lua writes it: a line with the epoch and the replica that claimed, then for
//! each entry a line with its position, the position before it, its kind and its length, and its bytes. A first line of two
//! words is the first format. A later format begins with its number, so that a replica that knows only the first one finds a
//! word too many.

use carillon_protocol::Audience;

use super::{EntryKind, Fanout, Stored};

pub(super) fn decode_fanout(audience: Audience, payload: &[u8]) -> Option<Fanout> {
    let (head, mut rest) = line(payload)?;
    let mut words = head.split(' ');
    let (epoch, claimed_by) = (words.next()?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (head, tail) = line(rest)?;
        let mut words = head.split(' ');
        let (position, prev) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let kind = EntryKind::of(words.next()?);
        let (raw, after) = tail.split_at_checked(words.next()?.parse().ok()?)?;
        entries.push(Stored { position, prev, kind, raw: raw.to_vec() });
        rest = after;
    }
    if entries.is_empty() {
        return None;
    }
    Some(Fanout { audience, epoch: epoch.to_owned(), claimed_by: claimed_by.to_owned(), entries })
}

fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_cut_out_by_their_length_and_not_by_what_they_hold() {
        let payload = b"e1 bff-2\n5-0 0-0 notification 3\na\nb5-1 5-0 status 1\nc";
        let fanout = decode_fanout(Audience::Everyone, payload).unwrap();
        let found: Vec<_> = fanout
            .entries
            .iter()
            .map(|entry| (entry.position.to_string(), entry.prev.to_string(), entry.raw.as_slice()))
            .collect();
        assert_eq!(
            found,
            [("5-0".into(), "0-0".into(), &b"a\nb"[..]), ("5-1".into(), "5-0".into(), &b"c"[..])]
        );
        assert_eq!(
            [EntryKind::Notification, EntryKind::Status],
            [fanout.entries[0].kind, fanout.entries[1].kind]
        );
        assert_eq!((fanout.epoch.as_str(), fanout.claimed_by.as_str()), ("e1", "bff-2"));
    }

    #[test]
    fn a_kind_of_a_later_version_keeps_its_place() {
        let fanout = decode_fanout(Audience::Everyone, b"e b\n5-0 0-0 smell 1\na5-1 5-0 read 2\n{}").unwrap();
        let kinds: Vec<_> = fanout.entries.iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [EntryKind::Unknown, EntryKind::Read]);
    }

    #[test]
    fn a_truncated_entry_is_ignored() {
        for payload in [
            "",
            "e1\n",
            "e1 b\n",
            "e1 b\n5-0 0-0 notification 9\nabc",
            "e1 b\n5-0 0-0 3\nabc",
            "e1 b\nx 0-0 notification 1\na",
            "e1 b\n5-0 0-0 notification 99999999999999999999\na",
            // A later format.
            "2 e1 b\n5-0 0-0 notification 1\na",
        ] {
            assert_eq!(decode_fanout(Audience::Everyone, payload.as_bytes()), None, "{payload}");
        }
    }
}
