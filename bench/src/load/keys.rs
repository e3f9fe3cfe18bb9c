//! Which key is asked for next: uniformly, by Zipf's law, or mostly the latest.

use std::fmt;
use std::str::FromStr;

use rand::RngExt;
use rand::rngs::SmallRng;
use rand_distr::{Distribution as _, Zipf};

/// Ranks are spread over the keys by multiplying with this prime, so that popular keys are not neighbours and none is left out.
const SPREAD: u64 = 2_654_435_761;
/// Zipf's law is set up anew when the keys have become more by this share: it changes little by less.
const GROWN_BY: f64 = 0.01;

/// How keys are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    Uniform,
    /// The k-th most popular key is drawn with a weight of 1 / k^exponent.
    Zipfian(f64),
    /// As Zipfian with 0.99, and the newest key is the most popular.
    Latest,
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused =
            || format!("'{text}' is not known: use uniform, latest, zipfian or zipfian:EXPONENT (above 0, up to 5)");
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            None if text == "zipfian" => Ok(Self::Zipfian(0.99)),
            None if text == "latest" => Ok(Self::Latest),
            Some(("zipfian", exponent)) => match exponent.parse::<f64>() {
                Ok(exponent) if exponent > 0.0 && exponent <= 5.0 => Ok(Self::Zipfian(exponent)),
                _ => Err(refused()),
            },
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Uniform => out.write_str("uniform"),
            Self::Zipfian(exponent) => write!(out, "zipfian {exponent}"),
            Self::Latest => out.write_str("latest"),
        }
    }
}

/// Draws keys for one worker.
#[derive(Clone, Debug)]
pub struct Chooser {
    distribution: Distribution,
    zipf: Option<(u32, Zipf<f64>)>,
}

impl Chooser {
    pub fn new(distribution: Distribution) -> Self {
        Self { distribution, zipf: None }
    }

    /// One of the keys `0..count`; `count` must not be 0.
    pub fn choose(&mut self, count: u32, random: &mut SmallRng) -> u32 {
        match self.distribution {
            Distribution::Uniform => random.random_range(0..count),
            Distribution::Zipfian(exponent) => {
                let rank = self.rank(count, exponent, random);
                (u64::from(rank) * SPREAD % u64::from(count)) as u32
            }
            Distribution::Latest => count - 1 - self.rank(count, 0.99, random),
        }
    }

    /// From 0; the most popular first.
    fn rank(&mut self, count: u32, exponent: f64, random: &mut SmallRng) -> u32 {
        let fits = |made: u32| made <= count && f64::from(count - made) <= f64::from(made) * GROWN_BY;
        let zipf = match &self.zipf {
            Some((made, zipf)) if fits(*made) => zipf,
            _ => {
                let zipf = Zipf::new(f64::from(count), exponent).expect("at least one key, and an exponent above 0");
                &self.zipf.insert((count, zipf)).1
            }
        };
        (zipf.sample(random) as u32 - 1).min(count - 1)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn drawn(distribution: Distribution, count: u32) -> Vec<u32> {
        let (mut chooser, mut random) = (Chooser::new(distribution), SmallRng::seed_from_u64(7));
        let mut times = vec![0; count as usize];
        for _ in 0..200_000 {
            times[chooser.choose(count, &mut random) as usize] += 1;
        }
        times
    }

    #[test]
    fn uniform_draws_each_key_about_equally() {
        for times in drawn(Distribution::Uniform, 100) {
            assert!((1_700..2_300).contains(&times), "{times}");
        }
    }

    #[test]
    fn zipfian_follows_its_law_and_is_spread() {
        let times = drawn(Distribution::Zipfian(0.99), 1_000);
        // The sum of 1 / k^0.99 for k up to 1000 is 7.73: the first is drawn 12.9 % of the time, the second 6.5 %.
        let at = |rank: u64| times[(rank * SPREAD % 1_000) as usize];
        assert!((25_000..27_000).contains(&at(0)), "{}", at(0));
        assert!((12_300..13_800).contains(&at(1)), "{}", at(1));
        assert!((2_350..2_950).contains(&at(9)), "{}", at(9));
        let mut popular: Vec<usize> = (0..1_000).collect();
        popular.sort_by_key(|key| std::cmp::Reverse(times[*key]));
        assert!(popular[0].abs_diff(popular[1]) > 1, "the most popular are neighbours");
        assert!(times.iter().filter(|times| **times == 0).count() < 20, "keys are left out");
    }

    #[test]
    fn latest_prefers_the_newest_also_when_keys_are_added() {
        let times = drawn(Distribution::Latest, 1_000);
        assert!(times[999] > times[998] && times[998] > times[990] && times[990] > times[500]);
        let (mut chooser, mut random) = (Chooser::new(Distribution::Latest), SmallRng::seed_from_u64(7));
        chooser.choose(10, &mut random);
        let newest = (0..1_000).filter(|_| chooser.choose(5_000, &mut random) >= 4_990).count();
        assert!(newest > 250, "{newest}");
        assert!((0..1_000).all(|_| chooser.choose(1, &mut random) == 0));
    }

    #[test]
    fn distributions_are_read_and_refused() {
        assert_eq!("zipfian".parse(), Ok(Distribution::Zipfian(0.99)));
        assert_eq!("zipfian:1.2".parse(), Ok(Distribution::Zipfian(1.2)));
        assert_eq!("uniform".parse(), Ok(Distribution::Uniform));
        for wrong in ["zipfian:0", "zipfian:x", "zipfian:9", "uniform:2", "pareto", ""] {
            assert!(wrong.parse::<Distribution>().expect_err(wrong).contains("zipfian:EXPONENT"));
        }
    }
}
