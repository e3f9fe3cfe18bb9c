//! What a node's settings mean: file, environment and `--set` become one [`NodeConfig`], or an error that names the line, the
//! setting and what is allowed. deploy/node.toml tells every setting; a test holds the two together.

use std::path::{Path, PathBuf};

use toml::de::DeTable;
use tracing_subscriber::EnvFilter;

use crate::data::consistency::Consistency;
use crate::data::id::NodeId;
use crate::host::options::{LogConfig, NodeConfig, Password, TlsConfig};
use crate::node::membership::SwimOptions;
use crate::ring::layout::{Layout, Member};

use super::CliError;
use super::settings::{
    ConfigError, Meaning, Place, Problem, Reader, Section, address, level, level_or_none, listen, name, passwords,
    path, place_in, size, switch, text_kind, time_ms, whole,
};

/// Settings longer than this are no settings.
const FILE_BYTES_MAX: u64 = 4 << 20;
const MEMBERS_MAX: usize = 1_000;
const DAY_MS: u64 = 86_400_000;

/// Settings that were found good.
#[derive(Debug)]
pub struct Loaded {
    pub config: NodeConfig,
    /// Every setting, what it is and where that comes from; secrets left out.
    pub meanings: Vec<Meaning>,
    /// What is allowed and yet probably not meant.
    pub warnings: Vec<String>,
}

/// Reads and judges the settings of a node. `environment` is that of the process; `flags` are `name=value`.
pub fn load(file: &Path, environment: &[(String, String)], flags: &[String]) -> Result<Loaded, CliError> {
    let unreadable =
        |error: std::io::Error| CliError::usage(format!("cannot read the settings in {}: {error}", file.display()));
    let length = std::fs::metadata(file).map_err(unreadable)?.len();
    if length > FILE_BYTES_MAX {
        return Err(CliError::usage(format!("{} has {length} bytes: that is no settings file", file.display())));
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    let base = file.parent().unwrap_or(Path::new(""));
    parse(&file.display().to_string(), &text, base, environment, flags)
        .map_err(|error| CliError::usage(format!("these settings cannot be used\n{error}")))
}

/// The same from a text. Relative paths in it begin at `base`.
pub fn parse(
    origin: &str,
    text: &str,
    base: &Path,
    environment: &[(String, String)],
    flags: &[String],
) -> Result<Loaded, ConfigError> {
    let document = DeTable::parse(text).map_err(|error| {
        let place = error.span().map_or(Place::Nowhere, |span| place_in(text, span.start));
        let message = format!("this is no TOML: {}", error.message());
        ConfigError { origin: origin.to_owned(), problems: vec![Problem { place, field: String::new(), message }] }
    })?;
    let mut reader = Reader::new(origin, text, environment, flags);
    let root = reader.root(Some(document.get_ref()));
    let config = read(&mut reader, &root, base);
    if let Some(config) = &config
        && reader.is_fine()
    {
        for fault in config.faults() {
            reader.fault(&fault.field, fault.message);
        }
    }
    let (meanings, mut warnings) = reader.finish(&root)?;
    let config = config.expect("a setting that is missing is a problem, and problems have ended this");
    warnings.extend(doubts(&config));
    Ok(Loaded { config, meanings, warnings })
}

/// The name of every setting there is, without the numbers of members: `layout.members.zone`.
pub fn settings() -> Vec<String> {
    let document = DeTable::parse("[[layout.members]]").expect("this is TOML");
    let mut reader = Reader::new("", "", &[], &[]);
    let root = reader.root(Some(document.get_ref()));
    read(&mut reader, &root, Path::new(""));
    let known = reader.known();
    let is_section = |name: &String| known.iter().any(|other| other.starts_with(&format!("{name}.")));
    known.iter().filter(|name| !is_section(name)).cloned().collect()
}

/// Asks for every setting. `None` when one that has no default is missing or wrong, which the reader remembers.
fn read<'a>(reader: &mut Reader<'a>, root: &Section<'a>, base: &Path) -> Option<NodeConfig> {
    let cluster = reader.required(root, "cluster", name());
    let own_name = reader.required(root, "name", name());
    let data = reader.required(root, "data", path(base));
    let tls = read_tls(reader, root, base);
    let layout = read_layout(reader, root);
    let is_complete = cluster.is_some() && own_name.is_some() && data.is_some() && tls.is_some();
    let mut config = NodeConfig::new(
        cluster.unwrap_or_default(),
        own_name.unwrap_or_default(),
        data.unwrap_or_default(),
        tls.unwrap_or(TlsConfig { authority: PathBuf::new(), certificate: PathBuf::new(), key: PathBuf::new() }),
        layout,
    );
    config.memory_bytes = reader.or(root, "memory", size(32 << 20, 1 << 42), config.memory_bytes);
    config.threads = reader.or(root, "threads", whole(0, 256), config.threads);
    config.lanes = reader.or(root, "lanes", whole(0, 256), config.lanes);
    config.fsync_interval_ms = reader.or(root, "fsync_interval", time_ms(1, 10_000), config.fsync_interval_ms);
    config.exchange_interval_ms =
        reader.or(root, "exchange_interval", time_ms(50, 600_000), config.exchange_interval_ms);
    config.clock_ahead_max_ms = reader.or(root, "clock_ahead_max", time_ms(1, 60_000), config.clock_ahead_max_ms);
    config.op_id_window_ms = reader.or(root, "op_id_window", time_ms(1_000, DAY_MS), config.op_id_window_ms);
    config.scrub_interval_ms = reader.or(root, "scrub_interval", time_ms(0, 365 * DAY_MS), config.scrub_interval_ms);
    config.horizon_ms = reader.or(root, "horizon", time_ms(0, 3_650 * DAY_MS), config.horizon_ms);
    config.sync_bytes_per_second = reader.or(root, "sync_rate", size(0, 1 << 40), config.sync_bytes_per_second);
    config.allow_faults = reader.or(root, "allow_faults", switch(), config.allow_faults);
    read_doors(reader, root, &mut config);
    read_limits(reader, root, &mut config);
    read_consistency(reader, root, &mut config);
    config.swim = read_swim(reader, root);
    let log = reader.section(root, "log");
    let is_filter = |text: &str| !text.is_empty() && EnvFilter::try_new(text).is_ok();
    let filter = text_kind(is_filter, "a level or levels by room, as \"info\" or \"info,tidewater::node=debug\"");
    config.log = LogConfig { filter: reader.or(&log, "filter", filter, config.log.filter) };
    is_complete.then_some(config)
}

fn read_tls<'a>(reader: &mut Reader<'a>, root: &Section<'a>, base: &Path) -> Option<TlsConfig> {
    let tls = reader.section(root, "tls");
    let authority = reader.required(&tls, "authority", path(base));
    let certificate = reader.required(&tls, "certificate", path(base));
    let key = reader.required(&tls, "key", path(base));
    Some(TlsConfig { authority: authority?, certificate: certificate?, key: key? })
}

fn read_layout<'a>(reader: &mut Reader<'a>, root: &Section<'a>) -> Layout {
    let section = reader.section(root, "layout");
    let replicas = reader.or(&section, "replicas", whole(1, 7), 3);
    let partitions = reader.or(&section, "partitions", whole(1, 16_384), 1_024);
    if !u16::is_power_of_two(partitions) {
        let message = format!("{partitions} is not allowed: use a power of two from 1 to 16384");
        reader.fault("layout.partitions", message);
    }
    let sections = reader.sections(&section, "members");
    if sections.len() > MEMBERS_MAX {
        let message = format!("{} members are too many: use at most {MEMBERS_MAX}", sections.len());
        reader.fault("layout.members", message);
    }
    let mut members: Vec<Member> = sections.iter().filter_map(|section| read_member(reader, section)).collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Layout { version: 1, parent: 0, replicas, partitions, members }
}

fn read_member<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Option<Member> {
    let own_name = reader.required(section, "name", name());
    let zone = reader.or(section, "zone", name(), "default".into());
    let weight = reader.or(section, "weight", whole(1, 1_000), 1);
    let quic = reader.required(section, "quic", address());
    let resp = reader.required(section, "resp", address());
    let http = reader.required(section, "http", address());
    let own_name = own_name?;
    reader.alias(section, &format!("layout.members.{own_name}"));
    let id = NodeId::from_name(&own_name);
    Some(Member { id, name: own_name, zone, weight, quic: quic?, resp: resp?, http: http? })
}

fn read_doors<'a>(reader: &mut Reader<'a>, root: &Section<'a>, config: &mut NodeConfig) {
    let quic = reader.section(root, "quic");
    config.quic.listen = reader.or(&quic, "listen", listen(), config.quic.listen);
    config.quic.frame_bytes_max =
        reader.or(&quic, "frame_size_max", size(64 << 10, 256 << 20), config.quic.frame_bytes_max);

    let resp = reader.section(root, "resp");
    let defaults = config.resp.clone();
    config.resp.listen = reader.or(&resp, "listen", listen(), defaults.listen);
    config.resp.tls = reader.or(&resp, "tls", switch(), defaults.tls);
    let given = reader.or(&resp, "passwords", passwords(), Vec::new());
    config.resp.passwords = given.into_iter().map(Password).collect();
    config.resp.open = reader.or(&resp, "open", switch(), defaults.open);
    config.resp.connections_max = reader.or(&resp, "connections_max", whole(1, 1_000_000), defaults.connections_max);
    config.resp.pipeline_max = reader.or(&resp, "pipeline_max", whole(1, 1_000_000), defaults.pipeline_max);

    let http = reader.section(root, "http");
    config.http.listen = reader.or(&http, "listen", listen(), config.http.listen);
}

fn read_limits<'a>(reader: &mut Reader<'a>, root: &Section<'a>, config: &mut NodeConfig) {
    let section = reader.section(root, "limits");
    let limits = &mut config.limits;
    limits.key_bytes_max = reader.or(&section, "key_size_max", size(1, u64::from(u16::MAX)), limits.key_bytes_max);
    limits.value_bytes_max = reader.or(&section, "value_size_max", size(1, 128 << 20), limits.value_bytes_max);
    limits.command_bytes_max =
        reader.or(&section, "command_size_max", size(1 << 10, 4 << 30), limits.command_bytes_max);
    limits.siblings_max = reader.or(&section, "siblings_max", whole(1, 10_000), limits.siblings_max);
    limits.hint_bytes_max = reader.or(&section, "hints_size_max", size(1 << 20, 1 << 44), limits.hint_bytes_max);
    limits.requests_max = reader.or(&section, "requests_max", whole(1, 1_000_000), limits.requests_max);
}

fn read_consistency<'a>(reader: &mut Reader<'a>, root: &Section<'a>, config: &mut NodeConfig) {
    let section = reader.section(root, "consistency");
    let default = config.consistency;
    config.consistency = Consistency {
        read: reader.or(&section, "read", level(), default.read),
        write: reader.or(&section, "write", level(), default.write),
        durable: reader.or(&section, "durable", level_or_none(), default.durable),
        zones: reader.or(&section, "zones", whole(1, 7), default.zones),
        owners_only: reader.or(&section, "owners_only", switch(), default.owners_only),
    };
    config.timeout_ms = reader.or(&section, "timeout", time_ms(1, 600_000), config.timeout_ms);
}

fn read_swim<'a>(reader: &mut Reader<'a>, root: &Section<'a>) -> SwimOptions {
    let section = reader.section(root, "swim");
    let default = SwimOptions::default();
    SwimOptions {
        probe_period_ms: reader.or(&section, "probe_period", time_ms(20, 60_000), default.probe_period_ms),
        probe_rtt_ms: reader.or(&section, "probe_rtt", time_ms(5, 30_000), default.probe_rtt_ms),
        suspect_ms: reader.or(&section, "suspect", time_ms(20, 600_000), default.suspect_ms),
        indirect_probes: reader.or(&section, "indirect_probes", count(1, 32), default.indirect_probes as u64) as usize,
        gossip_period_ms: reader.or(&section, "gossip_period", time_ms(10, 60_000), default.gossip_period_ms),
        gossip_fanout: reader.or(&section, "gossip_fanout", count(1, 32), default.gossip_fanout as u64) as usize,
        transmissions: reader.or(&section, "transmissions", whole(1, 100), default.transmissions),
        announce_period_ms: reader.or(&section, "announce_period", time_ms(50, 600_000), default.announce_period_ms),
        packet_bytes: default.packet_bytes,
    }
}

fn count(least: u64, most: u64) -> super::settings::Kind<u64> {
    whole(least, most)
}

/// Allowed, and yet worth a word.
fn doubts(config: &NodeConfig) -> Vec<String> {
    let mut doubts = Vec::new();
    if config.allow_faults {
        doubts.push(
            "allow_faults = true: EVERY CLIENT MAY CUT OFF, STOP, KILL AND WIPE THIS NODE (`tidewater faults`); not for production".into(),
        );
    }
    if !config.resp.passwords.is_empty() && !config.resp.tls && !config.resp.listen.ip().is_loopback() {
        doubts.push("resp.passwords travel in the clear: set resp.tls = true, or keep the network private".into());
    }
    if config.layout.replicas < 3 && config.layout.members.len() >= 3 {
        let replicas = config.layout.replicas;
        doubts.push(format!("layout.replicas = {replicas}: a quorum of {replicas} does without no owner; 3 is usual"));
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::consistency::Level;

    const SMALL: &str = r#"cluster = "shop"
name = "n1"
data = "store"

[tls]
authority = "tls/ca.crt"
certificate = "tls/n1.crt"
key = "tls/n1.key"

[resp]
passwords = ["secret"]

[layout]
replicas = 3

[[layout.members]]
name = "n1"
quic = "10.0.0.1:9001"
resp = "10.0.0.1:7001"
http = "10.0.0.1:8001"

[[layout.members]]
name = "n2"
quic = "10.0.0.2:9001"
resp = "10.0.0.2:7001"
http = "10.0.0.2:8001"

[[layout.members]]
name = "n3"
zone = "b"
quic = "10.0.0.3:9001"
resp = "10.0.0.3:7001"
http = "10.0.0.3:8001"
"#;

    fn judged(text: &str) -> Result<Loaded, ConfigError> {
        parse("node.toml", text, Path::new("/etc/tidewater"), &[], &[])
    }

    fn refused(text: &str) -> String {
        judged(text).expect_err("this is to be refused").to_string()
    }

    /// `SMALL` with its first `from` made `to`.
    fn changed(from: &str, to: &str) -> String {
        assert!(SMALL.contains(from), "{from}");
        SMALL.replacen(from, to, 1)
    }

    fn with_flag(flag: &str) -> Result<Loaded, ConfigError> {
        parse("node.toml", SMALL, Path::new(""), &[], &[flag.to_owned()])
    }

    fn with_variable(name: &str, value: &str) -> Result<Loaded, ConfigError> {
        parse("node.toml", SMALL, Path::new(""), &[(name.to_owned(), value.to_owned())], &[])
    }

    #[test]
    fn a_small_file_gets_the_defaults() {
        let config = judged(SMALL).expect("fine").config;
        assert_eq!(config.data, Path::new("/etc/tidewater/store"));
        assert_eq!(config.tls.key, Path::new("/etc/tidewater/tls/n1.key"));
        assert_eq!(config.memory_bytes, 256 << 20);
        assert_eq!(config.quic.listen.to_string(), "0.0.0.0:9001");
        assert_eq!(config.consistency, Consistency::default());
        assert_eq!(config.layout.partitions, 1_024);
        assert_eq!(config.layout.members[2].zone, "b");
        assert_eq!(config.member().map(|member| member.id), Some(config.id()));
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn what_is_wrong_is_told_with_line_field_and_what_is_allowed() {
        for (text, told) in [
            // Unknown, and what was meant.
            (changed("cluster", "clustre"), "node.toml:1:1: clustre: there is no such setting; did you mean cluster?"),
            (
                changed("replicas", "replicaz"),
                "node.toml:14:1: layout.replicaz: there is no such setting; did you mean layout.replicas?",
            ),
            (
                changed("zone = \"b\"", "zonne = \"b\""),
                "node.toml:30:1: layout.members[3].zonne: there is no such setting; did you mean layout.members.zone?",
            ),
            (
                changed("[resp]", "key_size_max = 5\n[resp]"),
                "tls.key_size_max: there is no such setting; did you mean limits.key_size_max?",
            ),
            (
                changed("[resp]", "[rasp]\nx = 1\n[resp]"),
                "node.toml:10:2: rasp: there is no such setting; did you mean resp?",
            ),
            (
                changed("[resp]", "[resp]\nbananas = 1"),
                "there are: listen, tls, passwords, open, connections_max, pipeline_max",
            ),
            // Missing.
            (changed("cluster = \"shop\"", ""), "node.toml: cluster: is missing: use a name of 1 to 63 letters"),
            (changed("key = \"tls/n1.key\"", ""), "node.toml:5:2: tls.key: is missing: use a path"),
            (changed("http = \"10.0.0.2:8001\"", ""), "layout.members[2].http: is missing: use host:port"),
            // Wrong type.
            (
                changed("replicas = 3", "replicas = \"3\""),
                "node.toml:14:1: layout.replicas: \"3\" is not allowed: use a whole number from 1 to 7",
            ),
            (
                changed("replicas = 3", "replicas = 3.0"),
                "layout.replicas: 3.0 is not allowed: use a whole number from 1 to 7",
            ),
            (changed("data = \"store\"", "data = 5"), "node.toml:3:1: data: 5 is not allowed: use a path"),
            (changed("[resp]", "[resp]\ntls = \"yes\""), "resp.tls: \"yes\" is not allowed: use true or false"),
            (changed("[tls]", "[http]\nlisten = {}\n[tls]"), "http.listen: a section is not allowed: use an address"),
            (changed("name = \"n1\"", "name = \"n1\"\nlog = \"info\""), "log: \"info\" is no section: use [log]"),
            (
                changed("replicas = 3", "members = 7").replace("[[layout.members]]", "[[other]]"),
                "layout.members: 7 is no list of sections: use [[layout.members]]",
            ),
            // Out of range, or of the wrong form.
            (
                changed("replicas = 3", "replicas = 9"),
                "layout.replicas: 9 is not allowed: use a whole number from 1 to 7",
            ),
            (
                changed("replicas = 3", "replicas = -1"),
                "layout.replicas: -1 is not allowed: use a whole number from 1 to 7",
            ),
            (
                changed("replicas = 3", "partitions = 1000"),
                "node.toml:14:1: layout.partitions: 1000 is not allowed: use a power of two from 1 to 16384",
            ),
            (
                changed("data =", "memory = \"1MiB\"\ndata ="),
                "node.toml:3:1: memory: \"1MiB\" is not allowed: use a size from 32MiB to 4TiB, as",
            ),
            (changed("data =", "memory = \"much\"\ndata ="), "memory: \"much\" is not allowed: use a size from"),
            (
                changed("data =", "fsync_interval = 5\ndata ="),
                "fsync_interval: 5 is not allowed: use a time from 1ms to 10s, as",
            ),
            (
                changed("data =", "clock_ahead_max = \"2m\"\ndata ="),
                "clock_ahead_max: \"2m\" is not allowed: use a time from 1ms to 1m",
            ),
            (
                changed("10.0.0.2:9001", "10.0.0.2"),
                "layout.members[2].quic: \"10.0.0.2\" is not allowed: use host:port",
            ),
            (
                changed("[resp]", "[resp]\nlisten = \"localhost:7001\""),
                "resp.listen: \"localhost:7001\" is not allowed: use an address of this machine and a port",
            ),
            (
                changed("name = \"n1\"", "name = \"n 1\""),
                "node.toml:2:1: name: \"n 1\" is not allowed: use a name of 1 to 63",
            ),
            (
                changed("[tls]", "[consistency]\nread = \"most\"\n[tls]"),
                "consistency.read: \"most\" is not allowed: use one, two, three, quorum",
            ),
            (
                changed("[tls]", "[log]\nfilter = \"a=b=c\"\n[tls]"),
                "log.filter: \"a=b=c\" is not allowed: use a level or levels by room",
            ),
            // What does not fit together.
            (
                changed("name = \"n1\"", "name = \"n9\""),
                "node.toml:2:1: name: 'n9' is not among the members of the layout: n1, n2, n3",
            ),
            (changed("name = \"n2\"", "name = \"n3\""), "layout.members.n3.name: two members are called 'n3'"),
            (
                changed("10.0.0.2:9001", "10.0.0.1:9001"),
                "node.toml:24:1: layout.members.n2.quic: 10.0.0.1:9001 is taken already by 'n1' (quic)",
            ),
            (
                changed("10.0.0.2:8001", "10.0.0.2:7001"),
                "layout.members.n2.http: 10.0.0.2:7001 is taken already by 'n2' (resp)",
            ),
            (
                changed("replicas = 3", "replicas = 4"),
                "node.toml:14:1: layout.replicas: 4 owners of each key need 4 members; there are 3",
            ),
            (
                changed("[tls]", "[consistency]\nwrite = \"any\"\nowners_only = true\n[tls]"),
                "node.toml:5:2: consistency: WRITE any counts stand-ins",
            ),
            (
                changed("[tls]", "[consistency]\nread = 4\n[tls]"),
                "consistency: READ 4 is out of range: with 3 replicas use 1 to 3",
            ),
            (
                changed("[tls]", "[consistency]\nwrite = \"all\"\nzones = 3\n[tls]"),
                "node.toml:7:1: consistency.zones: 3 zones cannot be met: the members are in 2",
            ),
            (
                changed("[tls]", "[quic]\nframe_size_max = \"8MiB\"\n[tls]"),
                "node.toml:6:1: quic.frame_size_max: 8388608 bytes do not hold the largest key and value",
            ),
            (
                changed("[tls]", "[swim]\nprobe_rtt = \"300ms\"\n[tls]"),
                "swim.probe_period: 500 ms is less than twice swim.probe_rtt (300 ms)",
            ),
            (
                changed("[tls]", "[limits]\nhints_size_max = \"1MiB\"\n[tls]"),
                "limits.hints_size_max: is less than limits.value_size_max",
            ),
            (
                changed("data =", "op_id_window = \"3s\"\ndata ="),
                "op_id_window: 3000 ms is less than twice consistency.timeout (2000 ms)",
            ),
            (
                changed("[tls]", "[http]\nlisten = \"0.0.0.0:7001\"\n[tls]"),
                "http.listen: 0.0.0.0:7001 clashes with resp.listen 0.0.0.0:7001",
            ),
            (
                changed("passwords = [\"secret\"]", ""),
                "resp.listen: 0.0.0.0:7001 can be reached from other machines and asks for no password",
            ),
            // No TOML.
            (changed("[tls]", "[tls"), "node.toml:5:5: this is no TOML: "),
            (changed("name = \"n1\"", "cluster = \"n1\""), "node.toml:2:1: this is no TOML: duplicate key"),
        ] {
            let error = refused(&text);
            assert!(error.contains(told), "wanted: {told}\ngot:    {error}");
        }
    }

    #[test]
    fn everything_wrong_is_told_at_once_in_the_order_of_the_file() {
        let error =
            refused(&changed("replicas = 3", "replicas = 0\ncolour = 1").replace("data = \"store\"", "data = 5"));
        let lines: Vec<&str> = error.lines().map(|line| line.split(": ").nth(1).unwrap_or(line)).collect();
        assert_eq!(lines, ["data", "layout.replicas", "layout.colour"]);
    }

    #[test]
    fn a_password_is_never_told() {
        let error = refused(&changed("[\"secret\"]", "\"secret\""));
        assert!(error.contains("resp.passwords: what is given is not allowed: use a list"), "{error}");
        assert!(!error.contains("secret"));
        let meanings = judged(SMALL).expect("fine").meanings;
        assert!(meanings.iter().all(|meaning| !meaning.value.contains("secret")), "{meanings:?}");
    }

    #[test]
    fn flags_win_over_the_environment_and_the_environment_over_the_file() {
        let variables = [("TIDEWATER_LAYOUT__REPLICAS".to_owned(), "2".to_owned())];
        let loaded = parse("node.toml", SMALL, Path::new(""), &variables, &[]).expect("fine");
        assert_eq!(loaded.config.layout.replicas, 2);
        let loaded = parse("node.toml", SMALL, Path::new(""), &variables, &["layout.replicas=1".into()]).expect("fine");
        assert_eq!(loaded.config.layout.replicas, 1);
        let meaning = loaded.meanings.iter().find(|meaning| meaning.field == "layout.replicas").expect("it is told");
        assert_eq!(meaning.place, Place::Flag);
        let config = with_variable("TIDEWATER_CONSISTENCY__WRITE", "ALL").expect("fine").config;
        assert_eq!(config.consistency.write, Level::All);
        let config = with_variable("TIDEWATER_RESP__PASSWORDS", "one,two").expect("fine").config;
        assert_eq!(config.resp.passwords, [Password("one".into()), Password("two".into())]);
        assert_eq!(with_flag("data=here").expect("fine").config.data, Path::new("here"));
        assert!(with_flag("resp.tls=true").expect("fine").config.resp.tls);
    }

    #[test]
    fn wrong_overrides_are_told_with_their_source() {
        for (result, told) in [
            (
                with_variable("TIDEWATER_MEMORY", "lots"),
                "environment variable TIDEWATER_MEMORY: memory: 'lots' is not allowed: use a size",
            ),
            (with_flag("memory=lots"), "--set: memory: 'lots' is not allowed: use a size"),
            (with_flag("memry=1GiB"), "--set: memry: there is no such setting; did you mean memory?"),
            (with_flag("memory"), "--set: 'memory' sets nothing: use name=value"),
            (with_flag("resp.password=x"), "did you mean resp.passwords?"),
            (with_flag("replicas=2"), "did you mean layout.replicas?"),
        ] {
            let error = result.expect_err(told).to_string();
            assert!(error.contains(told), "wanted: {told}\ngot:    {error}");
        }
    }

    #[test]
    fn a_strange_variable_is_a_warning_and_the_clients_own_are_none() {
        let loaded = with_variable("TIDEWATER_MEMROY", "1GiB").expect("fine");
        let told = "environment variable TIDEWATER_MEMROY names no setting; did you mean memory?";
        assert!(loaded.warnings.iter().any(|warning| warning == told), "{:?}", loaded.warnings);
        let quiet = judged(SMALL).expect("fine").warnings.len();
        assert_eq!(with_variable("TIDEWATER_CONNECT", "a:1").expect("fine").warnings.len(), quiet);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_bad_configuration() {
        let error = load(Path::new("/nowhere/node.toml"), &[], &[]).expect_err("there is none");
        assert_eq!(error.exit_code(), crate::cli::EXIT_USAGE);
        assert!(error.to_string().contains("cannot read the settings in /nowhere/node.toml"), "{error}");
    }

    #[test]
    fn hostile_text_is_refused_and_nothing_worse() {
        let deep = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
        for text in [
            "",
            "\u{0}",
            "\u{feff}=",
            "[[layout.members]]",
            "layout = 1",
            "[layout]\nmembers = [1, 2]",
            "\"\" = 1",
            &deep,
        ] {
            refused(text);
        }
    }
}
