//! The scenarios that are shipped. A name that is not one of them is a file.

use std::fs;

/// Name and text.
pub const SHIPPED: [(&str, &str); 8] = [
    ("canonical", include_str!("../../scenarios/canonical.txt")),
    ("clocks", include_str!("../../scenarios/clocks.txt")),
    ("counters", include_str!("../../scenarios/counters.txt")),
    ("flapping", include_str!("../../scenarios/flapping.txt")),
    ("halves", include_str!("../../scenarios/halves.txt")),
    ("lossy", include_str!("../../scenarios/lossy.txt")),
    ("pauses", include_str!("../../scenarios/pauses.txt")),
    ("wipe", include_str!("../../scenarios/wipe.txt")),
];

/// The text of the scenario that is called so, or of the file.
pub fn find(name: &str) -> Result<String, String> {
    if let Some((_, text)) = SHIPPED.iter().find(|(known, _)| *known == name) {
        return Ok((*text).to_owned());
    }
    fs::read_to_string(name).map_err(|error| {
        let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
        format!("'{name}' is neither a scenario ({}) nor a file that can be read: {error}", names.join(", "))
    })
}

/// What a scenario says of itself: its first line.
pub fn heading(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim_start_matches(['#', ' '])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::schedule::parse;

    #[test]
    fn all_that_are_shipped_can_be_played_on_three_nodes() {
        let nodes: Vec<String> = ["n1", "n2", "n3"].map(String::from).into();
        for (name, text) in SHIPPED {
            let schedule = parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            schedule.check(&nodes).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(schedule.faults.iter().all(|fault| fault.lasts.is_some()), "{name}: a fault without an end");
            assert!(!schedule.faults.is_empty() && heading(text).len() > 10, "{name}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        let error = find("no/such/scenario").expect_err("there is none");
        assert!(error.contains("canonical, clocks") && error.contains("no/such/scenario"), "{error}");
        assert!(find("canonical").is_ok());
    }
}
