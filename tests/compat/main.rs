//! What others have in their hands must keep its meaning: deploy/node.toml parses, names every setting, and tells the
//! defaults truly.

use std::collections::BTreeSet;
use std::path::Path;

use tidewater::cli::config::{parse, settings};

const TOLD: &str = include_str!("../../deploy/node.toml");

/// The settings of deploy/node.toml that have no default, or whose default hangs on others.
const SMALL: &str = r#"
cluster = "shop"
name = "n1"
data = "/var/lib/tidewater"
tls = { authority = "/etc/tidewater/tls/ca.crt", certificate = "/etc/tidewater/tls/n1.crt", key = "/etc/tidewater/tls/n1.key" }
resp = { passwords = ["change me"] }
layout = { members = [
    { name = "n1", zone = "a", quic = "10.0.0.1:9001", resp = "10.0.0.1:7001", http = "10.0.0.1:8001" },
    { name = "n2", zone = "b", quic = "10.0.0.2:9001", resp = "10.0.0.2:7001", http = "10.0.0.2:8001" },
    { name = "n3", zone = "c", quic = "10.0.0.3:9001", resp = "10.0.0.3:7001", http = "10.0.0.3:8001" },
] }
"#;

#[test]
fn the_told_settings_are_all_there_are() {
    let mut told = BTreeSet::new();
    let document: toml::Table = TOLD.parse().expect("deploy/node.toml is TOML");
    collect(&document, "", &mut told);
    let known: BTreeSet<String> = settings().into_iter().collect();
    assert_eq!(known.difference(&told).collect::<Vec<_>>(), Vec::<&String>::new(), "not told in deploy/node.toml");
    assert_eq!(
        told.difference(&known).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "told, but there is no such setting"
    );
}

#[test]
fn the_told_defaults_are_the_defaults() {
    let judge = |text| parse("node.toml", text, Path::new(""), &[], &[]).unwrap_or_else(|error| panic!("{error}"));
    let (told, small) = (judge(TOLD), judge(SMALL));
    assert_eq!(format!("{:#?}", told.config), format!("{:#?}", small.config));
}

#[test]
fn each_setting_is_told_in_words() {
    let mut above = "";
    for (at, line) in TOLD.lines().enumerate() {
        let is_setting = line.contains(" = ") && !line.starts_with('#');
        // Further members, and the addresses below the first, repeat what was told.
        let is_repeated = TOLD.lines().take(at).any(|earlier| earlier.split('=').next() == line.split('=').next());
        if is_setting && !is_repeated && !["resp ", "http "].iter().any(|name| line.starts_with(name)) {
            assert!(above.starts_with('#'), "deploy/node.toml:{}: no word about {line}", at + 1);
        }
        above = line;
    }
}

fn collect(table: &toml::Table, section: &str, told: &mut BTreeSet<String>) {
    for (key, value) in table {
        let name = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
        match value {
            toml::Value::Table(inner) => collect(inner, &name, told),
            toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                items.iter().filter_map(toml::Value::as_table).for_each(|inner| collect(inner, &name, told));
            }
            _ => {
                told.insert(name);
            }
        }
    }
}
