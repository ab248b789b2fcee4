//! Lines in a plane as SVG, drawn with the classes of `page.html`: no script, legible without colour, and
//! with a description for those who cannot see it.
//!
//! All places are percentages, and lines keep their width: a chart is as wide as its page has room for, and
//! its words are as large on a phone as on a screen. That, and colours that follow the reader's choice of
//! light and dark, is why the SVG is our own: libraries for plots fix sizes and colours when they draw.

use super::unit::Unit;
use maud::{Markup, html};
use std::fmt::Write;

/// A logarithmic axis spans that much at least: smaller differences are to look small.
const DECADES_MIN: f64 = 1.0;

/// A linear axis has about so many.
const LINEAR_TICKS: f64 = 5.0;

/// The share of a narrow chart that a letter of a number takes, and a gap between two numbers.
const LETTER: f64 = 0.026;

/// How places on an axis are found.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scale {
    Linear,
    Log,
    /// 90, 99 and 99.9 % are equally far apart.
    Percentile,
    /// These numbers, equally far apart; a point names its place among them.
    Steps(Vec<u64>),
}

#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub(super) title: String,
    pub(super) scale: Scale,
    pub(super) unit: Unit,
}

#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Its colour and its dash, the same for a program in all charts of a page.
    pub(super) style: usize,
    pub(super) name: String,
    pub(super) points: Vec<[f64; 2]>,
    pub(super) has_marks: bool,
    /// In the background, and not in the legend.
    pub(super) is_faint: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Chart {
    pub(super) title: String,
    /// What there is to see, in a sentence or two.
    pub(super) caption: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
}

/// An axis with its bounds, as the scale has them.
struct Drawn<'a> {
    axis: &'a Axis,
    from: f64,
    to: f64,
}

/// A place on an axis, from 0 to 1, with its number.
struct Tick {
    place: f64,
    label: String,
    /// Without it there is more room for those beside it.
    is_spare: bool,
}

impl Chart {
    /// The chart with its title and its legend; nothing when there is nothing to be drawn.
    pub(super) fn to_html(&self) -> Markup {
        // What is in the background comes first.
        let mut lines: Vec<&Line> = self.lines.iter().filter(|line| !line.points.is_empty()).collect();
        lines.sort_by_key(|line| !line.is_faint);
        let points = || lines.iter().flat_map(|line| &line.points);
        let Some(x) = Drawn::around(&self.x, points().map(|point| point[0])) else { return html! {} };
        let Some(y) = Drawn::around(&self.y, points().map(|point| point[1])) else { return html! {} };
        html! {
            figure {
                figcaption {
                    h3 { (self.title) }
                    p { (self.caption) }
                    ul.legend {
                        @for line in lines.iter().filter(|line| !line.is_faint && !line.name.is_empty()) {
                            li {
                                svg viewBox="0 0 44 10" aria-hidden="true" {
                                    path class={ "line s" (line.style) } d="M1 5H43" {}
                                }
                                (line.name)
                            }
                        }
                    }
                }
                svg.plot role="img" aria-label={ (self.title) ". " (self.caption) } {
                    (frame(&x, &y))
                    svg.lines viewBox="0 0 1000 1000" preserveAspectRatio="none" {
                        @for line in &lines {
                            @let faint = if line.is_faint { " faint" } else { "" };
                            path class={ "line s" (line.style) (faint) } d=(path(&x, &y, line)) {}
                        }
                    }
                    @for line in lines.iter().filter(|line| line.has_marks) {
                        @for [across, up] in &line.points {
                            circle class={ "mark s" (line.style) } r="4" cx=(percent(x.place(*across)))
                                cy=(percent(1.0 - y.place(*up))) {
                                title { (line.name) ": " (self.y.unit.label(*up)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The grid, the numbers and the titles of both axes.
fn frame(x: &Drawn<'_>, y: &Drawn<'_>) -> Markup {
    html! {
        text x="-58" y="-18" { (y.axis.title) }
        @for tick in y.ticks() {
            @let at = percent(1.0 - tick.place);
            line.rule x1="0" x2="100%" y1=(at) y2=(at) {}
            text x="-8" y=(at) dy="4" text-anchor="end" { (tick.label) }
        }
        @for tick in x.ticks() {
            @let at = percent(tick.place);
            line.rule x1=(at) x2=(at) y1="0" y2="100%" {}
            text.spare[tick.is_spare] x=(at) y="100%" dy="18" text-anchor="middle" { (tick.label) }
        }
        line.axis x1="0" x2="100%" y1="100%" y2="100%" {}
        text x="50%" y="100%" dy="38" text-anchor="middle" { (x.axis.title) }
    }
}

fn percent(place: f64) -> String {
    format!("{:.2}%", place * 100.0)
}

fn path(x: &Drawn<'_>, y: &Drawn<'_>, line: &Line) -> String {
    let mut path = String::from("M");
    for [across, up] in &line.points {
        // Writing to a `String` cannot fail.
        let _ = write!(path, "{:.1} {:.1} ", x.place(*across) * 1000.0, (1.0 - y.place(*up)) * 1000.0);
    }
    // So that a lone point is a dot.
    path + "h0"
}

impl<'a> Drawn<'a> {
    /// The axis with bounds that hold all these; `None` without any.
    fn around(axis: &'a Axis, values: impl Iterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.map(|value| axis.scale.raw(value)).filter(|v| v.is_finite()).collect();
        let least = values.iter().copied().reduce(f64::min)?;
        let most = values.iter().copied().reduce(f64::max)?;
        let (from, to) = match &axis.scale {
            Scale::Linear if axis.unit == Unit::Seconds => (0.0, if most > 0.0 { most } else { 1.0 }),
            Scale::Linear => {
                let step = round_step(if most > 0.0 { most } else { 1.0 } / LINEAR_TICKS);
                (least.min(0.0), (most / step).ceil().max(1.0) * step)
            }
            Scale::Percentile => (0.0, most.max(1.0)),
            Scale::Steps(steps) => (-0.4, steps.len() as f64 - 0.6),
            Scale::Log => {
                let lack = ((DECADES_MIN - (most - least)) / 2.0).max(0.0);
                (least - lack - 0.05, most + lack + 0.05)
            }
        };
        Some(Drawn { axis, from, to })
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        ((self.axis.scale.raw(value) - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<Tick> {
        let mut ticks = Vec::new();
        let mut free_from = f64::MIN;
        for (value, label) in self.numbers() {
            let (place, half) = (self.place(value), LETTER / 2.0 * (label.chars().count() as f64 + 1.0));
            let is_spare = place - half < free_from;
            free_from = if is_spare { free_from } else { place + half };
            ticks.push(Tick { place, label, is_spare });
        }
        ticks
    }

    /// The numbers that stand at the axis, from its start to its end.
    fn numbers(&self) -> Vec<(f64, String)> {
        let values: Vec<f64> = match &self.axis.scale {
            Scale::Steps(steps) => {
                let labels = steps.iter().map(|step| Unit::Plain.label(*step as f64));
                return labels.enumerate().map(|(i, label)| (i as f64, label)).collect();
            }
            Scale::Percentile => {
                let nines = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999];
                nines.into_iter().filter(|percent| self.axis.scale.raw(*percent) <= self.to).collect()
            }
            Scale::Linear => {
                let step = round_step((self.to - self.from) / LINEAR_TICKS);
                let values = (0..=LINEAR_TICKS as u8 + 1).map(|i| f64::from(i) * step);
                values.filter(|value| *value <= self.to * 1.0001).collect()
            }
            Scale::Log => {
                let digits: &[f64] = match self.to - self.from {
                    ..1.6 => &[1.0, 2.0, 5.0],
                    ..3.2 => &[1.0, 3.0],
                    _ => &[1.0],
                };
                let powers = self.from.floor() as i32..=self.to.ceil() as i32;
                let values =
                    powers.flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
                let (from, to) = (self.from - 1e-9, self.to + 1e-9);
                values.filter(|value| (from..=to).contains(&value.log10())).collect()
            }
        };
        values.into_iter().map(|value| (value, self.axis.unit.label(value))).collect()
    }
}

impl Scale {
    /// The number that is proportional to the place.
    fn raw(&self, value: f64) -> f64 {
        match self {
            Scale::Linear | Scale::Steps(_) => value,
            Scale::Log => value.log10(),
            Scale::Percentile => -(1.0 - value / 100.0).log10(),
        }
    }
}

/// 1, 2 or 5 and noughts, no less than that.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power).find(|step| *step >= least).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_stays_within_its_frame_and_its_words_within_markup() {
        let axis = |scale| Axis { title: "a < b".into(), scale, unit: Unit::Plain };
        let line = Line {
            style: 1,
            name: "\"<script>".into(),
            points: vec![[0.0, 1.0], [50.0, 1000.0], [99.999, 20.0]],
            has_marks: true,
            is_faint: false,
        };
        let chart = Chart {
            title: "t".into(),
            caption: "c".into(),
            x: axis(Scale::Percentile),
            y: axis(Scale::Log),
            lines: vec![line],
        };
        let html = chart.to_html().into_string();
        assert!(html.contains("&lt;script&gt;") && !html.contains("<script>"), "{html}");
        let places =
            html.split(" cx=\"").skip(1).filter_map(|rest| rest.split('%').next()?.parse::<f64>().ok());
        let places: Vec<f64> = places.collect();
        assert_eq!(places.len(), 3);
        assert!(places.iter().all(|across| (0.0..=100.0).contains(across)), "{places:?}");
        assert_eq!(Chart { lines: Vec::new(), ..chart }.to_html().into_string(), "");
    }
}
