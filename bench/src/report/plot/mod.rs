//! DRAWING: panels one below the other over one axis, as SVG inside of the page.
//!
//! Made here rather than by a plotting library because colours are left to the page's style sheet (light, dark and
//! print differ), places are finer than whole pixels, and every line and span can say what it is when it is pointed at,
//! without a script.

mod path;
mod scale;
mod thin;

use std::fmt::Write;

use maud::{Markup, html};

use path::{band, line, number};
pub use scale::Scale;
pub use thin::{Group, groups};

use crate::report::words;

/// Around the plots, in the units of the drawing (a CSS pixel at its natural size).
const LEFT: f64 = 68.0;
const RIGHT: f64 = 14.0;
/// Above each panel, for its name.
const NAME_HEIGHT: f64 = 24.0;
/// Below the last panel, for the numbers and the name of the axis.
const FOOT_HEIGHT: f64 = 40.0;
const LANE_HEIGHT: f64 = 21.0;
/// More spans at a time than this are drawn, but not named.
const LANES_MOST: usize = 5;
/// What a letter takes on average, generously: text is not measured here.
const LETTER_WIDTH: f64 = 6.3;
const SPAN_NAME_LETTERS: usize = 44;

/// One drawing.
pub struct Plot {
    pub width: f64,
    /// What it shows, for those who cannot see it.
    pub about: String,
    pub across: Axis,
    pub panels: Vec<Panel>,
    /// Spans that are shaded through all panels and named above them.
    pub spans: Vec<Span>,
    /// Strips that say something when they are pointed at.
    pub hints: Vec<Hint>,
}

pub struct Axis {
    pub name: String,
    pub scale: Scale,
    pub say: fn(f64) -> String,
}

pub struct Panel {
    pub name: String,
    pub height: f64,
    pub scale: Scale,
    pub say: fn(f64) -> String,
    pub series: Vec<Series>,
}

pub struct Series {
    pub name: String,
    pub look: Look,
    pub marks: Marks,
}

/// Which colour and which kind of stroke.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    pub color: usize,
    pub dash: usize,
}

/// The style sheet knows so many colours and strokes.
pub const COLORS: usize = 7;
pub const DASHES: usize = 3;

pub enum Marks {
    /// A line through these; it is broken where the axis has no place for a point.
    Line(Vec<(f64, f64)>),
    /// Between a low and a high value at each place.
    Band(Vec<(f64, f64, f64)>),
    /// From 0 up: where it begins and ends, and how high it is.
    Bars(Vec<(f64, f64, f64)>),
    /// Estimates with how far they may be off, joined by a line.
    Estimates(Vec<Estimate>),
    /// Single points that say something.
    Points(Vec<(f64, f64, String)>),
}

pub struct Estimate {
    pub at: f64,
    pub value: f64,
    pub low: f64,
    pub high: f64,
    pub hint: String,
}

pub struct Span {
    pub from: f64,
    pub to: f64,
    pub name: String,
    /// Of one of several runs: its colour.
    pub color: Option<usize>,
}

pub struct Hint {
    pub from: f64,
    pub to: f64,
    pub text: String,
}

impl Look {
    /// The look of the series at this position: first the colours, then the strokes.
    pub fn of(at: usize) -> Self {
        Self { color: at % COLORS, dash: at / COLORS % DASHES }
    }

    pub fn class(self) -> String {
        format!("c{} d{}", self.color, self.dash)
    }
}

/// Where everything is.
struct Room<'a> {
    plot: &'a Plot,
    /// The upper end of the first panel's name.
    top: f64,
    bottom: f64,
}

impl Plot {
    pub fn draw(&self) -> Markup {
        let lanes = lanes(self);
        let lanes_height = lanes.iter().flatten().max().map_or(0.0, |last| (*last + 1) as f64 * LANE_HEIGHT + 2.0);
        let panels: f64 = self.panels.iter().map(|panel| panel.height + NAME_HEIGHT).sum();
        let height = lanes_height + panels + FOOT_HEIGHT;
        let room = Room { plot: self, top: lanes_height, bottom: lanes_height + panels };
        let view = format!("0 0 {} {}", number(self.width), number(height));
        html! {
            svg viewBox=(view) role="img" aria-label=(self.about) xmlns="http://www.w3.org/2000/svg" {
                (room.foot())
                @for (panel, top) in room.tops() { (room.panel(panel, top)) }
                (room.names_of_spans(&lanes))
                (room.hints())
            }
        }
    }

    /// A place along the common axis.
    fn x(&self, value: f64) -> Option<f64> {
        self.across.scale.place(value).map(|at| LEFT + at * (self.width - LEFT - RIGHT))
    }
}

impl Room<'_> {
    /// The panels, with where the plot inside of them begins.
    fn tops(&self) -> impl Iterator<Item = (&Panel, f64)> {
        let mut top = self.top;
        self.plot.panels.iter().map(move |panel| {
            let plot_top = top + NAME_HEIGHT;
            top = plot_top + panel.height;
            (panel, plot_top)
        })
    }

    fn panel(&self, panel: &Panel, top: f64) -> Markup {
        let (right, bottom) = (self.plot.width - RIGHT, top + panel.height);
        let y = |value: f64| panel.scale.place(value).map(|at| top + panel.height * (1.0 - at));
        let ticks = panel.scale.ticks((panel.height / 30.0) as usize, panel.say);
        html! {
            g {
                text class="name" x=(number(LEFT)) y=(number(top - 8.0)) { (panel.name) }
                @for tick in &ticks {
                    @if let Some(at) = y(tick.value) {
                        (rule(if tick.label.is_empty() { "fine" } else { "grid" }, (LEFT, at), (right, at)))
                        @if !tick.label.is_empty() {
                            text class="tick end" x=(number(LEFT - 7.0)) y=(number(at + 4.0)) { (tick.label) }
                        }
                    }
                }
                @for (at, _) in self.across() { (rule("grid", (at, top), (at, bottom))) }
                @for span in &self.plot.spans {
                    @if let (Some(from), Some(to)) = (self.plot.x(span.from), self.plot.x(span.to)) {
                        rect class=(shade(span)) x=(number(from)) y=(number(top)) width=(number((to - from).max(1.0)))
                            height=(number(panel.height)) {}
                    }
                }
                (rule("base", (LEFT, bottom), (right, bottom)))
                @for series in &panel.series { (self.series(series, &y)) }
            }
        }
    }

    fn series(&self, series: &Series, y: &dyn Fn(f64) -> Option<f64>) -> Markup {
        let class = series.look.class();
        let place = |x: f64, value: f64| Some((self.plot.x(x)?, y(value)?));
        match &series.marks {
            Marks::Line(points) => {
                let path = line(points.iter().map(|(x, value)| place(*x, *value)));
                html! { path class={ "line " (class) } d=(path) { title { (series.name) } } }
            }
            Marks::Band(points) => {
                let path = band(points.iter().map(|(x, low, high)| Some((self.plot.x(*x)?, y(*low)?, y(*high)?))));
                html! { path class={ "band " (class) } d=(path) {} }
            }
            Marks::Bars(bars) => {
                let mut path = String::new();
                for (from, to, value) in bars.iter().filter(|(_, _, value)| *value > 0.0) {
                    let (Some(from), Some(to), Some(base), Some(top)) =
                        (self.plot.x(*from), self.plot.x(*to), y(0.0), y(*value))
                    else {
                        continue;
                    };
                    // One error among thousands is still a mark that can be seen.
                    let (top, to) = (top.min(base - 1.0), to.max(from + 0.8));
                    let (from, to) = (number(from), number(to));
                    let _ = write!(path, "M{from} {}V{}H{to}V{}Z", number(base), number(top), number(base));
                }
                html! { path class={ "bars " (class) } d=(path) {} }
            }
            Marks::Estimates(estimates) => html! {
                @let path = line(estimates.iter().map(|one| place(one.at, one.value)));
                path class={ "line " (class) } d=(path) { title { (series.name) } }
                @for one in estimates {
                    @if let (Some((x, at)), Some(low), Some(high)) = (place(one.at, one.value), y(one.low), y(one.high)) {
                        g class=(class) {
                            (rule("whisker", (x, low), (x, high)))
                            (dot(if one.value > 0.0 { "dot" } else { "dot hollow" }, (x, at), &one.hint))
                        }
                    }
                }
            },
            Marks::Points(points) => html! {
                @for (x, value, hint) in points {
                    @if let Some((x, at)) = place(*x, *value) {
                        (dot(&format!("dot {class}"), (x, at), hint))
                    }
                }
            },
        }
    }

    /// The numbers along the common axis.
    fn across(&self) -> Vec<(f64, String)> {
        let axis = &self.plot.across;
        let ticks = axis.scale.ticks(((self.plot.width - LEFT - RIGHT) / 60.0) as usize, axis.say);
        let written = ticks.into_iter().filter(|tick| !tick.label.is_empty());
        written.filter_map(|tick| Some((self.plot.x(tick.value)?, tick.label))).collect()
    }

    fn foot(&self) -> Markup {
        let middle = LEFT + (self.plot.width - LEFT - RIGHT) / 2.0;
        html! {
            @for (at, label) in self.across() {
                // The last number would leave the drawing if it were centred.
                @let near_end = at > self.plot.width - RIGHT - 14.0;
                @let at = if near_end { self.plot.width - 2.0 } else { at };
                @let class = if near_end { "tick end" } else { "tick mid" };
                text class=(class) x=(number(at)) y=(number(self.bottom + 16.0)) { (label) }
            }
            text class="tick mid" x=(number(middle)) y=(number(self.bottom + 33.0)) { (self.plot.across.name) }
        }
    }

    fn names_of_spans(&self, lanes: &[Option<usize>]) -> Markup {
        html! {
            @for (span, lane) in self.plot.spans.iter().zip(lanes) {
                @if let (Some(lane), Some(from), Some(to)) = (*lane, self.plot.x(span.from), self.plot.x(span.to)) {
                    @let top = lane as f64 * LANE_HEIGHT;
                    @let (at, at_end) = name_place(self.plot, span, from);
                    text class=(if at_end { "lane end" } else { "lane" }) x=(number(at)) y=(number(top + 12.0)) {
                        (words::cut(&span.name, SPAN_NAME_LETTERS)) title { (span.name) }
                    }
                    rect class=(lane_bar(span)) x=(number(from)) y=(number(top + 16.0))
                        width=(number((to - from).max(2.0))) height="3" { title { (span.name) } }
                }
            }
        }
    }

    fn hints(&self) -> Markup {
        let top = self.top + NAME_HEIGHT;
        let height = number(self.bottom - top);
        html! {
            @for hint in &self.plot.hints {
                @if let (Some(from), Some(to)) = (self.plot.x(hint.from), self.plot.x(hint.to)) {
                    rect class="hint" x=(number(from)) y=(number(top)) width=(number(to - from)) height=(height) {
                        title { (hint.text) }
                    }
                }
            }
        }
    }
}

fn rule(class: &str, from: (f64, f64), to: (f64, f64)) -> Markup {
    html! { line class=(class) x1=(number(from.0)) y1=(number(from.1)) x2=(number(to.0)) y2=(number(to.1)) {} }
}

fn dot(class: &str, at: (f64, f64), hint: &str) -> Markup {
    html! { circle class=(class) cx=(number(at.0)) cy=(number(at.1)) r="3.2" { title { (hint) } } }
}

fn shade(span: &Span) -> String {
    span.color.map_or_else(|| "shade".to_owned(), |color| format!("shade c{color}"))
}

fn lane_bar(span: &Span) -> String {
    span.color.map_or_else(|| "lane-bar".to_owned(), |color| format!("lane-bar c{color}"))
}

fn name_width(span: &Span) -> f64 {
    span.name.chars().count().min(SPAN_NAME_LETTERS) as f64 * LETTER_WIDTH
}

/// Where a span's name is written: from its beginning on, or up to the end of the plot where it would leave it.
fn name_place(plot: &Plot, span: &Span, from: f64) -> (f64, bool) {
    let right = plot.width - RIGHT;
    if from + name_width(span) > right { (right, true) } else { (from, false) }
}

/// A lane for each span, so that neither bars nor names meet; none where there are too many.
fn lanes(plot: &Plot) -> Vec<Option<usize>> {
    let mut taken: Vec<Vec<(f64, f64)>> = Vec::new();
    let lane_of = |span: &Span| {
        let (from, to) = (plot.x(span.from)?, plot.x(span.to)?);
        let (at, at_end) = name_place(plot, span, from);
        let name = if at_end { (at - name_width(span), at) } else { (at, at + name_width(span)) };
        let (from, to) = (from.min(name.0), to.max(name.1) + 8.0);
        let is_free = |lane: &Vec<(f64, f64)>| lane.iter().all(|(begin, end)| to <= *begin || from >= *end);
        let lane = taken.iter().position(is_free).unwrap_or(taken.len());
        if lane >= LANES_MOST {
            return None;
        }
        if lane == taken.len() {
            taken.push(Vec::new());
        }
        taken[lane].push((from, to));
        Some(lane)
    };
    plot.spans.iter().map(lane_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_that_meet_get_lanes_of_their_own() {
        let span = |from: f64, to: f64, name: &str| Span { from, to, name: name.to_owned(), color: None };
        let plot = Plot {
            width: 1000.0,
            about: String::new(),
            across: Axis { name: String::new(), scale: Scale::Linear { from: 0.0, to: 100.0 }, say: words::seconds },
            panels: Vec::new(),
            spans: vec![
                span(0.0, 10.0, "kill"),
                span(50.0, 60.0, "a"),
                span(2.0, 3.0, "cut"),
                span(99.0, 100.0, "a long name"),
            ],
            hints: Vec::new(),
        };
        assert_eq!(lanes(&plot), [Some(0), Some(0), Some(1), Some(0)]);
        let many = Plot { spans: (0..9).map(|_| span(1.0, 2.0, "many")).collect(), ..plot };
        assert_eq!(lanes(&many).iter().flatten().count(), LANES_MOST, "what has no lane is not named");
    }
}
