//! Lines in a plane as SVG, drawn with the classes of `page.html`: no script, legible without colour, and
//! with a description for those who cannot see it.

use std::fmt::Write;

const WIDTH: f64 = 960.0;
/// Where two stand side by side.
const WIDTH_HALF: f64 = 480.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 46.0;

/// A logarithmic axis spans that much at least: smaller differences are to look small.
const DECADES_MIN: f64 = 1.0;

/// A linear axis has about so many.
const LINEAR_TICKS: f64 = 5.0;

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

/// What numbers on an axis are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Plain,
    Microseconds,
    Nanoseconds,
    Percent,
    Seconds,
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
    /// It stands beside another.
    pub(super) is_half: bool,
}

/// An axis with its bounds, as the scale has them.
struct Drawn<'a> {
    axis: &'a Axis,
    from: f64,
    to: f64,
}

/// Both axes, and where they end.
struct Plane<'a> {
    x: Drawn<'a>,
    y: Drawn<'a>,
    right: f64,
}

impl Chart {
    /// The chart with its title and its legend; nothing when there is nothing to be drawn.
    pub(super) fn to_html(&self) -> String {
        let lines: Vec<&Line> = self.lines.iter().filter(|line| !line.points.is_empty()).collect();
        let points = || lines.iter().flat_map(|line| &line.points);
        let Some(x) = Drawn::around(&self.x, points().map(|point| point[0])) else { return String::new() };
        let Some(y) = Drawn::around(&self.y, points().map(|point| point[1])) else { return String::new() };
        let (title, caption) = (escape(&self.title), escape(&self.caption));
        let width = if self.is_half { WIDTH_HALF } else { WIDTH };
        let plane = Plane { x, y, right: width - RIGHT };
        let mut html =
            format!("<figure>\n<figcaption><h3>{title}</h3><p>{caption}</p>\n<ul class=\"legend\">");
        for line in lines.iter().filter(|line| !line.is_faint && !line.name.is_empty()) {
            let (style, name) = (line.style, escape(&line.name));
            let _ = write!(
                html,
                "<li><svg viewBox=\"0 0 44 10\" aria-hidden=\"true\">\
                 <path class=\"line s{style}\" d=\"M1 5H43\"/></svg>{name}</li>"
            );
        }
        let _ = writeln!(
            html,
            "</ul></figcaption>\n<svg viewBox=\"0 0 {width} {HEIGHT}\" role=\"img\" \
             aria-label=\"{title}. {caption}\">"
        );
        plane.frame(&mut html);
        // What is in the background comes first.
        for line in
            lines.iter().filter(|line| line.is_faint).chain(lines.iter().filter(|line| !line.is_faint))
        {
            plane.draw(&mut html, line);
        }
        html.push_str("</svg>\n</figure>\n");
        html
    }
}

impl Plane<'_> {
    /// The grid, the numbers and the titles of both axes.
    fn frame(&self, html: &mut String) {
        let (x, y, right, bottom) = (&self.x, &self.y, self.right, HEIGHT - BOTTOM);
        for (place, label) in y.ticks() {
            let at = bottom - place * (bottom - TOP);
            let _ = writeln!(
                html,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 8.0,
                at + 4.0
            );
        }
        for (place, label) in x.ticks() {
            let at = LEFT + place * (right - LEFT);
            let _ = writeln!(
                html,
                "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                bottom + 17.0
            );
        }
        let _ = writeln!(
            html,
            "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text transform=\"translate(12 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 8.0,
            escape(&x.axis.title),
            (TOP + bottom) / 2.0,
            escape(&y.axis.title)
        );
    }

    fn draw(&self, html: &mut String, line: &Line) {
        let (x, y) = (&self.x, &self.y);
        let at = |point: &[f64; 2]| {
            let across = LEFT + x.place(point[0]) * (self.right - LEFT);
            (across, HEIGHT - BOTTOM - y.place(point[1]) * (HEIGHT - BOTTOM - TOP))
        };
        let mut path = String::new();
        for (i, point) in line.points.iter().enumerate() {
            let (across, down) = at(point);
            let _ = write!(path, "{}{across:.1} {down:.1}", if i == 0 { "M" } else { "L" });
        }
        let (style, faint) = (line.style, if line.is_faint { " faint" } else { "" });
        let _ = writeln!(html, "<path class=\"line s{style}{faint}\" d=\"{path}\"/>");
        for point in line.points.iter().filter(|_| line.has_marks) {
            let (across, down) = at(point);
            let label = format!("{}: {}", escape(&line.name), y.axis.unit.label(point[1]));
            let _ = writeln!(
                html,
                "<circle class=\"mark s{style}\" cx=\"{across:.1}\" cy=\"{down:.1}\" r=\"4\">\
             <title>{label}</title></circle>"
            );
        }
    }
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

    fn ticks(&self) -> Vec<(f64, String)> {
        let label = |value: f64| (self.place(value), self.axis.unit.label(value));
        match &self.axis.scale {
            Scale::Steps(steps) => {
                let places = steps.iter().enumerate();
                places.map(|(i, step)| (self.place(i as f64), Unit::Plain.label(*step as f64))).collect()
            }
            Scale::Percentile => {
                let nines = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999];
                let seen = nines.into_iter().filter(|percent| self.axis.scale.raw(*percent) <= self.to);
                seen.map(label).collect()
            }
            Scale::Linear => {
                let step = round_step((self.to - self.from) / LINEAR_TICKS);
                (0..=LINEAR_TICKS as u8 + 1)
                    .map(|i| f64::from(i) * step)
                    .filter(|value| *value <= self.to * 1.0001)
                    .map(label)
                    .collect()
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
                values.filter(|value| (from..=to).contains(&value.log10())).map(label).collect()
            }
        }
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

impl Unit {
    /// A number as people read it.
    pub(super) fn label(self, value: f64) -> String {
        let scaled = |units: [(f64, &str); 4]| {
            let (factor, unit) = units
                .into_iter()
                .find(|(factor, _)| value >= factor * 0.9995)
                .unwrap_or((units[3].0, units[3].1));
            let number = value / factor;
            let decimals = match number {
                ..9.995 if number.fract().abs() > 0.004 => 2,
                ..99.95 if number.fract().abs() > 0.04 => 1,
                _ => 0,
            };
            format!("{number:.decimals$}{unit}")
        };
        match self {
            // Up to four digits are read at a glance.
            Unit::Plain if value < 9_999.5 => scaled([(1.0, ""); 4]),
            Unit::Plain => scaled([(1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, "")]),
            Unit::Microseconds => scaled([(1e6, " s"), (1e3, " ms"), (1.0, " µs"), (1e-3, " ns")]),
            Unit::Nanoseconds => scaled([(1e9, " s"), (1e6, " ms"), (1e3, " µs"), (1.0, " ns")]),
            Unit::Seconds => format!("{} s", (value * 100.0).round() / 100.0),
            Unit::Percent => format!("{value} %"),
        }
    }
}

/// 1, 2 or 5 and noughts, no less than that.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power).find(|step| *step >= least).unwrap_or(10.0 * power)
}

/// Text where markup is expected.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        for (unit, value, label) in [
            (Unit::Plain, 7999.0, "7999"),
            (Unit::Plain, 10_000.0, "10 k"),
            (Unit::Plain, 1_310_000.0, "1.31 M"),
            (Unit::Microseconds, 0.5, "500 ns"),
            (Unit::Microseconds, 173.2, "173 µs"),
            (Unit::Microseconds, 2_400.0, "2.40 ms"),
            (Unit::Nanoseconds, 14_000.0, "14 µs"),
            (Unit::Percent, 99.9, "99.9 %"),
        ] {
            assert_eq!(unit.label(value), label);
        }
    }

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
            is_half: false,
        };
        let html = chart.to_html();
        assert!(html.contains("&lt;script&gt;") && !html.contains("<script>"), "{html}");
        let places =
            html.split(" cx=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse::<f64>().ok());
        let places: Vec<f64> = places.collect();
        assert_eq!(places.len(), 3);
        assert!(places.iter().all(|across| (LEFT..=WIDTH - RIGHT).contains(across)), "{places:?}");
        assert_eq!(Chart { lines: Vec::new(), ..chart }.to_html(), "");
    }
}
