//! Values with units, as a profile writes them: `"50ms"`, `"5%"`, `"1Mbit/s"`, `"64KiB"`.

use std::{str::FromStr, time::Duration};

use serde::Deserialize;

/// A length of time: `"50ms"`, `"1.5s"`, `"2min"`, `"300us"`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

/// A share of a whole, from 0 to 1; written `"5%"`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Share(pub f64);

/// Bits a second; written `"1Mbit/s"`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate(pub f64);

impl Rate {
    /// How long `bytes` take at this rate.
    pub fn time_of(self, bytes: u64) -> Duration {
        #[allow(clippy::cast_precision_loss)] // packets and queues, far below 2^52 bytes
        Duration::from_secs_f64(bytes as f64 * 8.0 / self.0)
    }
}

/// How much a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub enum Queue {
    /// Bytes of whole IP packets; written `"64KiB"`.
    Bytes(u64),
    /// As much as the rate carries in this time; written `"200ms"`.
    Time(Duration),
}

/// A number and what stands behind it.
fn split<'a>(text: &'a str, such_as: &str) -> Result<(f64, &'a str), String> {
    let wrong = || format!("{text:?} is not understood, write for example {such_as}");
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| wrong())?;
    Ok((number, text[end..].trim_start()))
}

fn seconds_of(unit: &str) -> Option<f64> {
    Some(match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        _ => return None,
    })
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let such_as = "\"50ms\", \"1.5s\", \"2min\" or \"300us\"";
        let (number, unit) = split(text, such_as)?;
        let Some(seconds) = seconds_of(unit) else {
            return Err(format!("{text:?} has no unit of time, write for example {such_as}"));
        };
        // Rounded to a whole nanosecond, so that "0.3s" and "300ms" are the same.
        Duration::try_from_secs_f64((number * seconds * 1e9).round() / 1e9)
            .map(Self)
            .map_err(|_| format!("{text:?} is too long"))
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text, "\"5%\" or \"0.1%\"")?;
        match unit {
            "%" if number <= 100.0 => Ok(Self(number / 100.0)),
            "%" => Err(format!("{text:?} is more than 100%")),
            _ => Err(format!("{text:?} has no per cent sign, write for example \"5%\"")),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let such_as = "\"64kbit/s\" or \"1.5Mbit/s\"";
        let (number, unit) = split(text, such_as)?;
        let bits = match unit {
            "bit/s" => 1.0,
            "kbit/s" => 1e3,
            "Mbit/s" => 1e6,
            "Gbit/s" => 1e9,
            _ => return Err(format!("{text:?} has no unit of rate, write for example {such_as}")),
        };
        match number * bits {
            rate if rate >= 1.0 => Ok(Self(rate)),
            _ => Err(format!("{text:?} carries nothing: leave the rate out for no limit")),
        }
    }
}

impl FromStr for Queue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let such_as = "\"64KiB\", \"15000B\" or \"200ms\"";
        let (number, unit) = split(text, such_as)?;
        let bytes = match unit {
            "B" => 1.0,
            "kB" => 1e3,
            "KiB" => 1024.0,
            "MiB" => 1024.0 * 1024.0,
            unit if seconds_of(unit).is_some() => {
                return text.parse().map(|Span(time)| Self::Time(time));
            }
            _ => {
                return Err(format!("{text:?} is no size of a queue, write for example {such_as}"));
            }
        };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // never negative
        Ok(Self::Bytes((number * bytes).round() as u64))
    }
}

macro_rules! from_string {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    )*};
}
from_string!(Span, Share, Rate, Queue);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_units_are_understood() {
        assert_eq!("50ms".parse(), Ok(Span(Duration::from_millis(50))));
        assert_eq!("0.3s".parse(), Ok(Span(Duration::from_millis(300))));
        assert_eq!("2 min".parse(), Ok(Span(Duration::from_secs(120))));
        assert_eq!("5%".parse(), Ok(Share(0.05)));
        assert_eq!("1.5Mbit/s".parse(), Ok(Rate(1_500_000.0)));
        assert_eq!("64KiB".parse(), Ok(Queue::Bytes(65_536)));
        assert_eq!("1s".parse(), Ok(Queue::Time(Duration::from_secs(1))));
    }

    #[test]
    fn what_is_wrong_with_a_value_is_said_with_an_example() {
        let error = |text: &str| text.parse::<Span>().unwrap_err();
        assert!(error("50").contains("no unit of time"));
        assert!(error("fast").contains("for example"));
        assert!(error("99999999999999999999s").contains("too long"));
        assert!("0.05".parse::<Share>().unwrap_err().contains("per cent"));
        assert!("101%".parse::<Share>().unwrap_err().contains("more than"));
        assert!("0Mbit/s".parse::<Rate>().unwrap_err().contains("nothing"));
        assert!("1Mbps".parse::<Rate>().unwrap_err().contains("Mbit/s"));
        assert!("64".parse::<Queue>().unwrap_err().contains("queue"));
    }

    #[test]
    fn a_kilobyte_takes_eight_milliseconds_at_a_megabit() {
        assert_eq!(Rate(1e6).time_of(1000), Duration::from_millis(8));
    }
}
