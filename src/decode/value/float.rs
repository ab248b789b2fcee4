//! `float4` and `float8`: a number flows in, PostgreSQL's text flows out, as with extra_float_digits 1 or
//! more. Rust, too, writes the fewest digits that read back as the same number, and where it takes others
//! than PostgreSQL does, it is put right here.

use std::fmt::{self, Write};
use std::str::FromStr;

pub(super) fn write_4(out: &mut String, float: f32) {
    let (exponent, fraction) = (float.to_bits() >> 23 & 0xff, float.to_bits() & 0x7f_ffff);
    let binary = Binary::new(exponent as i32 - 127, fraction.into(), 23);
    // As many digits as printf takes by itself, see f2s.c of PostgreSQL.
    write(out, &shortest(float, binary), 6);
}

pub(super) fn write_8(out: &mut String, float: f64) {
    let (exponent, fraction) = (float.to_bits() >> 52 & 0x7ff, float.to_bits() & 0xf_ffff_ffff_ffff);
    let binary = Binary::new(exponent as i32 - 1023, fraction, 52);
    write(out, &shortest(float, binary), 15);
}

/// The fewest digits, in scientific notation.
fn shortest<Float>(float: Float, binary: Binary) -> Short
where
    Float: fmt::LowerExp + FromStr<Err: PartialEq> + PartialEq + Copy,
{
    let mut scientific = Short::of(format_args!("{float:e}"));
    while let Some(precision) = scientific.digits().and_then(|digits| binary.better_precision(digits)) {
        let better = Short::of(format_args!("{float:.precision$e}"));
        // Below a power of two, the next number is nearer: there, another may come of fewer digits.
        if better.as_str().parse() != Ok(float) || better.as_str() == scientific.as_str() {
            break;
        }
        scientific = better;
    }
    scientific
}

/// Writes a number without an exponent if that is at least -4, and less than `exponent_max`.
fn write(out: &mut String, scientific: &Short, exponent_max: i32) {
    let Some((number, exponent)) = scientific.as_str().split_once('e') else {
        out.push_str(match scientific.as_str() {
            "inf" => "Infinity",
            "-inf" => "-Infinity",
            other => other,
        });
        return;
    };
    let exponent = exponent.parse::<i32>().unwrap_or_default();
    let positive = number.trim_start_matches('-');
    out.push_str(&number[..number.len() - positive.len()]);
    if !(-4..exponent_max).contains(&exponent) {
        out.push_str(positive);
        let sign = if exponent < 0 { '-' } else { '+' };
        _ = write!(out, "e{sign}{:02}", exponent.unsigned_abs());
        return;
    }
    let digits = || positive.chars().filter(|c| *c != '.');
    let before_point = usize::try_from(exponent + 1).unwrap_or_default();
    if before_point == 0 {
        out.push_str("0.");
        out.extend((exponent + 1..0).map(|_| '0'));
        out.extend(digits());
        return;
    }
    out.extend(digits().chain(std::iter::repeat('0')).take(before_point));
    if digits().count() > before_point {
        out.push('.');
        out.extend(digits().skip(before_point));
    }
}

/// A number, without its sign, as its mantissa times two to the power of the exponent.
struct Binary {
    mantissa: u64,
    exponent: i32,
    /// Whether the next smaller number is only half as far away as the next larger one.
    is_power_of_2: bool,
}

impl Binary {
    /// Of an exponent without its bias, and so many bits of a fraction. What comes of 0, of a number below
    /// the smallest normal one, or of one that is not finite, is no matter: none of their neighbours is near
    /// enough to a number of few digits.
    fn new(exponent: i32, fraction: u64, bits: i32) -> Self {
        Binary { mantissa: fraction | 1 << bits, exponent: exponent - bits, is_power_of_2: fraction == 0 }
    }

    /// With how many digits behind the first it is to be written instead, if with these digits PostgreSQL
    /// would not write it (`src/common/d2s.c`).
    fn better_precision(&self, digits: Decimal) -> Option<usize> {
        let Decimal { whole, exponent, precision } = digits;
        // Halfway to the next number, they read back as this one where it is the even one of both. PostgreSQL
        // takes more, for those who round otherwise.
        let below =
            if self.is_power_of_2 { (self.mantissa * 4 - 1, -2) } else { (self.mantissa * 2 - 1, -1) };
        let is_halfway = |(mantissa, shift)| equals((whole, exponent), (mantissa, self.exponent + shift));
        if is_halfway(below) || is_halfway((self.mantissa * 2 + 1, -1)) {
            return Some(precision + 1);
        }
        // A five behind them was rounded up; PostgreSQL rounds it to the even digit, and so does Rust, if it
        // is told how many digits there are.
        let with_five = whole.saturating_mul(10) - 5;
        let is_rounded_up =
            whole % 2 == 1 && equals((with_five, exponent - 1), (self.mantissa, self.exponent));
        is_rounded_up.then_some(precision)
    }
}

/// Whether a number times ten to the power of another is one times two to the power of another.
fn equals((decimal, ten_exponent): (u64, i32), (binary, two_exponent): (u64, i32)) -> bool {
    // Both as an odd number times a power of two.
    let twos = |number: u64| number.trailing_zeros() as i32;
    let fives = 5u64.checked_pow(ten_exponent.unsigned_abs());
    let odd = |number: u64| number.checked_shr(number.trailing_zeros());
    let by_fives = |number: u64| odd(number)?.checked_mul(fives?);
    let (left, right) =
        if ten_exponent < 0 { (odd(decimal), by_fives(binary)) } else { (by_fives(decimal), odd(binary)) };
    left.is_some() && left == right && twos(decimal) + ten_exponent == twos(binary) + two_exponent
}

/// What was written in scientific notation: a whole number times ten to the power of another.
struct Decimal {
    whole: u64,
    exponent: i32,
    /// How many digits stand behind the first.
    precision: usize,
}

/// Some characters of ASCII, without an allocation.
#[derive(Default)]
struct Short {
    bytes: [u8; 32],
    length: usize,
}

impl Short {
    /// The longest number that comes is -1.7976931348623157e308.
    fn of(text: fmt::Arguments<'_>) -> Self {
        let mut short = Short::default();
        _ = short.write_fmt(text);
        short
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    /// What is written in scientific notation; none if it is 0, or not finite.
    fn digits(&self) -> Option<Decimal> {
        let (number, exponent) = self.as_str().split_once('e')?;
        let digits = number.bytes().filter(u8::is_ascii_digit);
        let whole = digits
            .fold(0u64, |whole, digit| whole.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
        let precision = number.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        let exponent = exponent.parse::<i32>().ok()? - i32::try_from(precision).ok()?;
        (whole > 0).then_some(Decimal { whole, exponent, precision })
    }
}

impl Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
