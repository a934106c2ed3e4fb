use std::collections::HashSet;

use crate::inbox::Row;

/// More rows than this are not drawn anew in one frame, so that no frame takes long, however much
/// comes at once: the rest follow in the next ones.
pub const ROWS_A_FRAME: usize = 30;

/// The rows to draw next, when `drawn` are on the screen and `all` should be: the newest first.
pub fn batch<'a>(drawn: &[Row], all: impl Iterator<Item = &'a Row>) -> Vec<Row> {
    let known: HashSet<u64> = drawn.iter().map(Row::slot).collect();
    let mut room = ROWS_A_FRAME;
    let fits = |row: &&Row| {
        if known.contains(&row.slot()) {
            return true;
        }
        let fits = room > 0;
        room = room.saturating_sub(1);
        fits
    };
    all.filter(fits).cloned().collect()
}

#[cfg(test)]
mod tests {
    use carillon_protocol::GapReason;

    use super::*;

    fn rows(slots: impl Iterator<Item = u64>) -> Vec<Row> {
        slots.map(|slot| Row::Gap { slot, reason: GapReason::Epoch }).collect()
    }

    fn slots(rows: &[Row]) -> Vec<u64> {
        rows.iter().map(Row::slot).collect()
    }

    #[test]
    fn a_few_new_ones_are_drawn_at_once() {
        let few = ROWS_A_FRAME as u64;
        let (drawn, all) = (rows((0..400).rev()), rows((0..400 + few).rev()));
        assert_eq!(slots(&batch(&drawn, all.iter())), slots(&all));
    }

    #[test]
    fn many_are_drawn_over_several_frames_the_newest_first() {
        let all = rows((0..1 + 3 * ROWS_A_FRAME as u64).rev());
        let mut drawn = rows(std::iter::once(0));
        for frame in 1..=3 {
            drawn = batch(&drawn, all.iter());
            assert_eq!(drawn.len(), ROWS_A_FRAME * frame + 1, "what is there stays");
            assert_eq!(slots(&drawn[..ROWS_A_FRAME * frame]), slots(&all[..ROWS_A_FRAME * frame]));
        }
        assert_eq!(slots(&drawn), slots(&all));
    }
}
