//! `tidewater faults`: what is to go wrong, where and for how long.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{ConnectArgs, duration};
use crate::wire::fault::{CLOCK_MAX_MS, DELAY_MAX_US, FAULT_MAX_MS, PAUSE_MAX_MS};

/// `tidewater faults`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tidewater faults cut n1 n2,n3 --for 20s           n1 on one side, n2 and n3 on the other
  tidewater faults cut n1 n2 --one-way              what n1 says does not reach n2; what n2 says reaches n1
  tidewater faults delay n1 n2,n3 20ms --jitter 5ms
  tidewater faults loss n1 n2,n3 5%
  tidewater faults pause n1 --for 10s
  tidewater faults wipe n1 && tidewater dev --restart 1 --allow-faults
  tidewater faults clock n1 +1h
  tidewater faults show
  tidewater faults heal

Only nodes that were started with --allow-faults obey; `tidewater dev --allow-faults` starts such. What is
done to packets is done between nodes, never to clients, whose commands so reach both sides of a cut.
A later fault of the same kind between the same nodes takes the place of the earlier; others stay. Without
--for a fault stays until it is healed or the node ends.

Exit code 1: a node refused or was not reached, and no other could do its part; what was done stays.")]
pub struct FaultsArgs {
    #[command(subcommand)]
    pub verb: FaultsVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub enum FaultsVerb {
    /// Let no packet pass between two sides
    Cut(CutArgs),
    /// Send packets later
    Delay(DelayArgs),
    /// Lose a share of the packets
    Loss(ShareArgs),
    /// Send a share of the packets twice
    Duplicate(ShareArgs),
    /// Send packets out of order, each up to some time later
    Reorder(ReorderArgs),
    /// Stop whole processes for a while; they go on by themselves
    Pause(PauseArgs),
    /// Kill processes at once, as kill -9 does
    Kill(NodesArgs),
    /// Kill processes and have them start with an empty store, as if the disk were new
    Wipe(NodesArgs),
    /// Put wall clocks forward or back
    Clock(ClockArgs),
    /// End faults: all, or those of some nodes and what others do to these
    Heal(HealArgs),
    /// Show which faults are on and what they have done
    Show(ShowArgs),
}

impl FaultsVerb {
    pub fn connect(&self) -> &ConnectArgs {
        match self {
            Self::Cut(args) => &args.sides.connect,
            Self::Delay(args) => &args.sides.connect,
            Self::Loss(args) | Self::Duplicate(args) => &args.sides.connect,
            Self::Reorder(args) => &args.sides.connect,
            Self::Pause(args) => &args.nodes.connect,
            Self::Kill(args) | Self::Wipe(args) => &args.connect,
            Self::Clock(args) => &args.nodes.connect,
            Self::Heal(args) => &args.connect,
            Self::Show(args) => &args.connect,
        }
    }
}

/// Names or ids of nodes, as they were typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes(pub Vec<String>);

/// Between whom, which way, for how long.
#[derive(Args, Clone, Debug)]
pub struct SidesArgs {
    /// Only from the first side to the second
    #[arg(long)]
    pub one_way: bool,
    /// Heal by itself after this, up to 24h [default: until it is healed]
    #[arg(long = "for", value_name = "TIME", value_parser = lasting)]
    pub lasting: Option<Duration>,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

#[derive(Args, Clone, Debug)]
pub struct CutArgs {
    /// One side: names or ids of nodes
    #[arg(value_name = "NODES", value_parser = nodes)]
    pub left: Nodes,
    /// The other side
    #[arg(value_name = "PEERS", value_parser = nodes)]
    pub right: Nodes,
    #[command(flatten)]
    pub sides: SidesArgs,
}

#[derive(Args, Clone, Debug)]
pub struct DelayArgs {
    /// One side: names or ids of nodes
    #[arg(value_name = "NODES", value_parser = nodes)]
    pub left: Nodes,
    /// The other side
    #[arg(value_name = "PEERS", value_parser = nodes)]
    pub right: Nodes,
    /// How much later, each way, up to 10s: a round trip takes twice as much longer. 0: no longer
    #[arg(value_name = "TIME", value_parser = delay)]
    pub delay: Duration,
    /// And up to this much more, each packet for itself
    #[arg(long, value_name = "TIME", value_parser = delay)]
    pub jitter: Option<Duration>,
    #[command(flatten)]
    pub sides: SidesArgs,
}

#[derive(Args, Clone, Debug)]
pub struct ShareArgs {
    /// One side: names or ids of nodes
    #[arg(value_name = "NODES", value_parser = nodes)]
    pub left: Nodes,
    /// The other side
    #[arg(value_name = "PEERS", value_parser = nodes)]
    pub right: Nodes,
    /// How many of a hundred, each way: 5%, 0.1%. 0%: none any longer
    #[arg(value_name = "SHARE", value_parser = share_ppm)]
    pub share_ppm: u32,
    #[command(flatten)]
    pub sides: SidesArgs,
}

#[derive(Args, Clone, Debug)]
pub struct ReorderArgs {
    /// One side: names or ids of nodes
    #[arg(value_name = "NODES", value_parser = nodes)]
    pub left: Nodes,
    /// The other side
    #[arg(value_name = "PEERS", value_parser = nodes)]
    pub right: Nodes,
    /// The most that a packet is held back, up to 10s. 0: no longer
    #[arg(value_name = "TIME", value_parser = delay)]
    pub jitter: Duration,
    #[command(flatten)]
    pub sides: SidesArgs,
}

#[derive(Args, Clone, Debug)]
pub struct NodesArgs {
    /// Names or ids of nodes
    #[arg(value_name = "NODES", value_parser = nodes)]
    pub nodes: Nodes,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

#[derive(Args, Clone, Debug)]
pub struct PauseArgs {
    #[command(flatten)]
    pub nodes: NodesArgs,
    /// How long, up to 10m; nobody can end it sooner but by kill -CONT on the machine
    #[arg(long = "for", value_name = "TIME", required = true, value_parser = pausing)]
    pub lasting: Duration,
}

#[derive(Args, Clone, Debug)]
pub struct ClockArgs {
    #[command(flatten)]
    pub nodes: NodesArgs,
    /// How far from the machine's clock, up to 24h: +1h, -30s. 0: right again
    #[arg(value_name = "OFFSET", allow_hyphen_values = true, value_parser = offset_ms)]
    pub offset_ms: i64,
    /// Right again by itself after this, up to 24h [default: when it is healed]
    #[arg(long = "for", value_name = "TIME", value_parser = lasting)]
    pub lasting: Option<Duration>,
}

#[derive(Args, Clone, Debug)]
pub struct HealArgs {
    /// Names or ids of nodes [default: all]
    #[arg(value_name = "NODES", value_parser = nodes)]
    pub nodes: Option<Nodes>,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Reads `n1` and `n1,n2`.
fn nodes(text: &str) -> Result<Nodes, String> {
    let names: Vec<String> = text.split(',').map(str::to_owned).collect();
    if names.iter().any(String::is_empty) {
        return Err(format!("'{text}' leaves a name empty: use n1, or several as n1,n2"));
    }
    Ok(Nodes(names))
}

fn within(text: &str, least: Duration, most: Duration, told: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if (least..=most).contains(&time) { Ok(time) } else { Err(format!("'{text}' is not allowed: use {told}")) }
}

fn lasting(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(1), Duration::from_millis(FAULT_MAX_MS), "1ms to 24h, as 20s or 5m")
}

fn pausing(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(1), Duration::from_millis(PAUSE_MAX_MS), "1ms to 10m, as 10s")
}

fn delay(text: &str) -> Result<Duration, String> {
    within(text, Duration::ZERO, Duration::from_micros(DELAY_MAX_US.into()), "0 to 10s, as 500us or 20ms")
}

/// Reads `5%` and `0.1%` as parts per million.
fn share_ppm(text: &str) -> Result<u32, String> {
    let wrong = || format!("'{text}' is no share: use 0% to 100%, with up to four decimals, as 5% or 0.1%");
    let number = text.strip_suffix('%').ok_or_else(wrong)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole) || !are_digits(part) || part.len() > 4 {
        return Err(wrong());
    }
    let ppm = format!("{whole}{part:0<4}").parse().map_err(|_| wrong())?;
    if ppm <= 1_000_000 { Ok(ppm) } else { Err(wrong()) }
}

/// Reads `+1h`, `-30s`, `1h`, `0`.
fn offset_ms(text: &str) -> Result<i64, String> {
    let wrong = || {
        format!(
            "'{text}' is no offset: use a sign and a time of whole milliseconds up to 24h, as +1h or -30s; 0 is right"
        )
    };
    let (sign, time) = match text.strip_prefix('-') {
        Some(time) => (-1, time),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let time = duration(time).map_err(|_| wrong())?;
    let ms = i64::try_from(time.as_millis()).map_err(|_| wrong())?;
    let is_whole = Duration::from_millis(ms.unsigned_abs()) == time;
    if is_whole && ms <= CLOCK_MAX_MS { Ok(sign * ms) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Verb};
    use super::*;

    fn parse(line: &str) -> Result<FaultsVerb, clap::Error> {
        match Cli::try_parse_from(line.split_whitespace())?.verb {
            Verb::Faults(args) => Ok(args.verb),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sides_and_times_are_read() {
        let FaultsVerb::Cut(args) = parse("tidewater faults cut n1,n4 n2,n3 --one-way --for 20s").unwrap() else {
            panic!("cut")
        };
        let side = |names: [&str; 2]| Nodes(names.map(str::to_owned).to_vec());
        assert_eq!((args.left, args.right), (side(["n1", "n4"]), side(["n2", "n3"])));
        assert!(args.sides.one_way);
        assert_eq!(args.sides.lasting, Some(Duration::from_secs(20)));
        let FaultsVerb::Delay(args) = parse("tidewater faults delay n1 n2 20ms --jitter 5ms").unwrap() else {
            panic!("delay")
        };
        assert_eq!((args.delay, args.jitter), (Duration::from_millis(20), Some(Duration::from_millis(5))));
        let FaultsVerb::Clock(args) = parse("tidewater faults clock n1,n2 -30s --for 1m").unwrap() else {
            panic!("clock")
        };
        assert_eq!((args.offset_ms, args.lasting), (-30_000, Some(Duration::from_secs(60))));
        let FaultsVerb::Heal(args) = parse("tidewater faults heal").unwrap() else { panic!("heal") };
        assert_eq!(args.nodes, None);
    }

    #[test]
    fn shares_and_offsets_are_read() {
        for (text, ppm) in [("0%", 0), ("5%", 50_000), ("0.1%", 1_000), ("0.0001%", 1), ("100%", 1_000_000)] {
            assert_eq!(share_ppm(text), Ok(ppm), "{text}");
        }
        for text in ["5", "%", "-1%", "101%", "100.1%", "0.00001%", "1.%", ".5%", "many%", "99999999999%"] {
            assert!(share_ppm(text).unwrap_err().contains("use 0% to 100%"), "{text}");
        }
        for (text, ms) in [("+1h", 3_600_000), ("-30s", -30_000), ("250ms", 250), ("0", 0), ("-24h", -86_400_000)] {
            assert_eq!(offset_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "+", "-", "1", "+25h", "-25h", "--1s", "+-1s", "1us", "999999999d"] {
            assert!(offset_ms(text).unwrap_err().contains("as +1h or -30s"), "{text}");
        }
    }

    #[test]
    fn wrong_words_are_refused_with_what_is_right() {
        for (line, told) in [
            ("tidewater faults", "cut"),
            ("tidewater faults cutt n1 n2", "cut"),
            ("tidewater faults cut n1", "<PEERS>"),
            ("tidewater faults cut n1, n2", "leaves a name empty"),
            ("tidewater faults cut n1 n2 n3", "n3"),
            ("tidewater faults cut n1 n2 --for 2", "500ms, 2s"),
            ("tidewater faults cut n1 n2 --for 0", "1ms to 24h"),
            ("tidewater faults cut n1 n2 --for 25h", "1ms to 24h"),
            ("tidewater faults delay n1 n2 11s", "0 to 10s"),
            ("tidewater faults loss n1 n2 5", "use 0% to 100%"),
            ("tidewater faults pause n1", "--for"),
            ("tidewater faults pause n1 --for 11m", "1ms to 10m"),
            ("tidewater faults clock n1 soon", "as +1h or -30s"),
            ("tidewater faults kill", "<NODES>"),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
