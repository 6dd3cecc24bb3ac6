//! The parts that pictures are made of, and numbers as their axes show them.

use std::fmt::Write as _;

use super::{GREY, LEFT, RIGHT};

pub(super) fn label(x: f64, y: f64, anchor: &str, colour: &str, size: u32, text: &str) -> String {
    let text = escaped(text);
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\" font-size=\"{size}\">{text}</text>\n"
    )
}

pub(super) fn rect(x: f64, y: f64, width: f64, height: f64, colour: &str) -> String {
    format!(
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>\n"
    )
}

pub(super) fn grid(y: f64, name: &str) -> String {
    format!(
        "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e5e7eb\" stroke-width=\"0.7\"/>\n"
    ) + &label(LEFT - 8.0, y + 4.0, "end", GREY, 11, name)
}

/// A line through the points; interrupted where there is none.
pub(super) fn curve(points: impl Iterator<Item = Option<(f64, f64)>>, colour: &str) -> String {
    let mut path = String::new();
    let mut pen_is_down = false;
    for point in points {
        if let Some((x, y)) = point {
            write!(path, "{}{x:.1} {y:.1}", if pen_is_down { "L" } else { "M" })
                .unwrap_or_default();
        }
        pen_is_down = point.is_some();
    }
    format!(
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.4\" stroke-linejoin=\"round\"/>\n"
    )
}

/// The next of 1, 2, 4, 5, 8 and 10 times a power of ten.
pub(super) fn round_up(value: f64) -> f64 {
    let power = 10_f64.powi(decade(value.max(1.0).log10().floor()));
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
    let fits = steps.into_iter().find(|step| step * power >= value);
    fits.unwrap_or(10.0) * power
}

/// A whole number that came out of a logarithm.
pub(super) fn decade(whole: f64) -> i32 {
    (-12..=12)
        .find(|decade| f64::from(*decade) >= whole)
        .unwrap_or(12)
}

pub(super) fn as_f64(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

pub(super) fn short(value: f64) -> String {
    if value >= 1000.0 {
        let thousands = value / 1e3;
        if thousands.fract() == 0.0 {
            format!("{thousands:.0}k")
        } else {
            format!("{thousands:.1}k")
        }
    } else if value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').to_owned()
    }
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
