//! WHICH PLOTS THERE ARE, made of the results. Each says in its note how it is to be read. One that would be empty is
//! not there.

mod after;
mod latency;
mod staleness;
mod time;

use maud::{Markup, html};

pub use after::{healing, receipts};
pub use latency::latency;
pub use staleness::staleness;
pub use time::over_time;

use super::plot::{Look, Plot};

/// Plots of this width stand two in a row where there is room.
const HALF_WIDTH: f64 = 500.0;
/// Of a drawing that has a row for itself: on wide screens, and on narrow ones and paper.
const WIDE_WIDTH: f64 = 1120.0;
const NARROW_WIDTH: f64 = 700.0;

/// The name space, so that a drawing that is cut out is whole.
const SVG: &str = "http://www.w3.org/2000/svg";

/// Drawings with one legend and one note.
pub struct Figure {
    pub legend: Vec<(Look, String)>,
    pub note: String,
    pub drawings: Vec<Drawing>,
}

pub enum Drawing {
    /// For wide screens, and for narrow ones and paper: the letters stay as large.
    Full {
        wide: Plot,
        narrow: Plot,
    },
    Half(Plot),
}

impl Figure {
    /// A drawing stands alone in the last row, so that a small table has room beside it.
    pub fn has_room(&self) -> bool {
        self.drawings.iter().filter(|drawing| matches!(drawing, Drawing::Half(_))).count() % 2 == 1
    }

    /// `beside`: what stands in the row of the last drawing.
    pub fn draw(&self, beside: Option<&Markup>) -> Markup {
        html! {
            div class="plots" {
                @if self.legend.len() > 1 {
                    ul class="legend" {
                        @for (look, name) in &self.legend {
                            li {
                                svg class="swatch" viewBox="0 0 26 10" aria-hidden="true" xmlns=(SVG) {
                                    path class={ "line " (look.class()) } d="M1 5H25" {}
                                }
                                (name)
                            }
                        }
                    }
                }
                div class="drawings" {
                    @for drawing in &self.drawings {
                        @match drawing {
                            Drawing::Full { wide, narrow } => {
                                figure class="wide" { (wide.draw()) }
                                figure class="narrow" { (narrow.draw()) }
                            }
                            Drawing::Half(plot) => figure class="half" { (plot.draw()) },
                        }
                    }
                    @if let Some(beside) = beside { div { (beside) } }
                }
            }
            p class="note" { (self.note) }
        }
    }
}

/// The legend of several runs; of one there is nothing to tell apart.
fn legend_of_runs(labels: &[String]) -> Vec<(Look, String)> {
    labels.iter().enumerate().map(|(run, label)| (Look::of(run), label.clone())).collect()
}
