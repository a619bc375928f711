//! `Value` against an independent big-decimal crate, and against what the recorded conversations accept.

#![allow(clippy::unwrap_used, reason = "a test; clippy knows only functions marked as tests")]

use bigdecimal::num_bigint::BigInt;
use bigdecimal::{BigDecimal, RoundingMode, Signed};
use engine::value::{Total, Value, ValueError};
use proptest::prelude::*;

fn parse(text: &str) -> Result<Value, ValueError> {
    Value::parse(text.as_bytes())
}

fn value(text: &str) -> Value {
    parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What the number must be, worked out by the other crate: `mantissa * 10^exponent`, rounded and bounded.
fn expected(mantissa: &BigInt, exponent: i64) -> Result<i128, ValueError> {
    let exact = BigDecimal::new(mantissa.clone(), -exponent);
    let rounded = exact.with_scale_round(17, RoundingMode::HalfEven);
    let (units, scale) = rounded.into_bigint_and_exponent();
    assert_eq!(scale, 17);
    if units.abs() > BigInt::from(10).pow(37) {
        return Err(ValueError::OutOfRange);
    }
    Ok(i128::try_from(units).unwrap())
}

/// The text by the other crate: its digits, without trailing zeros.
fn expected_text(value: Value) -> String {
    if value.is_zero() {
        return "0".to_owned();
    }
    let text = BigDecimal::new(BigInt::from(value.units()), 17).to_plain_string();
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn in_range() -> impl Strategy<Value = Value> {
    let max = Value::MAX.units();
    prop_oneof![
        (-max..=max).prop_map(|units| Value::from_units(units).unwrap()),
        any::<i64>().prop_map(Value::from_integer),
        (-1_000_000_000_i128..1_000_000_000).prop_map(|units| Value::from_units(units).unwrap()),
        (-99_999_i128..99_999, 0_u32..32)
            .prop_map(|(n, power)| Value::from_units(n * 10_i128.pow(power)).unwrap()),
        (0_i128..9).prop_map(move |n| Value::from_units(max - n).unwrap()),
        (0_i128..9).prop_map(move |n| Value::from_units(n - max).unwrap()),
    ]
}

/// A number as people and programs write it: sign, leading zeros, point anywhere, exponent or none.
/// Gives the text, and what it means as mantissa and exponent.
fn spelled_number() -> impl Strategy<Value = (String, BigInt, i64)> {
    let exponent = prop_oneof![
        3 => Just(None),
        3 => (-45_i64..45).prop_map(Some),
        1 => (-5_000_i64..5_000).prop_map(Some),
    ];
    ("[+-]?", "0{0,3}[0-9]{0,45}", "[0-9]{0,45}0{0,3}", any::<bool>(), exponent, "[eE]", "\\+?0{0,2}")
        .prop_filter_map("no digits", |(sign, whole, fraction, has_point, exponent, e, plus)| {
            let digits = format!("{whole}{fraction}");
            if digits.is_empty() {
                return None;
            }
            let point = if has_point || !fraction.is_empty() { "." } else { "" };
            let exponent_text = match exponent {
                None => String::new(),
                Some(n) if n < 0 => format!("{e}{n}"),
                Some(n) => format!("{e}{plus}{n}"),
            };
            let mantissa: BigInt = digits.parse().unwrap();
            let mantissa = if sign == "-" { -mantissa } else { mantissa };
            let scale = exponent.unwrap_or(0) - fraction.len() as i64;
            Some((format!("{sign}{whole}{point}{fraction}{exponent_text}"), mantissa, scale))
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn every_spelling_is_read_as_the_judge_reads_it((text, mantissa, exponent) in spelled_number()) {
        prop_assert_eq!(parse(&text).map(Value::units), expected(&mantissa, exponent), "{}", text);
    }

    #[test]
    fn ties_and_their_neighbours_go_to_the_even_unit(
        units in 0_u128..10_u128.pow(36), tail in "(5|49|50|51|4|6)[09]{0,60}[01]?", negative: bool,
    ) {
        let sign = if negative { "-" } else { "" };
        let text = format!("{sign}{units}{tail}e-{}", 17 + tail.len());
        let mantissa: BigInt = format!("{sign}{units}{tail}").parse().unwrap();
        let expected = expected(&mantissa, -17 - tail.len() as i64);
        prop_assert_eq!(parse(&text).map(Value::units), expected, "{}", text);
    }

    #[test]
    fn text_is_the_shortest_plain_decimal_and_reads_back(value in in_range()) {
        let text = value.to_string();
        prop_assert_eq!(&text, &expected_text(value));
        prop_assert!(text.len() <= Value::MAX_TEXT_LEN);
        prop_assert_eq!(parse(&text), Ok(value));
        let mut buf = [0; Value::MAX_TEXT_LEN];
        prop_assert_eq!(value.format_bytes(&mut buf), text.as_bytes());
        let decimals = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        prop_assert_eq!(usize::from(value.decimals()), decimals);
    }

    #[test]
    fn sums_are_exact_or_refused(a in in_range(), b in in_range()) {
        let fits = |units: i128| (units.abs() <= Value::MAX.units()).then_some(units).ok_or(ValueError::OutOfRange);
        prop_assert_eq!(a.checked_add(b).map(Value::units), fits(a.units() + b.units()));
        prop_assert_eq!(a.checked_sub(b).map(Value::units), fits(a.units() - b.units()));
        prop_assert_eq!(a.checked_add(b), b.checked_add(a));
        prop_assert_eq!(a.neg().checked_add(a), Ok(Value::ZERO));
        prop_assert_eq!(-a, a.neg());
        let sum = BigDecimal::new(a.units().into(), 17) + BigDecimal::new(b.units().into(), 17);
        if let Ok(exact) = a.checked_add(b) {
            prop_assert_eq!(BigDecimal::new(exact.units().into(), 17), sum);
        } else {
            prop_assert_eq!(a.saturating_add(b) == Value::MAX, sum.is_positive());
        }
    }

    #[test]
    fn order_of_increments_never_matters(mut increments in prop::collection::vec(
        (-10_i128.pow(35)..10_i128.pow(35)).prop_map(|units| Value::from_units(units).unwrap()), 0..40)) {
        let add_all = |increments: &[Value]| {
            increments.iter().try_fold(Value::ZERO, |sum, increment| sum.checked_add(*increment))
        };
        let forwards = add_all(&increments);
        increments.reverse();
        prop_assert_eq!(add_all(&increments), forwards);
        increments.sort();
        let total: Total = increments.iter().copied().collect();
        prop_assert_eq!(total.checked(), forwards);
    }

    #[test]
    fn a_total_is_exact_however_far_it_strays(values in prop::collection::vec(in_range(), 0..60)) {
        let exact: BigInt = values.iter().map(|value| BigInt::from(value.units())).sum();
        let total: Total = values.iter().copied().collect();
        let (min, max) = (Value::MIN, Value::MAX);
        let clamped = exact.clone().clamp(min.units().into(), max.units().into());
        prop_assert_eq!(BigInt::from(total.saturating().units()), clamped.clone());
        prop_assert_eq!(total.checked().is_ok(), exact == clamped);
    }

    #[test]
    fn rounding_is_half_to_even_at_every_decimal(value in in_range(), decimals in 0_u8..20) {
        let exact = BigDecimal::new(value.units().into(), 17);
        let rounded = exact.with_scale_round(i64::from(decimals), RoundingMode::HalfEven).with_scale(17);
        prop_assert_eq!(BigInt::from(value.round_to(decimals).units()), rounded.into_bigint_and_exponent().0);
    }

    #[test]
    fn halves_round_to_the_even_neighbour(steps in -10_i128.pow(9)..10_i128.pow(9), decimals in 0_u8..17) {
        let step = 10_i128.pow(u32::from(17 - decimals));
        let half = Value::from_units(steps * step + step / 2).unwrap();
        let even = if steps % 2 == 0 { steps } else { steps + 1 };
        prop_assert_eq!(half.round_to(decimals).units(), even * step);
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = Value::parse(&bytes);
    }

    #[test]
    fn number_like_texts_agree_with_the_grammar(text in "[+-]{0,2}[0-9]{0,3}[.]{0,2}[0-9]{0,3}([eE][+-]?[0-9]{0,2})?[ x]?") {
        let is_number = is_in_the_grammar(&text);
        prop_assert_eq!(parse(&text) != Err(ValueError::NotANumber), is_number, "{}", text);
    }
}

/// The grammar once more, without any arithmetic.
fn is_in_the_grammar(text: &str) -> bool {
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    (!whole.is_empty() || !fraction.is_empty())
        && all_digits(whole)
        && all_digits(fraction)
        && !exponent.is_empty()
        && all_digits(exponent)
}

#[test]
fn recorded_spellings_are_accepted() {
    for (text, answer) in [
        (".5", "0.5"),
        ("5.", "5"),
        ("+5", "5"),
        ("-0", "0"),
        ("+0", "0"),
        ("-.5", "-0.5"),
        ("+.5", "0.5"),
        ("0005", "5"),
        ("-0005", "-5"),
        ("00.50", "0.5"),
        ("-0.0", "0"),
        ("+1.e2", "100"),
        ("0000000000000000000000000000000000000000001", "1"),
        ("1e5", "100000"),
        ("1E5", "100000"),
        ("1e+5", "100000"),
        ("1e05", "100000"),
        ("1e00000005", "100000"),
        ("2.5E-3", "0.0025"),
        ("0e5", "0"),
        (".5e1", "5"),
        ("5.e1", "50"),
        ("0e999999999", "0"),
        ("120000000000000000000e-1", "12000000000000000000"),
        ("18446744073709551615", "18446744073709551615"),
        ("18446744073709551616", "18446744073709551616"),
        ("9999999999999999999", "9999999999999999999"),
        ("10000000000000000000", "10000000000000000000"),
    ] {
        assert_eq!(value(text).to_string(), answer, "{text}");
    }
}

#[test]
fn texts_that_are_no_decimal_number_are_refused() {
    let refused = "abc a1 1a --5 +-5 -+5 1_000 1,5 1.2.3 1e 1e+ 1e- e5 . - + -. +.e1 .e5 0b1 0o7 #1 $5 ½ １ 1e5x 0x 0xg \
        1..2 ..5 1e1.5 1e--1 1ee1 () None true nan NaN -nan nan() inf -inf Inf infinity +INFINITY 0x10 -0X10 0x1.8p1 5e5e5 5- 1e400x";
    for text in refused.split(' ') {
        assert_eq!(parse(text), Err(ValueError::NotANumber), "{text}");
    }
    for text in ["", " ", "1 2", " 1", "1 ", "\t1", "1\n", "1\r\n", "\x0b1", "5\0abc", "\0", "\x005", "1.5\0"]
    {
        assert_eq!(parse(text), Err(ValueError::NotANumber), "{text:?}");
    }
}

#[test]
fn both_ends_of_the_range_are_allowed_and_nothing_beyond() {
    for text in ["1e20", "100000000000000000000", "+1e+20"] {
        assert!(parse(text).is_ok(), "{text}");
    }
    assert_eq!(value("1e20"), Value::MAX);
    assert_eq!(value("-1e20"), Value::MIN);
    assert_eq!(Value::MAX.to_string(), "100000000000000000000");
    assert_eq!(Value::MIN.to_string(), "-100000000000000000000");
    for text in [
        "100000000000000000001",
        "100000000000000000000.00000000000000001",
        "1.1e20",
        "1e21",
        "1e400",
        "1e5000",
        "1e999999999999999999999999999999",
    ] {
        assert_eq!(parse(text), Err(ValueError::OutOfRange), "{text}");
        assert_eq!(parse(&format!("-{text}")), Err(ValueError::OutOfRange), "-{text}");
    }
    // Half a unit beyond rounds back to the even end; anything more does not.
    assert_eq!(parse("100000000000000000000.000000000000000005"), Ok(Value::MAX));
    let more = "100000000000000000000.00000000000000000500000000000000000000000000001";
    assert_eq!(parse(more), Err(ValueError::OutOfRange));
    assert_eq!(Value::MAX.checked_add(value("1e-17")), Err(ValueError::OutOfRange));
    assert_eq!(Value::MIN.checked_sub(value("1e-17")), Err(ValueError::OutOfRange));
    assert_eq!(Value::MAX.checked_sub(Value::MAX), Ok(Value::ZERO));
}

#[test]
fn extreme_exponents_and_lengths_are_read_exactly() {
    assert_eq!(value("1e-400"), Value::ZERO);
    assert_eq!(value("-1e-99999999999999999999999999"), Value::ZERO);
    assert_eq!(value("0e99999999999999999999999999"), Value::ZERO);
    assert_eq!(value("0.000e999999999999"), Value::ZERO);
    let zeros = "0".repeat(70_000);
    assert_eq!(value(&format!("{zeros}7.25{zeros}")).to_string(), "7.25");
    assert_eq!(value(&format!("0.{zeros}725e70001")).to_string(), "7.25");
    assert_eq!(value(&format!("725{zeros}e-70002")).to_string(), "7.25");
    assert_eq!(parse(&"9".repeat(70_000)), Err(ValueError::OutOfRange));
    assert_eq!(parse(&format!("{}x", "9".repeat(70_000))), Err(ValueError::NotANumber));
    // A tie is a tie until the last of many digits says otherwise.
    assert_eq!(value(&format!("0.000000000000000005{zeros}")).units(), 0);
    assert_eq!(value(&format!("0.000000000000000005{zeros}1")).units(), 1);
    assert_eq!(value(&format!("0.000000000000000015{zeros}")).units(), 2);
    assert_eq!(value("5e-18").units(), 0);
    assert_eq!(value("5.1e-18").units(), 1);
    assert_eq!(value("4.9e-18").units(), 0);
    assert_eq!(value("9.9e-19").units(), 0);
    assert_eq!(value("-15e-18").units(), -2);
}

#[test]
fn decimal_sums_have_no_noise() {
    let sum = |texts: &[&str]| {
        texts.iter().fold(Value::ZERO, |sum, text| sum.checked_add(value(text)).unwrap()).to_string()
    };
    assert_eq!(sum(&["0.1", "0.2"]), "0.3");
    assert_eq!(sum(&["0.1"; 30]), "3");
    assert_eq!(sum(&["0.7", "-0.1", "-0.2", "-0.3", "-0.1"]), "0");
    assert_eq!(sum(&["1e15", "0.1", "0.1", "0.1", "-1e15"]), "0.3");
    assert_eq!(sum(&["1e20", "-0.00000000000000001"]), "99999999999999999999.99999999999999999");
}

#[test]
fn estimates_saturate_and_not_a_number_is_zero() {
    assert_eq!(Value::saturating_from_f64_units(f64::NAN), Value::ZERO);
    assert_eq!(Value::saturating_from_f64_units(f64::INFINITY), Value::MAX);
    assert_eq!(Value::saturating_from_f64_units(f64::NEG_INFINITY), Value::MIN);
    assert_eq!(Value::saturating_from_f64_units(-2.6).units(), -3);
    assert_eq!(Value::saturating_from_units(i128::MIN), Value::MIN);
    assert_eq!(Value::ONE.units_f64(), 1e17);
    assert_eq!(Value::from_units(i128::MIN), Err(ValueError::OutOfRange));
    assert_eq!(Value::from_integer(i64::MIN).to_string(), i64::MIN.to_string());
}

#[test]
fn a_total_may_stray_far_beyond_the_range_and_come_back() {
    let mut total = Total::default();
    (0..1_000).for_each(|_| total.include(Value::MAX));
    assert_eq!(total.checked(), Err(ValueError::OutOfRange));
    assert_eq!(total.saturating(), Value::MAX);
    (0..2_000).for_each(|_| total.include(Value::MIN));
    assert_eq!(total.saturating(), Value::MIN);
    (0..1_000).for_each(|_| total.include(Value::MAX));
    total.include(value("-0.1"));
    assert_eq!(total.checked(), Ok(value("-0.1")));
}

#[test]
fn errors_read_as_the_client_is_told_them() {
    assert_eq!(ValueError::NotANumber.to_string(), "value is not a valid float");
    assert_eq!(ValueError::OutOfRange.to_string(), "Counter value out of allowed range");
}

#[test]
fn parsing_formatting_and_adding_allocate_nothing() {
    let zeros = "0".repeat(70_000);
    let long = format!("12345.678{zeros}1e-3");
    let texts =
        ["1", "-1", "12345678901234567890.12345678901234567", "1e20", "-1e-17", "x", "1e999", long.as_str()];
    let allocated = allocation_counter::measure(|| {
        for text in texts {
            let Ok(value) = parse(text) else { continue };
            let mut buf = [0; Value::MAX_TEXT_LEN];
            assert!(!value.format(&mut buf).is_empty());
            assert!(!value.round_to(3).format_bytes(&mut buf).is_empty());
            assert!(value.checked_add(Value::ONE).is_ok() || value == Value::MAX);
        }
    });
    assert_eq!(allocated.count_total, 0);
    let proof = allocation_counter::measure(|| drop(vec![1_u8; 100]));
    assert_eq!(proof.count_total, 1, "the counter counts");
}
