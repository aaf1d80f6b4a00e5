//! The plot of costs against sizes, as an SVG that reads in the light and in the dark.

mod panel;

use std::fmt::Write as _;

use self::panel::Panel;

const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 470.0;

/// What is plotted: a panel each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// Of one change, against the size of its service.
    Change,
    /// Of one namespace, against how many there are.
    Namespace,
}

/// Who was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The release before, as a process.
    Before,
    /// This one, as a process.
    Now,
    /// The registry of this one, without a server around it.
    Registry,
}

/// What something costs at one size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) size: u32,
    pub(crate) micros: f64,
}

/// A line of the plot.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) cost: Cost,
    pub(crate) whose: Whose,
    pub(crate) points: Vec<Point>,
}

/// Colours: first for light backgrounds, then for dark ones. Marks differ in shape as well.
const STYLE: &str = "<style>\
text{font:13px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#24292f}\
.title{font-size:15px;font-weight:600}.small{font-size:11px;fill:#57606a}\
.grid{stroke:#d0d7de;stroke-width:1}.axis{stroke:#57606a;stroke-width:1}\
.line{fill:none;stroke-width:2.5;stroke-linejoin:round}\
.before{stroke:#bc4c00}.now{stroke:#0969da}.registry{stroke:#1a7f37;stroke-dasharray:6 4}\
.mark{stroke-width:0}.mark.before{fill:#bc4c00}.mark.now{fill:#0969da}.mark.registry{fill:#1a7f37}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#8d96a0}.grid{stroke:#30363d}.axis{stroke:#8d96a0}\
.before{stroke:#f0883e}.now{stroke:#58a6ff}.registry{stroke:#3fb950}\
.mark.before{fill:#f0883e}.mark.now{fill:#58a6ff}.mark.registry{fill:#3fb950}}\
</style>";

/// The whole picture, when both costs were measured.
pub(crate) fn page(curves: &[Curve], source: &str) -> Option<String> {
    let panels = [(Cost::Change, 70.0), (Cost::Namespace, 560.0)];
    let panels = panels.map(|(cost, left)| Panel::new(cost, curves, left));
    let mut page = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\
        <title>What a change and a namespace cost against how many there are</title>\n{STYLE}\n"
    );
    for panel in panels {
        panel?.draw(&mut page);
    }
    let _ = writeln!(page, "<text class=\"small\" x=\"16\" y=\"{}\">{}</text>", HEIGHT - 12.0, escape(source));
    page.push_str("</svg>\n");
    Some(page)
}

/// Text as XML has it.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

// === impl Whose ===

impl Whose {
    fn class(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Now => "now",
            Self::Registry => "registry",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Before => "the release before",
            Self::Now => "now",
            Self::Registry => "now, the registry alone",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(cost: Cost, whose: Whose, points: &[(u32, f64)]) -> Curve {
        let points = points.iter().map(|&(size, micros)| Point { size, micros }).collect();
        Curve { cost, whose, points }
    }

    fn curves() -> Vec<Curve> {
        vec![
            curve(Cost::Change, Whose::Now, &[(100, 90.0), (1_000, 91.0), (100_000, 99.5)]),
            curve(Cost::Change, Whose::Before, &[(100, 95.0), (1_000, 190.0), (100_000, 8_800.0)]),
            curve(Cost::Change, Whose::Registry, &[(100, 3.0), (100_000, 5.0)]),
            curve(Cost::Namespace, Whose::Now, &[(1, 300.0), (100_000, 150.0)]),
            curve(Cost::Namespace, Whose::Before, &[(1, 310.0), (30_000, 2_700.0)]),
        ]
    }

    /// Whether each element that begins also ends, in order; text must not have what begins one.
    fn is_well_formed(page: &str) -> bool {
        let mut open = Vec::new();
        for piece in page.split('<').skip(1) {
            let Some((tag, text)) = piece.split_once('>') else { return false };
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            let quotes = tag.matches('"').count();
            let bare = text.split('&').skip(1).any(|after| !after.contains(';'));
            if quotes % 2 == 1 || bare || (tag.starts_with('/') && open.pop() != Some(name)) {
                return false;
            }
            if !tag.starts_with('/') && !tag.ends_with('/') {
                open.push(name);
            }
        }
        open.is_empty()
    }

    #[test]
    fn the_picture_is_well_formed_and_has_every_point() {
        let page = page(&curves(), "2 cores of <A & B>, \"quick\"").unwrap();
        assert!(is_well_formed(&page), "{page}");
        let points: usize = curves().iter().map(|curve| curve.points.len()).sum();
        assert_eq!(page.matches("class=\"mark").count(), points + curves().len(), "one more for each legend");
        assert_eq!(page.matches("<polyline").count(), curves().len());
        for text in ["&lt;A &amp; B&gt;", "100,000", "the release before", "instances in the service", "µs"] {
            assert!(page.contains(text), "{text}");
        }
        // Everything is inside.
        for number in page.split("cx=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!((0.0..WIDTH).contains(&number.parse().unwrap()), "{number}");
        }
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }

    #[test]
    fn what_was_not_measured_is_not_plotted() {
        assert!(page(&curves()[..3], "").is_none());
        assert!(page(&[], "").is_none());
        let none = [curve(Cost::Change, Whose::Now, &[]), curve(Cost::Namespace, Whose::Now, &[])];
        assert!(page(&none, "").is_none());
        // A time of nothing has no place on a logarithmic axis, but does no harm.
        let zero = [curve(Cost::Change, Whose::Now, &[(100, 0.0)]), curve(Cost::Namespace, Whose::Now, &[(1, 0.0)])];
        assert!(is_well_formed(&page(&zero, "").unwrap()));
    }

    #[test]
    fn a_broken_picture_would_be_noticed() {
        for broken in ["<svg>", "<svg></g>", "<svg><g></svg></g>", "<svg>a & b</svg>", "<svg a=\"></svg>", "a < b"] {
            assert!(!is_well_formed(broken), "{broken}");
        }
    }
}
