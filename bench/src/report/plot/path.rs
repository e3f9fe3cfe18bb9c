//! Points as the text of an SVG path.

use std::fmt::Write;

/// A tenth of a pixel is fine enough, and shorter to write.
pub fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// A path through the points that have a place; one that stands alone is drawn as a short stroke.
pub fn line(points: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let mut path = String::new();
    let mut last: Option<(f64, f64)> = None;
    let mut joined = 0;
    let close = |path: &mut String, last: Option<(f64, f64)>, joined: u32| {
        if let (Some(_), 1) = (last, joined) {
            path.push_str("m-2 0h4");
        }
    };
    for point in points {
        match point {
            Some((x, y)) => {
                // What would not move the pen is left out.
                if last.is_some_and(|(before_x, before_y)| (x - before_x).abs() < 0.3 && (y - before_y).abs() < 0.3) {
                    continue;
                }
                let _ = write!(path, "{}{} {}", if last.is_some() { 'L' } else { 'M' }, number(x), number(y));
                joined = if last.is_some() { joined + 1 } else { 1 };
                last = point;
            }
            None => {
                close(&mut path, last, joined);
                last = None;
            }
        }
    }
    close(&mut path, last, joined);
    path
}

/// An area between low and high ends, broken where there is none.
pub fn band(points: impl Iterator<Item = Option<(f64, f64, f64)>>) -> String {
    let mut path = String::new();
    let mut piece: Vec<(f64, f64, f64)> = Vec::new();
    let mut close = |piece: &mut Vec<(f64, f64, f64)>| {
        for (at, (x, _, high)) in piece.iter().enumerate() {
            let _ = write!(path, "{}{} {}", if at == 0 { 'M' } else { 'L' }, number(*x), number(*high));
        }
        for (x, low, _) in piece.drain(..).rev() {
            let _ = write!(path, "L{} {}", number(x), number(low));
        }
        if !path.is_empty() && !path.ends_with('Z') {
            path.push('Z');
        }
    };
    for point in points {
        match point {
            Some(point) => piece.push(point),
            None => close(&mut piece),
        }
    }
    close(&mut piece);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_broken_where_there_is_no_place() {
        let points = [Some((0.0, 1.0)), Some((1.0, 2.0)), None, Some((3.0, 3.25)), None];
        assert_eq!(line(points.into_iter()), "M0 1L1 2M3 3.2m-2 0h4");
        assert_eq!(line(std::iter::empty()), "");
    }
}
