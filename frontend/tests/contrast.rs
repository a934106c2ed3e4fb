//! Text can be read on every surface, in both themes: WCAG 2.2 AA, computed from the style sheet.

use std::collections::BTreeMap;

const STYLE: &str = include_str!("../style.css");
/// WCAG 1.4.3, for text.
const TEXT_MIN_CONTRAST: f64 = 4.5;
/// WCAG 1.4.11, for what has to be seen to understand a drawing.
const DRAWING_MIN_CONTRAST: f64 = 3.0;
/// Colours that are less apart than this, in OKLab, are taken for one another at a glance.
const APART_MIN: f64 = 0.07;
/// How far outside sRGB a colour may lie: what rounding its numbers does.
const GAMUT_TOLERANCE: f64 = 0.004;

#[derive(Clone, Copy, Debug)]
struct Oklch {
    lightness: f64,
    chroma: f64,
    hue_degrees: f64,
}

impl Oklch {
    /// Linear sRGB, by Björn Ottosson's "A perceptual color space for image processing".
    fn linear_rgb(self) -> [f64; 3] {
        let (sin, cos) = self.hue_degrees.to_radians().sin_cos();
        let (a, b) = (self.chroma * cos, self.chroma * sin);
        let cone = |from_a: f64, from_b: f64| (self.lightness + from_a * a + from_b * b).powi(3);
        let l = cone(0.396_337_777_4, 0.215_803_757_3);
        let m = cone(-0.105_561_345_8, -0.063_854_172_8);
        let s = cone(-0.089_484_177_5, -1.291_485_548);
        [
            4.076_741_662_1 * l - 3.307_711_591_3 * m + 0.230_969_929_2 * s,
            -1.268_438_004_6 * l + 2.609_757_401_1 * m - 0.341_319_396_5 * s,
            -0.004_196_086_3 * l - 0.703_418_614_7 * m + 1.707_614_701 * s,
        ]
    }

    fn luminance(self) -> f64 {
        let [red, green, blue] = self.linear_rgb().map(|part| part.clamp(0.0, 1.0));
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }

    /// How far apart two colours are seen to be, in OKLab.
    fn distance(self, other: Self) -> f64 {
        let place = |colour: Self| {
            let (sin, cos) = colour.hue_degrees.to_radians().sin_cos();
            [colour.lightness, colour.chroma * cos, colour.chroma * sin]
        };
        let squares = place(self).into_iter().zip(place(other)).map(|(one, two)| (one - two).powi(2));
        squares.sum::<f64>().sqrt()
    }

    fn contrast(self, other: Self) -> f64 {
        let (one, two) = (self.luminance(), other.luminance());
        (one.max(two) + 0.05) / (one.min(two) + 0.05)
    }
}

/// The tokens of the light theme and of the dark one.
fn themes() -> [BTreeMap<String, Oklch>; 2] {
    let mut themes = [BTreeMap::new(), BTreeMap::new()];
    for line in STYLE.lines() {
        let Some((name, value)) = line.trim().strip_prefix("--").and_then(|line| line.split_once(": "))
        else {
            continue;
        };
        let Some(pair) = value.strip_prefix("light-dark(").and_then(|pair| pair.strip_suffix(");")) else {
            continue;
        };
        let colours: Vec<_> = pair.split("), ").map(|text| oklch(name, text)).collect();
        assert_eq!(colours.len(), 2, "{name} has a colour for each theme");
        for (theme, colour) in themes.iter_mut().zip(colours) {
            theme.insert(name.to_owned(), colour);
        }
    }
    themes
}

fn oklch(name: &str, text: &str) -> Oklch {
    let inner = text.strip_prefix("oklch(").unwrap_or_else(|| panic!("{name}: {text} is no oklch colour"));
    let parts: Vec<f64> = inner
        .trim_end_matches(')')
        .split(' ')
        .map(|part| part.trim_end_matches('%').parse().unwrap_or_else(|_| panic!("{name}: {part}")))
        .collect();
    let [percent, chroma, hue_degrees] = parts[..] else { panic!("{name}: {text} has three numbers") };
    Oklch { lightness: percent / 100.0, chroma, hue_degrees }
}

/// What falls short, for every colour of `inks` on every one of `grounds`.
fn faults(inks: &[&str], grounds: &[&str], least: f64) -> Vec<String> {
    let mut faults = Vec::new();
    for (theme, tokens) in ["light", "dark"].iter().zip(themes()) {
        for (ink, ground) in inks.iter().flat_map(|ink| grounds.iter().map(move |ground| (ink, ground))) {
            let contrast = tokens[*ink].contrast(tokens[*ground]);
            if contrast < least {
                faults.push(format!("{theme}: {ink} on {ground} has {contrast:.2}, at least {least}"));
            }
        }
    }
    faults
}

const GROUNDS: [&str; 3] = ["surface", "raised", "sunken"];
const SEVERITIES: [&str; 4] = ["info", "success", "warning", "error"];

#[test]
fn text_is_readable_on_every_surface_in_both_themes() {
    let inks = ["text", "muted", "accent", "info", "success", "warning", "error"];
    assert_eq!(faults(&inks, &GROUNDS, TEXT_MIN_CONTRAST), [""; 0]);
    assert_eq!(faults(&["on-accent"], &["accent"], TEXT_MIN_CONTRAST), [""; 0]);
    for severity in SEVERITIES {
        let tint = format!("{severity}-tint");
        assert_eq!(faults(&["text", severity], &[&tint], TEXT_MIN_CONTRAST), [""; 0]);
    }
}

#[test]
fn bars_are_seen_on_their_track() {
    let racers: Vec<_> = (0..8).map(|racer| format!("racer-{racer}")).collect();
    let racers: Vec<_> = racers.iter().map(String::as_str).chain(["brass", "edge"]).collect();
    assert_eq!(faults(&racers, &GROUNDS, DRAWING_MIN_CONTRAST), [""; 0]);
}

#[test]
fn no_replica_looks_like_a_severity_or_like_its_neighbour() {
    for tokens in themes() {
        let racers: Vec<_> = (0..8).map(|racer| tokens[&format!("racer-{racer}")]).collect();
        for (at, racer) in racers.iter().enumerate() {
            for severity in SEVERITIES {
                let apart = racer.distance(tokens[severity]);
                assert!(apart >= APART_MIN, "racer-{at} is {apart:.3} from {severity}");
            }
            let apart = racer.distance(racers[(at + 1) % racers.len()]);
            assert!(apart >= APART_MIN, "racer-{at} is {apart:.3} from the next");
        }
    }
}

#[test]
fn every_screen_can_show_the_colours() {
    for (name, colour) in themes().into_iter().flatten() {
        for part in colour.linear_rgb() {
            let fits = (-GAMUT_TOLERANCE..=1.0 + GAMUT_TOLERANCE).contains(&part);
            assert!(fits, "{name} {colour:?} lies outside sRGB: {part:.4}");
        }
    }
}

#[test]
fn the_arithmetic_knows_black_white_and_red() {
    let grey = |lightness| Oklch { lightness, chroma: 0.0, hue_degrees: 0.0 };
    assert!((grey(1.0).contrast(grey(0.0)) - 21.0).abs() < 0.01);
    let [red, green, blue] =
        Oklch { lightness: 0.627_955, chroma: 0.257_683, hue_degrees: 29.233_9 }.linear_rgb();
    assert!((red - 1.0).abs() < 1e-3 && green.abs() < 1e-3 && blue.abs() < 1e-3);
}
