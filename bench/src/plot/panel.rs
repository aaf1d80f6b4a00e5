//! One of the two diagrams: logarithmic axes, a grid, lines with marks, and a legend.

use std::fmt::Write as _;

use super::{Cost, Curve, Point, Whose};

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 280.0;
const TOP: f64 = 104.0;
/// The least that is plotted: a hundredth of a microsecond.
const LEAST: f64 = 0.01;

/// A diagram, with the powers of ten that its axes begin and end with.
#[derive(Debug)]
pub(super) struct Panel<'a> {
    cost: Cost,
    left: f64,
    curves: Vec<&'a Curve>,
    sizes: (f64, f64),
    times: (f64, f64),
}

// === impl Panel ===

impl<'a> Panel<'a> {
    /// Of all curves of that cost, its left edge there; `None` when nothing was measured.
    pub(super) fn new(cost: Cost, curves: &'a [Curve], left: f64) -> Option<Self> {
        let curves: Vec<&Curve> = curves.iter().filter(|curve| curve.cost == cost).collect();
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let sizes = decades(points().map(|point| f64::from(point.size)))?;
        let times = decades(points().map(|point| point.micros))?;
        Some(Self { cost, left, curves, sizes, times })
    }

    pub(super) fn draw(&self, page: &mut String) {
        self.draw_titles(page);
        self.draw_grid(page);
        for (number, curve) in (0_u8..).zip(&self.curves) {
            self.draw_curve(page, curve);
            let (x, y) = (self.left + 4.0, 40.0 + 18.0 * f64::from(number));
            mark(page, curve.whose, x + 4.0, y - 4.0);
            let _ = writeln!(page, "<text x=\"{}\" y=\"{y}\">{}</text>", x + 16.0, curve.whose.name());
        }
    }

    fn draw_titles(&self, page: &mut String) {
        let (title, sizes) = match self.cost {
            Cost::Change => ("One change of a service: CPU time", "instances in the service"),
            Cost::Namespace => ("One more namespace: time", "namespaces"),
        };
        let _ = writeln!(page, "<text class=\"title\" x=\"{}\" y=\"20\">{title}</text>", self.left);
        let (middle, below) = (self.left + WIDTH / 2.0, TOP + HEIGHT + 42.0);
        let _ = writeln!(page, "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{sizes}</text>");
    }

    fn draw_grid(&self, page: &mut String) {
        let (right, bottom) = (self.left + WIDTH, TOP + HEIGHT);
        for power in powers(self.sizes) {
            let x = self.x(10_f64.powf(power));
            let _ = writeln!(page, "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>");
            let (y, text) = (bottom + 20.0, size(power));
            let _ = writeln!(page, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{text}</text>");
        }
        for power in powers(self.times) {
            let y = self.y(10_f64.powf(power));
            let left = self.left;
            let _ = writeln!(page, "<line class=\"grid\" x1=\"{left}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>");
            let (x, y, text) = (left - 8.0, y + 4.0, time(power));
            let _ = writeln!(page, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{text}</text>");
        }
        let left = self.left;
        let _ = writeln!(page, "<line class=\"axis\" x1=\"{left}\" y1=\"{bottom}\" x2=\"{right}\" y2=\"{bottom}\"/>");
        let _ = writeln!(page, "<line class=\"axis\" x1=\"{left}\" y1=\"{TOP}\" x2=\"{left}\" y2=\"{bottom}\"/>");
    }

    fn draw_curve(&self, page: &mut String, curve: &Curve) {
        let place = |point: &Point| (self.x(f64::from(point.size)), self.y(point.micros));
        let places: Vec<(f64, f64)> = curve.points.iter().map(place).collect();
        let line: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let class = curve.whose.class();
        let _ = writeln!(page, "<polyline class=\"line {class}\" points=\"{}\"/>", line.join(" "));
        for (x, y) in places {
            mark(page, curve.whose, x, y);
        }
    }

    fn x(&self, size: f64) -> f64 {
        self.left + WIDTH * share(size, self.sizes)
    }

    fn y(&self, micros: f64) -> f64 {
        TOP + HEIGHT * (1.0 - share(micros, self.times))
    }
}

/// A circle, a square or a diamond.
fn mark(page: &mut String, whose: Whose, x: f64, y: f64) {
    let class = whose.class();
    let _ = match whose {
        Whose::Now => writeln!(page, "<circle class=\"mark {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>"),
        Whose::Before => {
            let (x, y) = (x - 4.0, y - 4.0);
            writeln!(page, "<rect class=\"mark {class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"8\" height=\"8\"/>")
        }
        Whose::Registry => {
            let (left, right, up, down) = (x - 5.5, x + 5.5, y - 5.5, y + 5.5);
            let path = format!("M{x:.1} {up:.1}L{right:.1} {y:.1}L{x:.1} {down:.1}L{left:.1} {y:.1}Z");
            writeln!(page, "<path class=\"mark {class}\" d=\"{path}\"/>")
        }
    };
}

/// The powers of ten around all of these; `None` of none.
fn decades(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let logs = values.map(|value| value.max(LEAST).log10());
    let ends = logs.fold(None, |ends: Option<(f64, f64)>, log| {
        Some(ends.map_or((log, log), |(low, high)| (low.min(log), high.max(log))))
    });
    let (low, high) = ends?;
    let low = low.floor();
    Some((low, high.ceil().max(low + 1.0)))
}

fn powers((low, high): (f64, f64)) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(low), |power| Some(power + 1.0)).take_while(move |power| *power <= high)
}

/// Where on an axis, between 0 and 1.
fn share(value: f64, (low, high): (f64, f64)) -> f64 {
    (value.max(LEAST).log10() - low) / (high - low)
}

/// A power of ten, with commas between thousands.
fn size(power: f64) -> String {
    let digits = format!("{:.0}", 10_f64.powf(power));
    let head = digits.len() % 3;
    let places = digits.chars().enumerate();
    places.fold(String::new(), |mut text, (at, digit)| {
        if at > 0 && at % 3 == head {
            text.push(',');
        }
        text.push(digit);
        text
    })
}

/// A power of ten microseconds in its unit.
fn time(power: f64) -> String {
    let (thousands, unit) = match power {
        ..0.0 => (-1.0, "ns"),
        ..3.0 => (0.0, "µs"),
        ..6.0 => (1.0, "ms"),
        _ => (2.0, "s"),
    };
    format!("{:.0} {unit}", 10_f64.powf(power - 3.0 * thousands))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_read_well() {
        assert_eq!([0.0, 2.0, 3.0, 5.0, 6.0].map(size), ["1", "100", "1,000", "100,000", "1,000,000"]);
        assert_eq!([-2.0, 0.0, 2.0, 3.0, 5.0, 6.0].map(time), ["10 ns", "1 µs", "100 µs", "1 ms", "100 ms", "1 s"]);
    }

    #[test]
    fn axes_begin_and_end_with_powers_of_ten() {
        assert_eq!(decades([90.0, 8_800.0].into_iter()), Some((1.0, 4.0)));
        assert_eq!(decades([100.0].into_iter()), Some((2.0, 3.0)));
        assert_eq!(decades(std::iter::empty()), None);
        assert_eq!(powers((1.0, 3.0)).collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
    }
}
