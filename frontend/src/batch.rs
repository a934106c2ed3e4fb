use std::collections::HashSet;

/// Maximum rows that are drawn in one frame, so that no frame takes long; the rest follow in the next frames.
pub const ROWS_A_FRAME: usize = 30;

/// Returns the slots of the rows to draw next, newest first, when `drawn` are on the screen and `all` should be.
pub fn batch(drawn: &[u64], all: impl Iterator<Item = u64>) -> Vec<u64> {
    let known: HashSet<u64> = drawn.iter().copied().collect();
    let mut room = ROWS_A_FRAME;
    let fits = |slot: &u64| {
        if known.contains(slot) {
            return true;
        }
        let fits = room > 0;
        room = room.saturating_sub(1);
        fits
    };
    all.filter(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_new_rows_are_drawn_at_once() {
        let few = ROWS_A_FRAME as u64;
        let (drawn, all): (Vec<_>, Vec<_>) = ((0..400).rev().collect(), (0..400 + few).rev().collect());
        assert_eq!(batch(&drawn, all.iter().copied()), all);
    }

    #[test]
    fn many_rows_are_drawn_over_several_frames_newest_first() {
        let all: Vec<_> = (0..1 + 3 * ROWS_A_FRAME as u64).rev().collect();
        let mut drawn = vec![0];
        for frame in 1..=3 {
            drawn = batch(&drawn, all.iter().copied());
            assert_eq!(drawn.len(), ROWS_A_FRAME * frame + 1, "what is there stays");
            assert_eq!(drawn[..ROWS_A_FRAME * frame], all[..ROWS_A_FRAME * frame]);
        }
        assert_eq!(drawn, all);
    }
}
