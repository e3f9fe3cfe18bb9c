//! A scenario's line as words with their places, and what a word may be: a time, nodes, a share, how wrong a clock is.

use std::time::Duration;

use super::schedule::ScheduleError;

const TIME_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Delays and jitter that a node can make.
const DELAY_MAX: Duration = Duration::from_secs(10);
const CLOCK_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The words of a line, without its comment; `->` and `|` are words of their own.
pub struct Words<'a> {
    line: usize,
    words: Vec<(usize, &'a str)>,
    at: usize,
    /// One past the last character.
    end: usize,
}

impl<'a> Words<'a> {
    pub fn of(text: &'a str, line: usize) -> Self {
        let text = text.split('#').next().unwrap_or_default();
        let mut words = Vec::new();
        let mut start = None;
        for (at, letter) in text.char_indices().chain([(text.len(), ' ')]) {
            let stands_alone = letter == '|';
            if letter.is_whitespace() || stands_alone {
                if let Some(from) = start.take() {
                    words.push((from, &text[from..at]));
                }
                if stands_alone {
                    words.push((at, &text[at..at + 1]));
                }
            } else if start.is_none() {
                start = Some(at);
            }
        }
        let column = |at: usize| text[..at].chars().count() + 1;
        let words = words.into_iter().map(|(at, word)| (column(at), word)).collect();
        Self { line, words, at: 0, end: text.trim_end().chars().count() + 1 }
    }

    pub fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).map(|(_, word)| *word)
    }

    pub fn next(&mut self) -> Option<&'a str> {
        let word = self.peek();
        self.at += usize::from(word.is_some());
        word
    }

    pub fn column(&self) -> usize {
        self.words.get(self.at).map_or(self.end, |(column, _)| *column)
    }

    pub fn here(&self, message: impl Into<String>) -> ScheduleError {
        ScheduleError { line: self.line, column: self.column(), message: message.into() }
    }

    /// The words from this column up to here.
    pub fn since(&self, column: usize) -> String {
        let words = self.words[..self.at].iter().filter(|(at, _)| *at >= column);
        words.map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
    }

    pub fn wanted(&self, what: &str) -> ScheduleError {
        self.here(match self.peek() {
            Some(word) => format!("'{word}' is not {what}"),
            None => format!("here is wanted: {what}"),
        })
    }

    pub fn expect(&mut self, word: &str, hint: &str) -> Result<(), ScheduleError> {
        if self.peek() == Some(word) {
            self.at += 1;
            return Ok(());
        }
        Err(self.wanted(&format!("'{word}', {hint}")))
    }

    pub fn expect_end(&self, allowed: &str) -> Result<(), ScheduleError> {
        if self.peek().is_some() { Err(self.wanted(allowed)) } else { Ok(()) }
    }

    pub fn time(&mut self, what: &str) -> Result<Duration, ScheduleError> {
        let time = self.peek().and_then(|word| humantime::parse_duration(word).ok());
        match time {
            Some(time) if time <= TIME_MAX => {
                self.at += 1;
                Ok(time)
            }
            Some(_) => Err(self.here("this is longer than a week")),
            None => Err(self.wanted(what)),
        }
    }

    pub fn short(&mut self, what: &str) -> Result<Duration, ScheduleError> {
        let column = self.column();
        let time = self.time(what)?;
        if time > DELAY_MAX {
            let message = format!("a packet can be held for {} s at most", DELAY_MAX.as_secs());
            return Err(ScheduleError { line: self.line, column, message });
        }
        Ok(time)
    }

    /// `n1` or `n1,n2`, also with blanks after the commas.
    pub fn nodes(&mut self) -> Result<Vec<String>, ScheduleError> {
        let mut nodes: Vec<String> = Vec::new();
        loop {
            let word = match self.peek() {
                Some(word) if word != "|" && word != "->" && word != "for" => word,
                _ => return Err(self.wanted("a node's name, as n1 or n1,n2")),
            };
            for name in word.split(',').filter(|name| !name.is_empty()) {
                let fits = name.chars().all(|letter| letter.is_alphanumeric() || "-_.".contains(letter));
                if !fits {
                    return Err(self.wanted("a node's name, as n1 or n1,n2"));
                }
                if nodes.iter().any(|known| known == name) {
                    return Err(self.here(format!("{name} is named twice")));
                }
                nodes.push(name.to_owned());
            }
            self.at += 1;
            let goes_on = word.ends_with(',') || self.peek().is_some_and(|next| next.starts_with(','));
            if !goes_on {
                return Ok(nodes);
            }
        }
    }

    /// At least two lists of nodes with `|` between.
    pub fn sides(&mut self) -> Result<Vec<Vec<String>>, ScheduleError> {
        let mut sides = vec![self.nodes()?];
        while self.peek() == Some("|") {
            self.at += 1;
            let column = self.column();
            let side = self.nodes()?;
            if let Some(twice) = side.iter().find(|node| sides.iter().flatten().any(|known| known == *node)) {
                let message = format!("{twice} is on two sides");
                return Err(ScheduleError { line: self.line, column, message });
            }
            sides.push(side);
        }
        if sides.len() < 2 {
            return Err(self.wanted("'|' and the other side, as in `n1 | n2,n3`"));
        }
        Ok(sides)
    }

    /// `5%` or `0.5%`, in parts of a million.
    pub fn share(&mut self) -> Result<u32, ScheduleError> {
        let percent = self.peek().and_then(|word| word.strip_suffix('%')?.parse::<f64>().ok());
        match percent {
            Some(percent) if percent > 0.0 && percent <= 100.0 => {
                self.at += 1;
                Ok((percent * 10_000.0).round() as u32)
            }
            _ => Err(self.wanted("a share above 0 % and up to 100 %, as 5%")),
        }
    }

    /// `+1h` or `-500ms`.
    pub fn offset(&mut self) -> Result<i64, ScheduleError> {
        let what = "how wrong the clock is, as +1h or -500ms, up to a day";
        let word = self.peek().ok_or_else(|| self.wanted(what))?;
        let (sign, rest) = match word.split_at_checked(1) {
            Some(("+", rest)) => (1, rest),
            Some(("-", rest)) => (-1, rest),
            _ => return Err(self.wanted(what)),
        };
        match humantime::parse_duration(rest) {
            Ok(offset) if offset <= CLOCK_MAX => {
                self.at += 1;
                Ok(sign * offset.as_millis() as i64)
            }
            _ => Err(self.wanted(what)),
        }
    }
}
