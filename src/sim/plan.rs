//! What one seed holds: the cluster, the weather, the load, and every fault with its moment, drawn before anything runs.

use super::load::KINDS;
use super::random::Random;

/// The kinds of fault, each of which a seed may leave out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Kill,
    PowerCut,
    Blackout,
    Restart,
    Wipe,
    Pause,
    Slow,
    Cut,
    CutOneWay,
    Isolate,
    Split,
    Suspect,
    ClockStep,
    Weather,
    LinkReset,
    CrashLoop,
    DiskError,
    ReadError,
    FullDisk,
    OldDisk,
    ClockLeap,
}

impl Kind {
    pub const ALL: [Kind; 21] = [
        Kind::Kill,
        Kind::PowerCut,
        Kind::Blackout,
        Kind::Restart,
        Kind::Wipe,
        Kind::Pause,
        Kind::Slow,
        Kind::Cut,
        Kind::CutOneWay,
        Kind::Isolate,
        Kind::Split,
        Kind::Suspect,
        Kind::ClockStep,
        Kind::Weather,
        Kind::LinkReset,
        Kind::CrashLoop,
        Kind::DiskError,
        Kind::ReadError,
        Kind::FullDisk,
        Kind::OldDisk,
        Kind::ClockLeap,
    ];
    /// Drawn apart from the others.
    const RARE: [Kind; 5] = [Kind::DiskError, Kind::ReadError, Kind::FullDisk, Kind::OldDisk, Kind::ClockLeap];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::PowerCut => "power_cut",
            Kind::Blackout => "blackout",
            Kind::Restart => "clean_restart",
            Kind::Wipe => "wipe",
            Kind::Pause => "pause",
            Kind::Slow => "slow",
            Kind::Cut => "cut",
            Kind::CutOneWay => "cut_one_way",
            Kind::Isolate => "isolate",
            Kind::Split => "split",
            Kind::Suspect => "false_suspicion",
            Kind::ClockStep => "clock_step",
            Kind::Weather => "bad_weather",
            Kind::LinkReset => "link_reset",
            Kind::CrashLoop => "crash_loop",
            Kind::DiskError => "write_error",
            Kind::ReadError => "read_error",
            Kind::FullDisk => "full_disk",
            Kind::OldDisk => "old_disk",
            Kind::ClockLeap => "clock_leap",
        }
    }
}

/// Which worlds are drawn. A range of seeds of the usual ones meets everything, some of it rarely; the others meet one thing all the time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Aim {
    /// Anything.
    #[default]
    Usual,
    /// Owners that lack what no log has any more, and are written while they are sent all rows.
    FullSyncs,
    /// Stand-ins that acknowledge alone, are cut off, and hand over late.
    Hints,
    /// Removals on every key, and every bound on what is remembered of them as short as it can be.
    Removals,
    /// Disks put back as they were before something was deleted whose delete row has gone since, and is in the log still.
    OldDisks,
    /// Full syncs whose source loses its own disk meanwhile.
    LostSources,
    /// Keys that are counted on, tried again elsewhere, deleted and ended, all the time and by messages that are slow and get lost.
    Retries,
    /// Members that are away beyond the horizon, one after the other.
    Absences,
}

impl Aim {
    pub const ALL: [Aim; 8] = [
        Aim::Usual,
        Aim::FullSyncs,
        Aim::Hints,
        Aim::Removals,
        Aim::OldDisks,
        Aim::LostSources,
        Aim::Retries,
        Aim::Absences,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Aim::Usual => "usual",
            Aim::FullSyncs => "full_syncs",
            Aim::Hints => "hints",
            Aim::Removals => "removals",
            Aim::OldDisks => "old_disks",
            Aim::LostSources => "lost_sources",
            Aim::Retries => "retries",
            Aim::Absences => "absences",
        }
    }
}

/// One fault: what, where, for how long. Nodes are numbers from 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub at_us: u64,
    pub kind: Kind,
    pub node: usize,
    pub other: usize,
    pub for_us: u64,
    /// A draw for whatever else the kind needs: a mask of nodes, a clock's step.
    pub draw: u64,
}

/// What the network does to messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weather {
    pub loss_ppm: u32,
    /// This many are not taken for sending, and the sender knows it.
    pub full_ppm: u32,
    pub double_ppm: u32,
    pub delay_min_us: u64,
    pub delay_max_us: u64,
    /// This many are delayed by up to `tail_us` more.
    pub tail_ppm: u32,
    pub tail_us: u64,
}

impl Weather {
    pub const FAIR: Self =
        Self { loss_ppm: 0, full_ppm: 0, double_ppm: 0, delay_min_us: 100, delay_max_us: 600, tail_ppm: 0, tail_us: 0 };
}

/// A whole scenario.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub replicas: u8,
    pub partitions: u16,
    pub clients: usize,
    /// Kinds of keys (`load`).
    pub kinds: &'static [u8],
    /// Keys of each kind.
    pub keys: u64,
    /// A client rests this long at most between two calls.
    pub rest_us: u64,
    pub hurt_us: u64,
    pub weather: Weather,
    /// How often a node syncs its disk without being asked.
    pub sync_every_us: u64,
    pub skew_ms: u64,
    pub hint_bytes_max: u64,
    /// How long a node keeps its log after every owner has it. Short, so that full syncs are met.
    pub log_keep_us: u64,
    pub page_bytes: usize,
    /// How long an operation id is remembered. Short, so that forgetting is met.
    pub op_id_window_ms: u64,
    /// Longer than any message is under way.
    pub settle_us: u64,
    /// Who is away for longer is fenced; 0: nobody.
    pub horizon_us: u64,
    /// One turn in a million of these ends in a crash between the commit and the sending.
    pub crash_at_turn_ppm: u32,
    pub faults: Vec<Fault>,
}

impl Plan {
    pub fn draw(random: &Random, hurt_us: u64, aim: Aim) -> Self {
        let usual = Self::draw_usual(random, hurt_us);
        let mut draw = random.fork("aimed");
        match aim {
            Aim::Usual => usual,
            Aim::FullSyncs => usual.of_full_syncs(&mut draw),
            Aim::Hints => usual.of_hints(&mut draw),
            Aim::Removals => usual.of_removals(&mut draw),
            Aim::OldDisks => usual.of_old_disks(&mut draw),
            Aim::LostSources => usual.of_lost_sources(&mut draw),
            Aim::Retries => usual.of_retries(&mut draw),
            Aim::Absences => usual.of_absences(&mut draw),
        }
    }

    fn draw_usual(random: &Random, hurt_us: u64) -> Self {
        let mut draw = random.fork("plan");
        // Long enough, at times, that rows are dropped while others are written.
        let hurt_us = hurt_us * *random.fork("length").pick(&[1, 1, 1, 3]);
        let nodes = draw.between(3, 9).min(draw.between(3, 9)) as usize;
        let replicas = if draw.chance(850_000) { 3 } else { draw.between(2, 5).min(nodes as u64) as u8 };
        let everything = draw.chance(500_000);
        let common = Kind::ALL.into_iter().filter(|kind| !Kind::RARE.contains(kind));
        let on: Vec<Kind> = common.filter(|_| everything || draw.chance(400_000)).collect();
        let harsh = Weather {
            loss_ppm: draw.below(60_000) as u32,
            full_ppm: {
                let mut full = random.fork("full");
                if full.chance(300_000) { full.below(200_000) as u32 } else { 0 }
            },
            double_ppm: draw.below(100_000) as u32,
            delay_min_us: 200,
            delay_max_us: draw.between(1_000, 20_000),
            tail_ppm: draw.below(50_000) as u32,
            tail_us: draw.between(10_000, 3_000_000),
        };
        let weather = if on.contains(&Kind::Weather) { harsh } else { Weather::FAIR };
        let gap_us = draw.between(200_000, 3_000_000);
        let mut faults = Vec::new();
        let mut at_us = draw.between(50_000, gap_us);
        while at_us < hurt_us && !on.is_empty() {
            let kind = *draw.pick(&on);
            let for_us =
                if draw.chance(700_000) { draw.between(50_000, 2_000_000) } else { draw.between(1_000_000, 8_000_000) };
            faults.push(Fault {
                at_us,
                kind,
                node: draw.below(nodes as u64) as usize,
                other: draw.below(nodes as u64) as usize,
                for_us,
                draw: draw.draw(),
            });
            at_us += draw.between(20_000, gap_us);
        }
        let mut rare = random.fork("rare");
        if rare.chance(400_000) {
            for _ in 0..rare.between(1, 4) {
                faults.push(Fault {
                    at_us: rare.below(hurt_us),
                    kind: *rare.pick(&Kind::RARE),
                    node: rare.below(nodes as u64) as usize,
                    other: 0,
                    for_us: rare.between(200_000, 5_000_000),
                    draw: rare.draw(),
                });
            }
            faults.sort_by_key(|fault| fault.at_us);
        }
        let mut pages = random.fork("pages");
        let mut windows = random.fork("windows");
        let plan = Self {
            nodes,
            replicas,
            log_keep_us: *pages.pick(&[100_000, 1_000_000, 10_000_000]),
            page_bytes: *pages.pick(&[1, 100, 1_000, 256 << 10]),
            settle_us: 1_000_000
                + weather.delay_max_us
                + weather.tail_us
                + if weather.double_ppm > 0 { 2_000_000 } else { 0 },
            horizon_us: *random.fork("horizon").pick(&[0, 0, 1_000_000, 2_500_000]),
            op_id_window_ms: *windows.pick(&[5_000, 20_000, 600_000]),
            partitions: *draw.pick(&[1, 2, 4, 8]),
            clients: draw.between(2, 6) as usize,
            kinds: KINDS,
            keys: *draw.pick(&[1, 2, 2, 5]),
            rest_us: *draw.pick(&[5_000, 30_000, 100_000]),
            hurt_us,
            weather,
            sync_every_us: *draw.pick(&[5_000, 50_000, 1_000_000]),
            skew_ms: if on.contains(&Kind::ClockStep) { draw.between(0, 300) } else { 0 },
            hint_bytes_max: if draw.chance(100_000) { draw.between(200, 5_000) } else { 1 << 20 },
            crash_at_turn_ppm: if on.contains(&Kind::Kill) && draw.chance(500_000) {
                draw.below(300) as u32
            } else {
                0
            },
            faults,
        };
        if random.fork("aim").chance(60_000) { plan.of_skewed_writers() } else { plan }
    }

    /// Nothing fails but messages, clocks are far apart, and everybody writes the same few keys: the order of writes is all that is at
    /// stake.
    fn of_skewed_writers(self) -> Self {
        let weather = Weather { loss_ppm: 150_000, delay_min_us: 100, delay_max_us: 2_000, ..Weather::FAIR };
        Self {
            weather,
            faults: Vec::new(),
            crash_at_turn_ppm: 0,
            skew_ms: 300,
            keys: 1,
            clients: 6,
            rest_us: 5_000,
            settle_us: 1_100_000,
            ..self
        }
    }

    fn of_full_syncs(self, draw: &mut Random) -> Self {
        let delay_max_us = *draw.pick(&[1_000, 20_000, 100_000]);
        let kinds = [Kind::Wipe, Kind::OldDisk, Kind::Isolate, Kind::Isolate, Kind::Cut, Kind::Kill, Kind::PowerCut];
        Self {
            partitions: *draw.pick(&[1, 2]),
            log_keep_us: 100_000,
            page_bytes: *draw.pick(&[1, 1, 100]),
            ..self.aimed(draw, delay_max_us, &kinds)
        }
    }

    fn of_hints(self, draw: &mut Random) -> Self {
        let kinds = [Kind::Isolate, Kind::Isolate, Kind::Cut, Kind::Split, Kind::Kill, Kind::Suspect, Kind::ClockLeap];
        let aimed = self.aimed(draw, 5_000, &kinds);
        let hint_bytes_max = *draw.pick(&[2_000, 1 << 20, 1 << 20]);
        // With few owners it is a stand-in that coordinates, time and again.
        let replicas = *draw.pick(&[1, 2, aimed.replicas]);
        Self { nodes: aimed.nodes.max(4), hint_bytes_max, replicas, ..aimed }
    }

    fn of_removals(self, draw: &mut Random) -> Self {
        let kinds = [Kind::Isolate, Kind::Cut, Kind::CutOneWay, Kind::Pause, Kind::Kill, Kind::Restart, Kind::Suspect];
        let delay_max_us = *draw.pick(&[1_000, 100_000]);
        Self {
            hurt_us: self.hurt_us.max(16_000_000),
            partitions: *draw.pick(&[1, 2]),
            keys: 1,
            log_keep_us: 100_000,
            op_id_window_ms: 5_000,
            ..self.aimed(draw, delay_max_us, &kinds)
        }
    }

    fn of_old_disks(self, draw: &mut Random) -> Self {
        let aimed = Self { hurt_us: self.hurt_us.max(16_000_000), ..self }.aimed(draw, 1_000, &[Kind::OldDisk]);
        let mut faults = aimed.faults;
        // One after the other: a newer copy takes the place of an older one.
        faults.retain(|_| draw.chance(400_000));
        for fault in &mut faults {
            fault.for_us = draw.between(3_000_000, 6_000_000);
        }
        Self {
            faults,
            weather: Weather { tail_ppm: 0, ..aimed.weather },
            settle_us: 1_001_000,
            partitions: *draw.pick(&[1, 2]),
            kinds: b"rrx",
            keys: 20,
            clients: 3,
            rest_us: 300_000,
            log_keep_us: 10_000_000,
            horizon_us: 0,
            ..aimed
        }
    }

    fn of_lost_sources(self, draw: &mut Random) -> Self {
        let aimed = Self { hurt_us: self.hurt_us.max(16_000_000), ..self }.aimed(draw, 50_000, &[Kind::Wipe]);
        let mut faults = Vec::new();
        // There is something to lose.
        let mut at_us = draw.between(4_000_000, 6_000_000);
        while at_us < aimed.hurt_us {
            let node = draw.below(aimed.nodes as u64) as usize;
            let other = (node + draw.between(1, aimed.nodes as u64 - 1) as usize) % aimed.nodes;
            for node in [node, other] {
                let for_us = draw.between(2_000, 50_000);
                faults.push(Fault { at_us, kind: Kind::Wipe, node, other: node, for_us, draw: 0 });
                at_us += draw.between(100_000, 3_000_000);
            }
            at_us += draw.between(3_000_000, 6_000_000);
        }
        Self { faults, partitions: 1, keys: 5, clients: 3, rest_us: 200_000, page_bytes: 1, horizon_us: 0, ..aimed }
    }

    fn of_retries(self, draw: &mut Random) -> Self {
        let kinds = [Kind::Isolate, Kind::Cut, Kind::Cut, Kind::CutOneWay, Kind::Pause, Kind::Suspect, Kind::Kill];
        let delay_max_us = *draw.pick(&[5_000, 100_000]);
        let aimed = self.aimed(draw, delay_max_us, &kinds);
        let weather = Weather { loss_ppm: *draw.pick(&[20_000, 100_000]), ..aimed.weather };
        Self { weather, kinds: b"dxx", keys: 1, partitions: 1, clients: *draw.pick(&[2, 6]), ..aimed }
    }

    fn of_absences(self, draw: &mut Random) -> Self {
        let kinds = [Kind::Kill, Kind::Pause, Kind::Isolate];
        let aimed = Self { hurt_us: self.hurt_us.max(24_000_000), ..self }.aimed(draw, 1_000, &kinds);
        let mut faults = aimed.faults;
        // One after the other: a majority stays.
        faults.retain(|_| draw.chance(200_000));
        for fault in &mut faults {
            fault.for_us = draw.between(8_000_000, 16_000_000);
        }
        Self {
            faults,
            weather: Weather { tail_ppm: 0, ..aimed.weather },
            settle_us: 1_001_000,
            partitions: *draw.pick(&[1, 2]),
            kinds: b"rdx",
            clients: 3,
            rest_us: 100_000,
            horizon_us: 1_000_000,
            ..aimed
        }
    }

    /// Busy clients, and faults of these kinds one after the other.
    fn aimed(self, draw: &mut Random, delay_max_us: u64, kinds: &[Kind]) -> Self {
        let weather = Weather {
            loss_ppm: *draw.pick(&[0, 20_000]),
            delay_min_us: 100,
            delay_max_us,
            tail_ppm: *draw.pick(&[0, 20_000]),
            tail_us: 1_000_000,
            ..Weather::FAIR
        };
        let nodes = draw.between(3, 5) as usize;
        let mut faults = Vec::new();
        let mut at_us = draw.between(100_000, 2_000_000);
        while at_us < self.hurt_us {
            let [node, other] = [0; 2].map(|_: usize| draw.below(nodes as u64) as usize);
            let for_us = draw.between(200_000, 3_000_000);
            faults.push(Fault { at_us, kind: *draw.pick(kinds), node, other, for_us, draw: draw.draw() });
            at_us += draw.between(200_000, 2_000_000);
        }
        Self {
            nodes,
            replicas: self.replicas.min(3),
            clients: 6,
            keys: *draw.pick(&[1, 2]),
            rest_us: *draw.pick(&[5_000, 30_000]),
            settle_us: 1_000_000 + delay_max_us + weather.tail_us,
            weather,
            crash_at_turn_ppm: 0,
            faults,
            ..self
        }
    }
}
