/// Maximum replicas with a bar. Beyond it, the replica whose last claim is oldest joins the others.
pub const RACERS_MAX: usize = 12;
/// The number of colours of bars, `--racer-0` and on in the style sheet.
pub const RACER_HUES: usize = 8;
/// A replica is quiet when it has claimed nothing for this long …
pub const QUIET_AFTER_MS: u64 = 30_000;
/// … while others claimed this often: with three replicas, this happens by chance in one of 130 cases.
pub const QUIET_AFTER_WINS: u64 = 12;

#[derive(Clone, Debug)]
struct Racer {
    entry: u64,
    name: String,
    hue: usize,
    wins: u64,
    won_at_ms: u64,
    /// The total number of claims at its last one.
    won_at_total: u64,
}

/// One bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its slot, for as long as it has a bar.
    pub entry: u64,
    /// The replica.
    pub name: String,
    /// Its colour, below [`RACER_HUES`].
    pub hue: usize,
    /// The number of its claims.
    pub wins: u64,
    /// Its share of all claims, in percent.
    pub percent: u64,
    /// Its claims relative to the leader, in thousandths.
    pub length: u64,
    /// Whether it made the last claim.
    pub last: bool,
    /// For how many seconds it has claimed nothing, if it is quiet.
    pub quiet_s: Option<u64>,
}

/// The number of claims of each replica.
#[derive(Clone, Debug, Default)]
pub struct Race {
    /// Sorted by name, so that bars keep their order.
    racers: Vec<Racer>,
    entries: u64,
    total: u64,
    others: u64,
    last: Option<String>,
}

impl Race {
    /// The number of all claims.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The number of claims by replicas without a bar.
    pub fn others(&self) -> u64 {
        self.others
    }

    /// The bars, by name.
    pub fn standings(&self, now_ms: u64) -> Vec<Standing> {
        let most = self.racers.iter().map(|racer| racer.wins).max().unwrap_or(1).max(1);
        let bar = |racer: &Racer| Standing {
            entry: racer.entry,
            name: racer.name.clone(),
            hue: racer.hue,
            wins: racer.wins,
            percent: (racer.wins * 100 + self.total / 2) / self.total.max(1),
            length: racer.wins * 1_000 / most,
            last: self.last.as_deref() == Some(&racer.name),
            quiet_s: self.quiet_s(racer, now_ms),
        };
        self.racers.iter().map(bar).collect()
    }

    fn quiet_s(&self, racer: &Racer, now_ms: u64) -> Option<u64> {
        let quiet_ms = now_ms.saturating_sub(racer.won_at_ms);
        let missed = self.total - racer.won_at_total;
        (quiet_ms >= QUIET_AFTER_MS && missed >= QUIET_AFTER_WINS).then_some(quiet_ms / 1_000)
    }

    pub(super) fn won(&mut self, now_ms: u64, name: &str) {
        self.total += 1;
        let at = match self.racers.binary_search_by(|racer| racer.name.as_str().cmp(name)) {
            Ok(at) => at,
            Err(_) => self.enter(name),
        };
        let racer = &mut self.racers[at];
        racer.wins += 1;
        racer.won_at_ms = now_ms;
        racer.won_at_total = self.total;
        self.last = Some(name.to_owned());
    }

    fn enter(&mut self, name: &str) -> usize {
        if self.racers.len() == RACERS_MAX {
            let oldest = (0..RACERS_MAX).min_by_key(|&at| self.racers[at].won_at_total).unwrap_or_default();
            self.others += self.racers.remove(oldest).wins;
        }
        self.entries += 1;
        let (entry, hue) = (self.entries, self.hue(name));
        let racer = Racer { entry, name: name.to_owned(), hue, wins: 0, won_at_ms: 0, won_at_total: 0 };
        let at = self.racers.partition_point(|racer| racer.name.as_str() < name);
        self.racers.insert(at, racer);
        at
    }

    /// Returns the colour of a name, or the next free one. Names that differ in their last digit get neighbouring colours.
    fn hue(&self, name: &str) -> usize {
        let wanted = name.bytes().map(usize::from).sum::<usize>() % RACER_HUES;
        let free = |hue: &usize| self.racers.iter().all(|racer| racer.hue != *hue);
        (wanted..wanted + RACER_HUES).map(|hue| hue % RACER_HUES).find(free).unwrap_or(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn race(names: &[&str]) -> Race {
        let mut race = Race::default();
        for name in names {
            race.won(0, name);
        }
        race
    }

    #[test]
    fn counts_shares_and_the_last_winner() {
        let race = race(&["bff-2", "bff-1", "bff-2"]);
        let bars: Vec<_> = race
            .standings(0)
            .into_iter()
            .map(|bar| (bar.name, bar.wins, bar.percent, bar.length, bar.last))
            .collect();
        assert_eq!(bars, [("bff-1".into(), 1, 33, 500, false), ("bff-2".into(), 2, 67, 1_000, true)]);
    }

    #[test]
    fn a_colour_belongs_to_a_name_whoever_comes_first() {
        let hues = |names: &[&str]| {
            race(names).standings(0).into_iter().map(|bar| (bar.name, bar.hue)).collect::<Vec<_>>()
        };
        assert_eq!(hues(&["bff-1", "bff-2", "bff-3"]), hues(&["bff-3", "bff-1", "bff-2"]));
        let clash = hues(&["ab", "ba"]);
        assert_ne!(clash[0].1, clash[1].1);
    }

    #[test]
    fn a_replica_is_quiet_when_others_won_often_and_for_long() {
        let mut race = race(&["a"]);
        for _ in 0..QUIET_AFTER_WINS - 1 {
            race.won(QUIET_AFTER_MS, "b");
        }
        assert_eq!(race.standings(QUIET_AFTER_MS)[0].quiet_s, None, "too few to tell");
        race.won(QUIET_AFTER_MS, "b");
        assert_eq!(race.standings(QUIET_AFTER_MS - 1)[0].quiet_s, None, "not for long yet");
        assert_eq!(race.standings(QUIET_AFTER_MS)[0].quiet_s, Some(30));
        race.won(QUIET_AFTER_MS + 1, "a");
        assert_eq!(race.standings(QUIET_AFTER_MS * 9)[0].quiet_s, None);
        assert_eq!(race.standings(QUIET_AFTER_MS * 9)[1].quiet_s, None, "when nobody wins nobody is quiet");
    }

    #[test]
    fn has_a_bounded_number_of_bars_and_forgets_no_win() {
        let mut race = Race::default();
        for pod in 0..100 {
            race.won(pod, &format!("pod-{pod:03}"));
        }
        let bars = race.standings(100);
        assert_eq!(bars.len(), RACERS_MAX);
        assert_eq!(bars[0].name, "pod-088");
        assert_eq!(race.others() + bars.iter().map(|bar| bar.wins).sum::<u64>(), race.total());
        assert!(bars.iter().all(|bar| bar.hue < RACER_HUES));
    }
}
