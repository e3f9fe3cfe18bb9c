//! Where it was measured, and what the servers cost there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use crate::results::{Machine, Made};

/// What this machine is.
pub fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let processor = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let memory = read("/proc/meminfo");
    let kib =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    let system = read("/etc/os-release");
    let name = system.lines().find_map(|line| Some(line.strip_prefix("PRETTY_NAME=")?.trim_matches('"').to_owned()));
    let kernel = read("/proc/sys/kernel/osrelease");
    Machine {
        processor: processor.map(|(_, name)| name.trim().to_owned()).unwrap_or_default(),
        cores: std::thread::available_parallelism().map_or(0, |cores| cores.get() as u32),
        memory_bytes: kib.unwrap_or(0) * 1024,
        system: format!("{}, kernel {}", name.unwrap_or_else(|| "Linux".into()), kernel.trim()),
    }
}

/// By whom, with what, where. The program is named without its folder, which is nobody else's business.
pub fn made(words: &[String]) -> Made {
    let program =
        words.first().and_then(|path| Path::new(path).file_name()).map(|name| name.to_string_lossy().into_owned());
    let quoted: Vec<String> = program
        .iter()
        .chain(words.iter().skip(1))
        .map(|word| shlex::try_quote(word).map_or_else(|_| word.clone(), |word| word.into_owned()))
        .collect();
    let command = quoted.join(" ");
    Made {
        command,
        version: env!("CARGO_PKG_VERSION").into(),
        commit: commit().unwrap_or_default(),
        started: now(),
        machine: machine(),
    }
}

/// RFC 3339, UTC.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// Of the working copy that this program lies in, if it does.
fn commit() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let asked =
        Command::new("git").arg("-C").arg(program.parent()?).args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(asked.stdout).ok()?.trim().to_owned();
    (asked.status.success() && !commit.is_empty()).then_some(commit)
}

/// CPU and memory of server processes that come and go.
#[derive(Debug, Default)]
pub struct Meter {
    /// By process: its microseconds when it was first and last seen.
    seen: BTreeMap<u32, (u64, u64)>,
    pub memory_bytes: u64,
}

impl Meter {
    /// Looks at these processes; `started`: they began after the meter did, so that all they used counts.
    pub fn look(&mut self, pids: &[u32]) {
        let known_before = !self.seen.is_empty();
        let mut memory_bytes = 0;
        for pid in pids {
            let Some((cpu_us, bytes)) = Self::of(*pid) else { continue };
            memory_bytes += bytes;
            // Who is seen for the first time among others that were known has begun since.
            let first = if known_before { 0 } else { cpu_us };
            self.seen.entry(*pid).or_insert((first, cpu_us)).1 = cpu_us;
        }
        self.memory_bytes = self.memory_bytes.max(memory_bytes);
    }

    pub fn used_us(&self) -> u64 {
        self.seen.values().map(|(first, last)| last.saturating_sub(*first)).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Microseconds of CPU and bytes of memory of a process.
    fn of(pid: u32) -> Option<(u64, u64)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses and may hold anything; the last ')' ends it.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        // SAFETY: they ask for constants; no pointers.
        let (tick, page) = unsafe { (libc::sysconf(libc::_SC_CLK_TCK), libc::sysconf(libc::_SC_PAGESIZE)) };
        let (tick, page) = (u64::try_from(tick).ok().filter(|tick| *tick > 0)?, u64::try_from(page).ok()?);
        Some(((number(11)? + number(12)?) * 1_000_000 / tick, number(21)? * page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known() {
        let machine = machine();
        assert!(
            machine.cores > 0 && machine.memory_bytes > 1 << 20 && machine.system.contains("kernel"),
            "{machine:?}"
        );
    }

    #[test]
    fn commands_can_be_typed_again() {
        let words = ["/opt/bin/tidewater-bench", "--fault", "at 1s kill n1"].map(String::from);
        assert_eq!(made(&words).command, "tidewater-bench --fault 'at 1s kill n1'");
    }

    #[test]
    fn processes_are_metered_from_when_they_were_first_seen() {
        let own = std::process::id();
        let (mut meter, mut idle) = (Meter::default(), Meter::default());
        meter.look(&[own]);
        assert_eq!(meter.used_us(), 0);
        assert!(meter.memory_bytes > 0 && !meter.is_empty());
        idle.look(&[]);
        assert!(idle.is_empty());
        let began = std::time::Instant::now();
        while meter.used_us() == 0 && began.elapsed().as_secs() < 60 {
            meter.look(&[own]);
        }
        assert!(meter.used_us() > 0);
    }
}
