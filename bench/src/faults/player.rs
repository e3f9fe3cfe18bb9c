//! Plays a scenario at its times, tells the load what is on, and watches how long it takes until all is level again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidewater::Client;
use tidewater::cli::status::Census;
use tokio::sync::watch;
use tokio::time::sleep;

use super::schedule::Schedule;
use super::surgeon::Surgeon;
use crate::cluster::Outcome;
use crate::load::world::World;
use crate::results::{FaultSpan, Healing};

/// How often nodes are asked how they are: while something heals, and else.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// Under load as little must be under way as before in so many looks one after the other.
const CALM_LOOKS: u32 = 5;
/// Samples kept of one healing.
const SAMPLES_MAX: usize = 3_000;

/// How the nodes were when they were last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Look {
    pub at_us: u64,
    pub level: bool,
    /// Mutations and hints that are still to be brought somewhere; `None`: somebody does not answer.
    pub behind: Option<u64>,
    /// Of these, hints: a healthy cluster keeps none.
    pub hints: u64,
}

/// Asks the nodes over and over. Ends when nobody listens any more.
pub async fn look(client: Client, world: Arc<World>, tell: watch::Sender<Option<Look>>) {
    while !tell.is_closed() {
        let census = Census::take(&client, LOOK_TIMEOUT).await;
        let hints = census.nodes.iter().filter_map(|(_, status)| status.as_ref().ok()).map(|status| status.hints).sum();
        let look = Look { at_us: world.now_us(), level: census.is_level(), behind: census.behind(), hints };
        tell.send_replace(Some(look));
        sleep(LOOK_EVERY).await;
    }
}

/// What was played.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Played {
    pub spans: Vec<FaultSpan>,
    pub healings: Vec<Healing>,
}

pub struct Player<S> {
    pub surgeon: S,
    pub schedule: Schedule,
    pub world: Arc<World>,
    /// How the nodes are; nothing comes when they cannot be asked.
    pub looks: watch::Receiver<Option<Look>>,
    pub played: Played,
    /// Places in the schedule, with the span of each.
    active: Vec<(usize, usize)>,
    /// What was behind, at most, while all was well.
    usual: u64,
    /// Since when as little has been behind, and in how many looks.
    calm: Option<(f64, u32)>,
}

impl<S: Surgeon> Player<S> {
    pub fn new(surgeon: S, schedule: Schedule, world: Arc<World>, looks: watch::Receiver<Option<Look>>) -> Self {
        Self { surgeon, schedule, world, looks, played: Played::default(), active: Vec::new(), usual: 0, calm: None }
    }

    fn now_s(&self) -> f64 {
        let from = self.world.measured_from_us.load(Ordering::Relaxed);
        (self.world.now_us() as f64 - from as f64) / 1e6
    }

    /// Only looks on until this time.
    pub async fn play_nothing(&mut self, until_s: f64) {
        self.watch(until_s).await;
    }

    /// Plays until `until_s` and heals what is still on then. `changed` is told after each fault that came or went.
    pub async fn play(&mut self, until_s: f64, changed: impl Fn(&S)) -> Outcome<()> {
        let mut moments: Vec<(Duration, bool, usize)> = Vec::new();
        for (at, fault) in self.schedule.faults.iter().enumerate() {
            moments.push((fault.at, true, at));
            moments.extend(fault.ends().map(|end| (end, false, at)));
        }
        // At the same time what ends goes first.
        moments.sort();
        for (time, begins, at) in moments {
            self.watch(time.as_secs_f64().min(until_s)).await;
            let done = if begins { self.begin(at).await } else { self.end(at).await };
            let text = &self.schedule.faults[at].text;
            done.map_err(|error| format!("'{text}' at {} s: {error}", time.as_secs_f64()))?;
            changed(&self.surgeon);
        }
        self.watch(until_s).await;
        self.heal().await
    }

    /// Ends everything that is on.
    pub async fn heal(&mut self) -> Outcome<()> {
        while let Some((at, _)) = self.active.first().copied() {
            self.end(at).await?;
        }
        Ok(())
    }

    async fn begin(&mut self, at: usize) -> Outcome<()> {
        let fault = self.schedule.faults[at].clone();
        let from_s = self.now_s();
        self.played.spans.push(FaultSpan { from_s, to_s: None, text: fault.text.clone() });
        self.active.push((at, self.played.spans.len() - 1));
        self.tell();
        self.surgeon.begin(&fault).await?;
        // What has no length is over when it has been done.
        if matches!(fault.action, super::schedule::Action::Restart { .. }) { self.end(at).await } else { Ok(()) }
    }

    async fn end(&mut self, at: usize) -> Outcome<()> {
        let Some(place) = self.active.iter().position(|(active, _)| *active == at) else { return Ok(()) };
        let fault = self.schedule.faults[at].clone();
        self.surgeon.end(&fault).await?;
        let (_, span) = self.active.remove(place);
        let now_s = self.now_s();
        self.played.spans[span].to_s = Some(now_s);
        self.tell();
        if self.active.is_empty() {
            self.played.healings.push(Healing { healed_at_s: now_s, level_after_s: None, behind: Vec::new() });
        }
        Ok(())
    }

    /// Tells the load what is on.
    fn tell(&self) {
        let texts: Vec<&str> = self.active.iter().map(|(at, _)| self.schedule.faults[*at].text.as_str()).collect();
        *self.world.faults_text.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = texts.join("; ");
        self.world.faults_on.store(self.active.len() as u32, Ordering::Relaxed);
        self.world.faults_changed.fetch_add(1, Ordering::Relaxed);
    }

    /// Looks on until this time.
    async fn watch(&mut self, until_s: f64) {
        loop {
            let left = until_s - self.now_s();
            if left <= 0.0 {
                return;
            }
            let mut looks = self.looks.clone();
            tokio::select! {
                () = sleep(Duration::from_secs_f64(left)) => return,
                changed = looks.changed() => match changed {
                    Ok(()) => {
                        self.looks = looks;
                        let look = *self.looks.borrow_and_update();
                        if let Some(look) = look {
                            self.take(look, false);
                        }
                    }
                    // Nobody looks: only the time counts.
                    Err(_) => sleep(Duration::from_secs_f64(left)).await,
                },
            }
        }
    }

    /// Takes a look at the nodes. Under load something is always under way: level is then what was usual before the first fault.
    /// `still`: the load has ended, and level is level. True: it is.
    pub fn take(&mut self, look: Look, still: bool) -> bool {
        let from = self.world.measured_from_us.load(Ordering::Relaxed);
        let at_s = (look.at_us as f64 - from as f64) / 1e6;
        let is_old = self.played.healings.last().is_some_and(|healing| at_s <= healing.healed_at_s);
        if !self.active.is_empty() || is_old {
            self.calm = None;
            return false;
        }
        let calm = look.hints == 0 && look.behind.is_some_and(|behind| behind <= self.usual);
        self.calm = match self.calm {
            Some((since_s, looks)) if calm => Some((since_s, looks + 1)),
            _ => calm.then_some((at_s, 1)),
        };
        let since_s = match self.calm {
            _ if look.level => Some(at_s),
            Some((since_s, looks)) if !still && looks >= CALM_LOOKS => Some(since_s),
            _ => None,
        };
        match self.played.healings.last_mut() {
            None if at_s >= 0.0 => self.usual = self.usual.max(look.behind.unwrap_or(0)),
            Some(healing) if healing.level_after_s.is_none() => {
                if let Some(behind) = look.behind
                    && healing.behind.len() < SAMPLES_MAX
                {
                    healing.behind.push((at_s - healing.healed_at_s, behind));
                }
                healing.level_after_s = since_s.map(|since_s| since_s - healing.healed_at_s);
            }
            None | Some(_) => {}
        }
        since_s.is_some()
    }
}

/// Waits until all owners hold the same, with the load at an end. False: not in time.
pub async fn until_level<S: Surgeon>(player: &mut Player<S>, longest: Duration) -> bool {
    let wait = async {
        let began_us = player.world.now_us();
        loop {
            if player.looks.changed().await.is_err() {
                return false;
            }
            let look = *player.looks.borrow_and_update();
            if let Some(look) = look
                && player.take(look, true)
                && look.at_us > began_us
            {
                return true;
            }
        }
    };
    tokio::time::timeout(longest, wait).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
    use std::time::Instant;

    use super::*;
    use crate::check::ledger::Ledger;
    use crate::faults::schedule::{Fault, parse};
    use crate::load::keys::Distribution;
    use crate::load::workload::Workload;

    #[derive(Default)]
    struct Notes(Vec<String>);

    impl Surgeon for Notes {
        fn check(&self, _: &Fault) -> Result<(), String> {
            Ok(())
        }

        async fn begin(&mut self, fault: &Fault) -> Outcome<()> {
            self.0.push(format!("begin {}", fault.text));
            if fault.text == "kill n9" { Err("no such node".into()) } else { Ok(()) }
        }

        async fn end(&mut self, fault: &Fault) -> Outcome<()> {
            self.0.push(format!("end {}", fault.text));
            Ok(())
        }
    }

    fn player(text: &str, looks: watch::Receiver<Option<Look>>) -> Player<Notes> {
        let workload = Workload::named("mix", None, 0.0).expect("a workload");
        let world = World {
            began: Instant::now(),
            ledger: Ledger::new(1, workload.model, 1),
            workload,
            distribution: Distribution::Uniform,
            sizes: (16, 16),
            pipeline: 1,
            rate: None,
            workers: 1,
            members: Vec::new(),
            intersecting: true,
            measured_from_us: AtomicU64::new(0),
            until_us: AtomicU64::new(0),
            faults_on: AtomicU32::new(0),
            faults_changed: AtomicU32::new(0),
            faults_text: Mutex::new(String::new()),
            stopped: AtomicBool::new(false),
        };
        Player::new(Notes::default(), parse(text).expect("a scenario"), Arc::new(world), looks)
    }

    #[tokio::test]
    async fn faults_come_and_go_in_order_and_what_is_left_is_healed() {
        let (_tell, looks) = watch::channel(None);
        let text = "at 10ms pause n1 for 20ms\nat 20ms kill n2 for 10ms\nat 30ms restart n3\nat 40ms clock n1 +1h";
        let mut player = player(text, looks);
        player.play(0.06, |_| ()).await.expect("all can be done");
        let expected = [
            "begin pause n1",
            "begin kill n2",
            "end pause n1",
            "end kill n2",
            "begin restart n3",
            "end restart n3",
            "begin clock n1 +1h",
            "end clock n1 +1h",
        ];
        assert_eq!(player.surgeon.0, expected);
        assert!(player.played.spans.iter().all(|span| span.to_s.is_some_and(|to| to >= span.from_s)));
        assert_eq!(player.played.healings.len(), 3);
        assert_eq!(player.world.faults_text(), "no fault was on");
    }

    #[tokio::test]
    async fn what_cannot_be_done_is_told() {
        let (_tell, looks) = watch::channel(None);
        let error = player("at 1ms kill n9 for 1s", looks).play(2.0, |_| ()).await.expect_err("it cannot");
        assert_eq!(error.to_string(), "'kill n9' at 0.001 s: no such node");
    }

    #[tokio::test]
    async fn healing_ends_when_as_little_is_behind_as_before() {
        let (_tell, looks) = watch::channel(None);
        let mut player = player("at 0s kill n1 for 0s", looks);
        let look = |at_us, behind, level| Look { at_us, behind, level, hints: 0 };
        player.take(look(1, Some(7), false), false);
        player.begin(0).await.expect("it can");
        player.take(look(2, Some(1_000), false), false);
        player.end(0).await.expect("it can");
        let healed_us = (player.played.healings[0].healed_at_s * 1e6) as u64;
        player.take(look(healed_us + 1_000, None, false), false);
        player.take(look(healed_us + 2_000, Some(500), false), false);
        assert_eq!(player.played.healings[0].level_after_s, None);
        player.take(look(healed_us + 3_000, Some(8), false), false);
        for step in 4..4 + u64::from(CALM_LOOKS) {
            assert_eq!(player.played.healings[0].level_after_s, None);
            player.take(look(healed_us + step * 1_000, Some(7), false), false);
        }
        player.take(look(healed_us + 10_000, Some(0), true), false);
        let healing = &player.played.healings[0];
        assert_eq!(healing.behind.iter().map(|(_, behind)| *behind).collect::<Vec<_>>(), [500, 8, 7, 7, 7, 7, 7]);
        assert!((healing.level_after_s.expect("level") - 0.004).abs() < 0.000_1, "{healing:?}");
        player.played.healings[0].level_after_s = None;
        assert!(!player.take(look(healed_us + 11_000, Some(7), false), true), "level is level when nobody writes");
        let hints = Look { hints: 1, ..look(healed_us + 12_000, Some(1), false) };
        assert!((0..9).all(|_| !player.take(hints, false)), "hints are kept for somebody");
    }
}
